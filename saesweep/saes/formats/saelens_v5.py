"""SAEs that SAELens saved before version 6: a flat `cfg.json` that describes the run and the SAE together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saesweep.saes.folding import SAELENS_VERSION

_SAE_FIELDS = ("d_in", "d_sae", "architecture", "apply_b_dec_to_input", "normalize_activations", "dtype", "device")
_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index"}
_METADATA = (
    "model_name",
    "model_class_name",
    "hook_name",
    "hook_head_index",
    "dataset_path",
    "context_size",
    "seqpos_slice",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "exclude_special_tokens",
    "neuronpedia_id",
)


def is_v5_cfg(cfg: Mapping[str, Any]) -> bool:
    """Return whether a `cfg.json` is older than SAELens 6, which keeps what is known of the run under `metadata`."""
    return "metadata" not in cfg and ("hook_name" in cfg or "hook_point" in cfg)


def upgrade_v5_cfg(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `cfg.json` of version 6 for one of version 5, as SAELens' own converter reads it.

    The whole old configuration stays under `metadata.saelens_v5`, so that nothing about the run is lost.
    """
    old = {_RENAMED.get(key, key): value for key, value in cfg.items()}
    activation = old.get("activation_fn") or old.get("activation_fn_str") or "relu"
    kwargs = old.get("activation_fn_kwargs") or {}
    hook = str(old.get("hook_name") or "")
    new: dict[str, Any] = {
        "architecture": "standard",
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": old.get("reshape_activations") or ("hook_z" if "hook_z" in hook else "none"),
        **{key: old[key] for key in _SAE_FIELDS if old.get(key) is not None},
    }
    new["dtype"] = str(new["dtype"]).removeprefix("torch.")
    if new["normalize_activations"] in (False, True, "expected_average_only_in"):
        # Version 5 folded the scale into the weights when it saved a finished SAE, and left the field as it was.
        new["normalize_activations"] = "none"
    if "d_sae" not in new and isinstance(old.get("expansion_factor"), int) and isinstance(old.get("d_in"), int):
        new["d_sae"] = old["expansion_factor"] * old["d_in"]
    if activation not in ("relu", "topk"):
        new["architecture"] = f"{new['architecture']} with activation {activation}"  # refused by name
    if "topk" in (activation, new["architecture"]) and isinstance(kwargs, dict):
        new |= {"architecture": "topk", "k": kwargs.get("k", old.get("k"))}
        new["rescale_acts_by_decoder_norm"] = False
    new["metadata"] = {
        **{key: old[key] for key in _METADATA if key in old},
        "sae_lens_version": SAELENS_VERSION,
        "saelens_v5": dict(cfg),
    }
    return new
