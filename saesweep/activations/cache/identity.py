"""Which fields of a run decide its activations: two runs that agree in them can share a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.evaluation import EvaluationSpec

_NOT_THE_DATA = frozenset(
    {
        # Named apart in the manifest, and compared with more sense than equality.
        "hook_name",
        "seed",
        # How the cache is reached.
        "use_cached_activations",
        "cached_activations_path",
        # The order of the rows, which a cache has fixed, and how they were computed fast.
        "n_batches_in_buffer",
        "buffer_tokens",
        "store_batch_size_prompts",
        "activations_mixing_fraction",
        "prefetch_llm_batches",
        "compile_llm",
        "llm_compilation_mode",
        "n_batches_for_norm_estimate",
        "dataset_trust_remote_code",
        "allow_code_execution",
        # Devices and the training side.
        "device",
        "llm_device",
        "act_store_device",
        "dtype",
        "autocast",
        "compile_sae",
        "sae_compilation_mode",
        "training_tokens",
        "train_batch_size_tokens",
        "lr",
        "lr_scheduler_name",
        "lr_warm_up_steps",
        "lr_decay_steps",
        "lr_end",
        "n_restart_cycles",
        "adam_beta1",
        "adam_beta2",
        "dead_feature_window",
        "feature_sampling_window",
        "dead_feature_threshold",
        "from_pretrained_path",
        "sae",
        # Output.
        "n_eval_batches",
        "eval_batch_size_prompts",
        "n_checkpoints",
        "checkpoint_path",
        "save_final_checkpoint",
        "resume_from_checkpoint",
        "output_path",
        "verbose",
        "synthetic",
        "logger",
    }
)
"""Everything else counts, a field added later too: a cache refused for nothing is better than one that is wrong."""

_PART_OF_THE_DATASET = ("dataset_name", "split", "data_files", "data_dir", "column_name")


def source_fields(run: BaseRun, evaluation: EvaluationSpec, *, is_written: bool = True) -> dict[str, Any]:
    """Return the fields that decide the activations, as JSON: model, dataset, tokens, held-out sizes.

    Args:
        run: The run.
        evaluation: Says how much is held out.
        is_written: With references in place of the values of environment variables, as a manifest keeps them.
    """
    dumped = run.model_dump(mode="json", exclude=set(_NOT_THE_DATA))
    if is_written:
        dumped = run.as_written(dumped)
    for name in _PART_OF_THE_DATASET:  # named where they say something, so that older caches still fit
        if dumped[name] == type(run).model_fields[name].default:
            del dumped[name]
    kwargs = dumped["model_from_pretrained_kwargs"] or {}
    dumped["model_from_pretrained_kwargs"] = {k: v for k, v in kwargs.items() if k != "token"}  # who asks
    return {
        **dumped,
        "evaluation.select_tokens": evaluation.select_tokens,
        "evaluation.test_tokens": evaluation.test_tokens,
    }
