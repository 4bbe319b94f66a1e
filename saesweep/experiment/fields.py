"""Which fields a base run has, which of them can be searched, and which read only under a setting of another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.synthetic import SyntheticSpec

ARCHITECTURE = "sae.architecture"
TARGET_L0 = "target_l0"
"""The parameter that `objective.matched` adds to the space: the L0 that a trial aims at."""

NESTED = ("sae", "logger", "synthetic")
"""Fields of a base run that are mappings of fields; all others are one value."""

_TRIAL_PATHS = (
    "lr",
    "lr_end",
    "lr_scheduler_name",
    "lr_warm_up_steps",
    "lr_decay_steps",
    "n_restart_cycles",
    "adam_beta1",
    "adam_beta2",
    "hook_name",
    "hook_name_out",
)
STREAM_PATHS: dict[str, bool] = {
    "model_name": False,
    "model_class_name": False,
    "hook_head_index": False,
    "dataset_path": False,
    "dataset_name": False,
    "split": False,
    "data_dir": False,
    "column_name": False,
    "cached_activations_path": False,
    "prepend_bos": False,
    "exclude_special_tokens": False,
    "sequence_separator_token": False,
    "disable_concat_sequences": False,
    "max_activation_norm_multiple": False,
    "seqpos_slice": False,
    "context_size": True,
    "n_batches_in_buffer": True,
    "buffer_tokens": True,
    "neighbour_pairs": True,
    "train_batch_size_tokens": True,
    "seed": True,
}
"""Fields that decide the activation stream -> whether metrics measured under two of its values can be compared.

Another model, dataset or choice of positions asks another question: its losses and variances are not on one scale.
"""
MODEL_PATHS = ("model_name", "model_class_name")
"""Those of them that decide which model is loaded."""

_FIXED_SAE = {
    "d_in": "it is the width of the activations, which the model and the hook fix",
    "d_out": "it is the width of the activations to reconstruct, which the model and the hook fix",
    "n_layers": "it is the number of hooks that hook_name names",
    "dtype": "it is the type of the exported weights; set it under base",
    "device": "it is only named in the exported file; set it under base",
    "reshape_activations": "it follows from the hook; set it under base",
}

READ_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "lr_end": ("lr_scheduler_name", ("cosineannealing", "cosineannealingwarmrestarts")),
    "n_restart_cycles": ("lr_scheduler_name", ("cosineannealingwarmrestarts",)),
    "sae.target_l0": ("sae.jumprelu_sparsity_loss_mode", ("quadratic",)),
    "sae.jumprelu_tanh_scale": ("sae.jumprelu_sparsity_loss_mode", ("tanh",)),
    "sae.k_start": ("sae.k_anneal_steps", ()),
    "sae.anneal_start": ("sae.p_end", ()),
    "sae.anneal_end": ("sae.p_end", ()),
    "sae.n_sparsity_updates": ("sae.p_end", ()),
    "sae.sparsity_queue_length": ("sae.p_end", ()),
}
"""Field -> (field that decides, its values under which the first is read at all; none: any but 0 and null)."""


def is_read(field: str, params: Mapping[str, Any]) -> bool:
    """Return whether a trial with these parameters reads a field, as far as they decide it."""
    decider, values = READ_ONLY_WITH[field]
    if decider not in params:
        return True
    return params[decider] in values if values else params[decider] not in (0, "0", "0%", None)


WITHOUT_EFFECT = {
    "dead_feature_threshold": "SAELens does not read it either; leave it out",
    "n_eval_batches": "trials are measured on evaluation.select_tokens; leave it out",
    "logger.log_activations_store_to_wandb": "SAELens does not read it either; leave it out",
    "logger.log_optimizer_state_to_wandb": "SAELens does not read it either; leave it out",
    "logger.eval_every_n_wandb_logs": "trials are measured at rungs and at their end; leave it out",
    "sae.use_sparse_activations": "only active latents are computed in any case; leave it out",
    "sae.topk_threshold_lr": "the exported threshold is a quantile of recent training batches, not a running average; leave it out",
}
"""SAELens' fields that would do nothing here, and what to do instead. `from_cfg` leaves them out."""


def why_without_effect(path: str) -> str | None:
    """Return the message about a field of SAELens that would do nothing here; None for any other path."""
    return f"{path.rpartition('.')[2]!r} has no effect here: {WITHOUT_EFFECT[path]}" if path in WITHOUT_EFFECT else None


def run_fields() -> tuple[str, ...]:
    """Return the top-level fields of a base run."""
    return tuple(BaseRun.model_fields)


def logger_fields() -> tuple[str, ...]:
    """Return the fields of the logger block."""
    return tuple(LoggerSpec.model_fields)


def synthetic_fields() -> tuple[str, ...]:
    """Return the fields of the block of synthetic features."""
    return tuple(SyntheticSpec.model_fields)


def sae_fields(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the fields that at least one of these architectures (all, when left out) has."""
    chosen = architectures() if names is None else names
    return tuple(dict.fromkeys(field for name in chosen for field in spec_class(name).model_fields))


def architectures_with(path: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the architectures that have the field of a dotted path; all of them for a run's own field."""
    if not path.startswith("sae."):
        return tuple(names)
    return tuple(name for name in names if path[4:] in spec_class(name).model_fields)


def known_paths() -> tuple[str, ...]:
    """Return every dotted path of a base run, over all architectures."""
    own = [name for name in run_fields() if name not in NESTED]
    blocks = {"logger": logger_fields(), "synthetic": synthetic_fields(), "sae": sae_fields()}
    return (*own, *(f"{block}.{name}" for block, names in blocks.items() for name in names))


def trial_paths(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the dotted paths that trials of one stream, and so architectures, can differ in."""
    return (*(f"sae.{name}" for name in sae_fields(names) if name not in _FIXED_SAE), *_TRIAL_PATHS)


def searchable_paths(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the dotted paths that `space` can name, for these architectures."""
    return (*trial_paths(names), *STREAM_PATHS)


def why_not_searchable(path: str) -> str:
    """Return the reason for a path that exists but is not searchable."""
    if path in NESTED:
        example = {"sae": "k", "logger": "wandb_project", "synthetic": "num_features"}[path]
        return f"is a block of fields; name one of them, such as {path}.{example}"
    if path.startswith("sae.") and path[4:] in _FIXED_SAE:
        return f"cannot be searched: {_FIXED_SAE[path[4:]]}"
    return "cannot be searched: it belongs to the whole run; set it under base, and write one experiment per value"


def flatten(base: dict[str, Any]) -> dict[str, Any]:
    """Return a nested base run as one value per dotted path; blocks that are not mappings are left out."""
    flat: dict[str, Any] = {}
    for key, value in base.items():
        if key not in NESTED:
            flat[key] = value
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": item for name, item in value.items()})
    return flat


def parts_of(path: str) -> tuple[str, ...]:
    """Return the keys that lead to a field in a nested base run."""
    block, _, name = path.partition(".")
    return (block, name) if name and block in NESTED else (path,)


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Return the nested base run of one value per dotted path."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *blocks, name = parts_of(path)
        (tree.setdefault(blocks[0], {}) if blocks else tree)[name] = value
    return tree
