"""Configurations that SAELens wrote before version 6: one flat mapping for the run and the SAE."""

from __future__ import annotations

from typing import Any

from saesweep.experiment.fields import run_fields, sae_fields

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "train_batch_size": "train_batch_size_tokens",
    "total_training_tokens": "training_tokens",
    "store_batch_size": "store_batch_size_prompts",
}
_OFF: dict[str, Any] = {
    "use_ghost_grads": False,
    "noise_scale": 0,
    "mse_loss_normalization": None,
    "normalize_sae_decoder": False,
    "scale_sparsity_penalty_by_decoder_norm": True,
    "b_dec_init_method": "zeros",
    "init_encoder_as_decoder_transpose": True,
    "decoder_orthogonal_init": False,
    "finetuning_method": None,
}
"""Field of version 5 -> its value where training was as it is here."""
_CHANGED = {
    "use_ghost_grads": "added a loss for dead latents, which no architecture here has",
    "noise_scale": "added noise to the pre-activations; here none is added",
    "mse_loss_normalization": "divided the squared error by the spread of each batch, so that coefficients weigh otherwise here",
    "normalize_sae_decoder": "kept decoder rows at norm 1 while training; here their norms are free",
    "scale_sparsity_penalty_by_decoder_norm": "left decoder norms out of the penalty; here they weigh it",
    "b_dec_init_method": "chose where b_dec begins; here it begins at 0",
    "init_encoder_as_decoder_transpose": "began with an encoder of its own; here it begins as the decoder's transpose",
    "decoder_orthogonal_init": "began with orthogonal decoder rows; here they begin at random",
    "finetuning_method": "added a last phase of fine-tuning; here there is none",
}
"""The same fields -> what another value did there."""
_WITHOUT_MEANING = ("hook_layer", "hook_point_layer", "tokens_per_buffer", "finetuning_tokens", "model_batch_size")
"""Said by other fields already, or read only with a field above: left out without a word."""
_LOGGER = (
    "log_to_wandb",
    "wandb_project",
    "wandb_id",
    "run_name",
    "wandb_entity",
    "wandb_log_frequency",
    "eval_every_n_wandb_logs",
)


def is_v5(cfg: dict[str, Any]) -> bool:
    """Return whether a flat configuration is older than SAELens 6, which keeps the run's fields apart."""
    version = str(cfg.get("sae_lens_version") or "")
    if version and version.split(".")[0].isdecimal():
        return int(version.split(".")[0]) < 6
    return "metadata" not in cfg and ("hook_name" in cfg or "hook_point" in cfg)


def upgrade_v5(cfg: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the configuration in the shape of version 6 and warnings about what changed its meaning."""
    flat = {_RENAMED.get(key, key): value for key, value in cfg.items()}
    warnings: list[str] = []
    activation = flat.pop("activation_fn", None) or flat.pop("activation_fn_str", None)
    flat.pop("activation_fn_str", None)
    arguments = flat.pop("activation_fn_kwargs", None) or {}
    architecture = flat.get("architecture", "standard")
    if activation == "topk" and architecture in ("standard", "topk"):
        architecture = "topk"
        flat.update({"k": arguments["k"]} if "k" in arguments else {})
        flat["rescale_acts_by_decoder_norm"] = False  # version 5 selected by the activation alone
    elif activation not in (None, "relu"):
        warnings.append(f"activation_fn {activation!r} of SAELens 5 is not known here; read as {architecture}")
    if architecture == "jumprelu":  # version 5 used one name for the weight of either sparsity loss
        for old, new in (("l1_coefficient", "l0_coefficient"), ("l1_warm_up_steps", "l0_warm_up_steps")):
            if old in flat:
                flat[new] = flat.pop(old)
    flat["architecture"] = architecture
    _upgrade_start(flat)
    for name, off in _OFF.items():
        if (value := flat.pop(name, None)) not in (None, off):
            warnings.append(f"{name}: {value!r} of SAELens 5 {_CHANGED[name]}")
    for name in _WITHOUT_MEANING:
        flat.pop(name, None)
    own = {name: flat[name] for name in sae_fields() if flat.get(name) is not None and name not in ("dtype", "device")}
    if "decoder_init_norm" in flat:  # null is a value there: as drawn
        own["decoder_init_norm"] = flat["decoder_init_norm"]
    if own.get("d_sae") is not None:
        own.pop("expansion_factor", None)
    logger = {name: flat.pop(name) for name in _LOGGER if flat.get(name) is not None}
    shared = set(run_fields())
    run = {k: v for k, v in flat.items() if k not in sae_fields() or (k in shared and v is not None)}
    run = {k: v for k, v in run.items() if v is not None}
    return {**run, "sae": own, **({"logger": logger} if logger else {})}, warnings


def _upgrade_start(flat: dict[str, Any]) -> None:
    """Say with `decoder_init_norm` how the decoder began: with a norm, with unit rows, or as Kaiming drew it."""
    heuristic, norm = flat.pop("decoder_heuristic_init", None), flat.pop("decoder_heuristic_init_norm", None)
    if "decoder_init_norm" in flat:
        return
    if heuristic is False:
        flat["decoder_init_norm"] = 1.0 if flat.get("normalize_sae_decoder") else None
    elif norm is not None:
        flat["decoder_init_norm"] = norm
