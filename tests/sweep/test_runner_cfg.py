"""`runner_cfg.json` holds no field that SAELens' `LanguageModelSAERunnerConfig` lacks: it refuses unknown names."""

from typing import Any

import pytest

from saesweep.experiment import load_experiment
from saesweep.runs.runner_cfg import runner_cfg

# The fields of SAELens 6.54.12; `make interop` asks SAELens itself.
_NAMES = """
model_name model_class_name hook_name hook_eval hook_head_index dataset_path dataset_trust_remote_code streaming
is_dataset_tokenized use_chat_formatting context_size use_cached_activations cached_activations_path from_pretrained_path
prepend_bos exclude_special_tokens sequence_separator_token disable_concat_sequences seqpos_slice model_kwargs
model_from_pretrained_kwargs n_batches_in_buffer store_batch_size_prompts activations_mixing_fraction prefetch_llm_batches
n_batches_for_norm_estimate device llm_device act_store_device seed dtype autocast autocast_lm compile_llm
llm_compilation_mode compile_sae sae_compilation_mode training_tokens train_batch_size_tokens adam_beta1 adam_beta2 lr
lr_scheduler_name lr_warm_up_steps lr_end lr_decay_steps n_restart_cycles dead_feature_window feature_sampling_window
dead_feature_threshold n_eval_batches eval_batch_size_prompts n_checkpoints checkpoint_path save_final_checkpoint
output_path resume_from_checkpoint verbose sae_lens_version sae_lens_training_version sae logger
"""
SAELENS = frozenset(_NAMES.split())


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "standard"])
def test_every_field_is_one_of_saelens(architecture: str, tree: dict[str, Any]) -> None:
    experiment = load_experiment(tree)
    run = experiment.corner_runs(architecture)[0]
    written = runner_cfg(run.model_copy(update={"sae": run.sae.resolve_widths(32)}))
    assert set(written) <= SAELENS
    assert written["sae"]["architecture"] == architecture
    assert isinstance(written["lr_decay_steps"], int)
