"""Configurations of SAELens in the fields of a run here: of its runner, of an exported SAE and its metadata, and from before version 6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saesweep.experiment.fields import WITHOUT_EFFECT, logger_fields, run_fields, sae_fields
from saesweep.specs.model_loading import OPT_IN, WEIGHT_PROCESSING
from saesweep.specs.synthetic import SYNTHETIC

METADATA_FIELDS = (
    "model_name",
    "model_class_name",
    "hook_name",
    "hook_name_out",
    "hook_head_index",
    "dataset_path",
    "context_size",
    "seqpos_slice",
    "model_from_pretrained_kwargs",
    "prepend_bos",
    "exclude_special_tokens",
    "sequence_separator_token",
    "disable_concat_sequences",
)
"""Fields of a run that SAELens writes there."""
PAIR_FIELDS = ("model_class_name", "hook_name", "hook_name_out", "model_from_pretrained_kwargs")
"""The run's own stand in the block `saesweep`: SAELens may load the model by others."""
SAESWEEP_FIELDS = (
    "dataset_name",
    "split",
    "data_files",
    "data_dir",
    "column_name",
    "datasets",
    "max_activation_norm_multiple",
    "synthetic",
)
"""Fields of a run without a name in SAELens that say which activations an SAE is for; they stand in the same block. The
schedule does not: neither does `buffer_tokens`, which means nothing without the batch. Nor is the permission to run code
read from a published file."""

SAELENS_MODEL_CLASS = "HookedTransformer"
_OF_THAT_MACHINE = frozenset(
    {
        "hook_eval",
        "sae_lens_version",
        "sae_lens_training_version",
        "dataset_trust_remote_code",
        "output_path",
        "checkpoint_path",
        "resume_from_checkpoint",
        "verbose",
        OPT_IN,
        *WITHOUT_EFFECT,
    }
)
"""Fields that say nothing about the SAE, and the permission to run code: left out without a word."""
_SWITCHES_OFF: dict[str, Any] = {
    "compile_llm": False,
    "llm_compilation_mode": None,
    "compile_sae": False,
    "sae_compilation_mode": None,
    "activations_mixing_fraction": 0.5,
}
"""Fields about the speed on that machine, or without a counterpart here: left out with a warning where they differ."""
_THRESHOLD_LR = 0.01
"""SAELens' default of `topk_threshold_lr`, which all its files of such SAEs hold: only another value is named as lost."""
_TRANSCODERS = {"transcoder": "standard_transcoder", "skip_transcoder": "standard_skip_transcoder"}
"""SAELens' names of architectures that have another one here."""
_DEVICES = ("device", "llm_device", "act_store_device")
"""Left out with a warning: SAELens writes the devices that the machine had, or `cpu` where none was chosen."""


@dataclass
class Imported:
    """A base run read from a configuration file."""

    base: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def run_of_sae(cfg: dict[str, Any]) -> Imported:
    """Read the `cfg.json` of an exported SAE: its metadata remembers how it was trained."""
    metadata = cfg.get("metadata") or {}
    details = metadata.get("training_architecture_details") or {}
    saved_as = cfg.get("architecture")
    own_name = _TRANSCODERS.get(saved_as, saved_as) if isinstance(saved_as, str) else saved_as
    sae = {**cfg, **details, "architecture": metadata.get("training_architecture", own_name)}
    run = run_of_metadata(metadata)
    imported = run_of_runner({**run, "sae": sae})
    imported.warnings.append(
        "cfg.json alone does not say lr, schedule, batch or tokens (runner_cfg.json beside it would); defaults stand in"
    )
    if cfg.get("normalize_activations", "none") == "none" and "normalize_activations" not in details:
        imported.warnings.append(
            "normalize_activations is `none` in an exported SAE, because export folds it into the weights; "
            "state base.sae.normalize_activations if training scaled the activations"
        )
    return imported


def run_of_runner(cfg: dict[str, Any]) -> Imported:
    """Read the `runner_cfg.json` of SAELens: the run with the SAE in it."""
    base: dict[str, Any] = {}
    lost: list[str] = []
    warnings: list[str] = []
    for key, value in cfg.items():
        if key in _OF_THAT_MACHINE or key in ("sae", "logger"):
            continue
        if key in _DEVICES:
            lost += [key] if value not in (None, "auto") else []
        elif key not in run_fields() or (key in _SWITCHES_OFF and value != _SWITCHES_OFF[key]):
            lost.append(key)
        elif key not in _SWITCHES_OFF:
            base[key] = value
    if "buffer_tokens" not in cfg:  # not one of ours: SAELens ignores this switch and looks at the rows
        base.pop("is_dataset_tokenized", None)
    if base.get("model_class_name", SAELENS_MODEL_CLASS) == SAELENS_MODEL_CLASS and "model_name" in base:
        base["model_class_name"] = "TransformerBridge"
        warnings.append("model_class_name HookedTransformer is TransformerBridge in TransformerLens 4; read as that")
        kwargs = base.get("model_from_pretrained_kwargs")
        if isinstance(kwargs, dict):  # the bridge keeps the weights as they are, which is what this asks for
            kept = {k: v for k, v in kwargs.items() if not (k in WEIGHT_PROCESSING and v is False)}
            base["model_from_pretrained_kwargs"] = kept or None
    if base.get("dataset_path") == SYNTHETIC:
        base["model_name"] = None  # SAELens' field is text, so our exports name no model there
    if base.get("lr_scheduler_name", "constant") == "constant":
        base.pop("lr_end", None)  # SAELens writes lr / 10 there, and nothing reads it
    sae = cfg.get("sae")
    sae = sae if isinstance(sae, dict) else {}
    known = sae_fields()
    lost += [
        f"sae.{key}" for key in sae if key not in known and key not in _EXPORT_ONLY and not _has_no_effect(key, sae)
    ]
    base["sae"] = {key: _dtype(key, value) for key, value in sae.items() if key in known}
    logger = cfg.get("logger")
    if isinstance(logger, dict):
        lost += [
            path for key in logger if key not in logger_fields() and (path := f"logger.{key}") not in WITHOUT_EFFECT
        ]
        base["logger"] = {k: v for k, v in logger.items() if k in logger_fields() and k != "log_to_wandb"}
        if logger.get("log_to_wandb"):
            lost.append("logger.log_to_wandb")
    base = {key: _dtype(key, value) for key, value in base.items()}
    if lost:
        warnings.append(f"fields not carried over: {', '.join(lost)}")
    return Imported(base, warnings)


_EXPORT_ONLY = frozenset(
    {"metadata", "sae_lens_version", "sae_lens_training_version", "layer_scales", *METADATA_FIELDS}
)


def _has_no_effect(key: str, sae: Mapping[str, Any]) -> bool:
    return f"sae.{key}" in WITHOUT_EFFECT and (key != "topk_threshold_lr" or sae[key] == _THRESHOLD_LR)


def _dtype(key: str, value: Any) -> Any:
    return value.removeprefix("torch.") if key == "dtype" and isinstance(value, str) else value


def run_of_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the run as far as they are known.

    In our exports the block `saesweep` has the run's own `PAIR_FIELDS` and its `SAESWEEP_FIELDS`; anything else there is
    not read.
    """
    found = {name: metadata.get(name) for name in METADATA_FIELDS}
    own = metadata.get("saesweep")
    if isinstance(own, dict):
        found |= {name: own[name] for name in (*PAIR_FIELDS, *SAESWEEP_FIELDS) if name in own}
        if own.get("datasets"):  # SAELens' field names one of them
            del found["dataset_path"]
    # Null stands for the default everywhere else; here it means that documents are joined without a token.
    no_separator = "sequence_separator_token" in metadata and found["sequence_separator_token"] is None
    known = {name: value for name, value in found.items() if value is not None}
    return {**known, "sequence_separator_token": None} if no_separator else known


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
