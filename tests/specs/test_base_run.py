from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.presets import PRESET_ARCHITECTURE, PRESETS

# Defaults of SAELens 6.54's LanguageModelSAERunnerConfig.
SAELENS: dict[str, Any] = {
    "model_name": "gelu-2l",
    "model_class_name": "HookedTransformer",
    "hook_name": "blocks.0.hook_mlp_out",
    "hook_eval": "NOT_IN_USE",
    "hook_head_index": None,
    "dataset_path": "",
    "dataset_trust_remote_code": True,
    "streaming": True,
    "is_dataset_tokenized": True,
    "use_chat_formatting": False,
    "context_size": 128,
    "use_cached_activations": False,
    "cached_activations_path": None,
    "from_pretrained_path": None,
    "prepend_bos": True,
    "exclude_special_tokens": False,
    "sequence_separator_token": "bos",
    "disable_concat_sequences": False,
    "seqpos_slice": (None,),
    "model_kwargs": {},
    "model_from_pretrained_kwargs": {"center_writing_weights": False},
    "n_batches_in_buffer": 20,
    "store_batch_size_prompts": 32,
    "activations_mixing_fraction": 0.5,
    "prefetch_llm_batches": False,
    "n_batches_for_norm_estimate": 1000,
    "device": "cpu",
    "llm_device": None,
    "act_store_device": None,
    "seed": 42,
    "dtype": "float32",
    "autocast": False,
    "autocast_lm": False,
    "compile_llm": False,
    "llm_compilation_mode": None,
    "compile_sae": False,
    "sae_compilation_mode": None,
    "training_tokens": 2_000_000,
    "train_batch_size_tokens": 4096,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "lr": 3e-4,
    "lr_scheduler_name": "constant",
    "lr_warm_up_steps": 0,
    "lr_end": None,
    "lr_decay_steps": 0,
    "n_restart_cycles": 1,
    "dead_feature_window": 1000,
    "feature_sampling_window": 2000,
    "dead_feature_threshold": 1e-8,
    "n_eval_batches": 10,
    "eval_batch_size_prompts": None,
    "n_checkpoints": 0,
    "checkpoint_path": "checkpoints",
    "save_final_checkpoint": False,
    "output_path": "output",
    "resume_from_checkpoint": None,
    "verbose": True,
}
SAELENS_LOGGER: dict[str, Any] = {
    "log_to_wandb": True,
    "log_activations_store_to_wandb": False,
    "log_optimizer_state_to_wandb": False,
    "log_weights_to_wandb": True,
    "wandb_project": "sae_lens_training",
    "wandb_id": None,
    "run_name": None,
    "wandb_entity": None,
    "wandb_log_frequency": 10,
    "eval_every_n_wandb_logs": 100,
}
_TOPK = {"k": 100, "aux_loss_coefficient": 1.0, "rescale_acts_by_decoder_norm": True}
_WITHOUT_EFFECT = {"sae.use_sparse_activations": False, "sae.topk_threshold_lr": 0.01}
SAELENS_SAE: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 1.0, "lp_norm": 1.0, "l1_warm_up_steps": 0},
    "gated": {"l1_coefficient": 1.0, "l1_warm_up_steps": 0},
    "jumprelu": {
        "jumprelu_init_threshold": 0.01,
        "jumprelu_bandwidth": 0.05,
        "jumprelu_sparsity_loss_mode": "step",
        "l0_coefficient": 1.0,
        "l0_warm_up_steps": 0,
        "pre_act_loss_coefficient": None,
        "jumprelu_tanh_scale": 4.0,
        "jumprelu_ste_to_input": False,
        "target_l0": None,
    },
    "topk": _TOPK,
    "batchtopk": _TOPK,
    "matryoshka_batchtopk": {**_TOPK, "matryoshka_widths": [], "use_matryoshka_aux_loss": False},
    "abstopk": _TOPK,
    "matching_pursuit": {
        "residual_threshold": 0.01,
        "max_iterations": None,
        "stop_on_duplicate_support": True,
        "decoder_init_norm": 1.0,  # 0.1 there, and replaced by 1 with a warning
    },
}
NOT_IN_SAELENS = {"multi_k"}
SAELENS_COMMON = {
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "decoder_init_norm": 0.1,
    "dtype": "float32",
    "device": "cpu",
}


def run(**fields: Any) -> BaseRun:
    sae = {"architecture": "topk", "d_in": 8, "d_sae": 128}
    return BaseRun.model_validate({"dataset_path": "x", "sae": sae, **fields})


def test_every_default_is_saelens_or_documented() -> None:
    ours = run().model_dump(mode="json")
    ours["dataset_path"] = ""
    page = (Path(__file__).parents[2] / "docs" / "defaults.md").read_text(encoding="utf-8")
    documented = {
        line.split("`")[1] for line in page.split("## What a default does")[0].splitlines() if line.startswith("| `")
    }
    theirs = {**SAELENS, "seqpos_slice": [None], **{f"logger.{k}": v for k, v in SAELENS_LOGGER.items()}}
    theirs |= _WITHOUT_EFFECT
    mine = {**ours, **{f"logger.{k}": v for k, v in LoggerSpec().model_dump().items()}}
    different = {name for name, value in theirs.items() if name not in mine or mine[name] != value}
    assert different == documented


@pytest.mark.parametrize("architecture", SAELENS_SAE)
def test_every_sae_default_is_saelens(architecture: str) -> None:
    ours = spec_class(architecture)(architecture=architecture).model_dump(mode="json")
    for name, value in {**SAELENS_COMMON, **SAELENS_SAE[architecture]}.items():
        assert ours[name] == value, name


def test_every_architecture_is_compared() -> None:
    saes = {name for name in architectures() if not hasattr(spec_class(name), "trained_as")}
    assert set(SAELENS_SAE) == saes - NOT_IN_SAELENS


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"training_tokens": 100}, "training_tokens", "less than one batch"),
        ({"buffer_tokens": 5000}, "buffer_tokens", "less than two training batches"),
        ({"lr_end": 1e-5}, "lr_end", "only the cosine schedules"),
        ({"lr_warm_up_steps": "60%", "lr_decay_steps": "60%"}, "lr_decay_steps", "longer than the run"),
        ({"seqpos_slice": [5, 5]}, "seqpos_slice", "selects no position"),
        ({"dataset_trust_remote_code": True}, "dataset_trust_remote_code", "cannot run remote code"),
        ({"activations_mixing_fraction": 0.1}, "activations_mixing_fraction", "buffer_tokens"),
        ({"use_cached_activations": True}, "cached_activations_path", "needs the folder of the cache"),
        ({"resume_from_checkpoint": "x"}, "resume_from_checkpoint", "run the same command again"),
        ({"compile_llm": True, "model_class_name": "TransformerBridge"}, "compile_llm", "only models of transformers"),
        ({"llm_compilation_mode": "default"}, "llm_compilation_mode", "compile_llm is false"),
        ({"use_chat_formatting": True, "is_dataset_tokenized": True}, "use_chat_formatting", "set one of them"),
        ({"model_class_name": "Nope"}, "model_class_name", "not supported"),
        ({"dataset_path": "builtin:synthetic"}, "model_name", "no language model"),
        ({"sae": {"architecture": "topk", "d_sae": 64}}, "sae.k", "more than d_sae 64"),
        ({"sae": {"architecture": "jumprelu", "target_l0": 5.0}}, "sae.target_l0", "quadratic reads it"),
        (
            {"sae": {"architecture": "matryoshka_batchtopk", "matryoshka_widths": [8, 4]}},
            "sae.matryoshka_widths",
            "ascending",
        ),
        ({"sae": {"architecture": "matryoshka_batchtopk", "d_sae": 256}}, "sae.matryoshka_widths", "missing"),
        (
            {"sae": {"architecture": "matryoshka_batchtopk", "matryoshka_widths": [8], "temporal_coefficient": 0.1}},
            "sae.temporal_coefficient",
            "set neighbour_pairs: true",
        ),
        ({"neighbour_pairs": True, "train_batch_size_tokens": 4095}, "train_batch_size_tokens", "an even number"),
        ({"neighbour_pairs": True, "seqpos_slice": [0, None, 2]}, "seqpos_slice", "selects no neighbours"),
        ({"neighbour_pairs": True, "seqpos_slice": [4, 5]}, "seqpos_slice", "selects no neighbours"),
        (
            {"neighbour_pairs": True, "dataset_path": "builtin:synthetic", "model_name": None},
            "neighbour_pairs",
            "no neighbours",
        ),
    ],
)
def test_cross_field_mistakes(fields: dict[str, Any], field: str, says: str) -> None:
    found = run(**fields).problems()
    assert [name for name, _ in found] == [field]
    assert says in found[0][1]


def test_a_sound_run_has_no_problems() -> None:
    assert run().problems() == []
    assert run(lr_scheduler_name="cosineannealing", lr_end=1e-6, lr_decay_steps="20%").problems() == []


def test_the_default_window_holds_several_batches() -> None:
    assert run().window_tokens == 8 * 4096
    assert run(n_batches_in_buffer=1000).window_tokens == 128_000
    assert run(buffer_tokens="50k").window_tokens == 50_000


def test_strict_types() -> None:
    for fields in (
        {"lr": "1e-4"},
        {"context_size": 128.5},
        {"streaming": 1},
        {"lrr": 1},
        {"sae": {"architecture": "x"}},
    ):
        with pytest.raises(ValidationError):
            run(**fields)


def test_runs_survive_json() -> None:
    first = run(lr_warm_up_steps="5%", lr_decay_steps="1Mtok", seqpos_slice=[1, None], exclude_special_tokens=[1, 2])
    again = BaseRun.model_validate(first.model_dump(mode="json"))
    assert again == first
    assert type(again.sae) is type(first.sae)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    sae = {p[4:]: v for p, v in PRESETS[name].items() if p.startswith("sae.")}
    rest = {p: v for p, v in PRESETS[name].items() if not p.startswith("sae.")}
    made = run(sae={"architecture": PRESET_ARCHITECTURE[name], "d_sae": 64, **sae}, **rest)
    assert made.problems() == []


def test_values_that_saelens_takes() -> None:
    cosine = run(lr_end=0, lr_scheduler_name="cosineannealing", sae={"architecture": "topk", "decoder_init_norm": None})
    assert (cosine.lr_end, cosine.sae.decoder_init_norm, cosine.problems()) == (0, None, [])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "one to three"),
        ([0, 1, 1, 1], "one to three"),
        ([None, None, 0], "the step 0 must be at least 1"),
        ([None, None, -1], "the step -1 must be at least 1"),
    ],
)
def test_slices_that_python_or_torch_refuse(value: list[int | None], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(seqpos_slice=value)


def test_types_as_older_files_of_saelens_spell_them() -> None:
    assert run(dtype="torch.bfloat16").dtype == "bfloat16"
    with pytest.raises(ValueError, match="float8"):
        run(dtype="torch.float8")
