"""Configurations that SAELens wrote before version 6: one flat mapping for the run and the SAE."""

from __future__ import annotations

from typing import Any

from saesweep.experiment.fields import run_fields, sae_fields

_RENAMED = {
    "hook_point": "hook_name",
    "train_batch_size": "train_batch_size_tokens",
    "total_training_tokens": "training_tokens",
    "store_batch_size": "store_batch_size_prompts",
}
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
    elif activation not in (None, "relu"):
        warnings.append(f"activation_fn {activation!r} of SAELens 5 is not known here; read as {architecture}")
    if architecture == "jumprelu":  # version 5 used one name for the weight of either sparsity loss
        for old, new in (("l1_coefficient", "l0_coefficient"), ("l1_warm_up_steps", "l0_warm_up_steps")):
            if old in flat:
                flat[new] = flat.pop(old)
    flat["architecture"] = architecture
    own = {name: flat[name] for name in sae_fields() if flat.get(name) is not None and name not in ("dtype", "device")}
    if own.get("d_sae") is not None:
        own.pop("expansion_factor", None)
    logger = {name: flat.pop(name) for name in _LOGGER if flat.get(name) is not None}
    shared = set(run_fields())
    run = {k: v for k, v in flat.items() if k not in sae_fields() or (k in shared and v is not None)}
    run = {k: v for k, v in run.items() if v is not None}
    return {**run, "sae": own, **({"logger": logger} if logger else {})}, warnings
