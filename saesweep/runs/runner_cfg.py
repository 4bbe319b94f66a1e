"""`runner_cfg.json`: a trial's run in SAELens' own fields, accepted by its `LanguageModelSAERunnerConfig.from_dict`."""

from __future__ import annotations

from typing import Any

from saesweep.models.library import saelens_pair
from saesweep.specs import BaseRun, Duration

NOT_IN_SAELENS = (
    "dataset_name",
    "split",
    "data_files",
    "data_dir",
    "column_name",
    "datasets",
    "buffer_tokens",
    "neighbour_pairs",
    "max_activation_norm_multiple",
    "synthetic",
    "allow_code_execution",
    "hook_name_out",
)
"""Fields that SAELens does not know, and whose names its `from_dict` refuses; `experiment.yaml` beside the file has them."""
NOT_IN_SAELENS_SAE = (
    "expansion_factor",
    "detach_aux_decoder",
    "k_start",
    "k_anneal_steps",
    "jumprelu_frequency_scale",
    "sparsity_function",
    "p_end",
    "anneal_start",
    "anneal_end",
    "n_sparsity_updates",
    "sparsity_queue_length",
    "resample_steps",
    "temporal_coefficient",
    "aligned",
)
"""The same of the SAE's fields."""
SAELENS_VERSION = "6.54.12"
"""The SAELens release whose file formats are written."""


def runner_cfg(run: BaseRun) -> dict[str, Any]:
    """Return the run as SAELens would write it: durations in steps, sizes resolved."""
    data = run.as_written(run.model_dump(mode="json"))
    data["dataset_path"] = largest_dataset(run)
    for field in NOT_IN_SAELENS:
        del data[field]
    for field in type(run).model_fields:
        value = getattr(run, field)
        if isinstance(value, Duration):
            data[field] = run.to_steps(value)
    data["n_batches_in_buffer"] = -(-run.window_tokens // run.context_size)
    data["is_dataset_tokenized"] = bool(run.is_dataset_tokenized)
    data["model_name"] = data["model_name"] or "none"
    data["dead_feature_window"] = run.to_steps(run.dead_feature_window)
    pair = saelens_pair(run)
    data["model_class_name"] = pair.model_class_name
    data["hook_name"] = pair.hook_name
    if pair.hook_name_out is not None:  # SAELens trains no transcoders; its metadata call the field so
        data["hook_name_out"] = pair.hook_name_out
    kwargs = run.as_written({"model_from_pretrained_kwargs": pair.model_from_pretrained_kwargs})
    data["model_from_pretrained_kwargs"] = kwargs["model_from_pretrained_kwargs"] or None
    data["device"] = "cpu" if run.device == "auto" else run.device
    data["checkpoint_path"] = data["checkpoint_path"] or "checkpoints"
    data["output_path"] = data["output_path"] or "output"
    data["sae"] = training_sae_cfg(run)
    data["sae_lens_version"] = SAELENS_VERSION
    data["sae_lens_training_version"] = SAELENS_VERSION
    return data


def largest_dataset(run: BaseRun) -> str:
    """Return what SAELens' `dataset_path` gets, as it is written: of a mixture, the dataset with the largest weight.

    The field holds one dataset, and SAELens loads it where no other text is given.
    """
    written = run.as_written(run.model_dump(mode="json", include={"dataset_path", "datasets"}))
    if not run.datasets:
        return str(written["dataset_path"])
    weights = [each.weight for each in run.datasets]
    return str(written["datasets"][weights.index(max(weights))]["dataset_path"])


def training_sae_cfg(run: BaseRun) -> dict[str, Any]:
    """Return the training configuration of the SAE as SAELens has it."""
    data = run.sae.model_dump(mode="json", exclude=set(NOT_IN_SAELENS_SAE))
    for field in data:
        value = getattr(run.sae, field)
        if isinstance(value, Duration):
            data[field] = run.to_steps(value)
    data["metadata"] = {}
    return data
