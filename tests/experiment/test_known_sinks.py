"""`validate` warns about model families that are known to have attention sinks."""

from typing import Any

import pytest

from saesweep.experiment import load_experiment


def warnings_of(**base: Any) -> list[str]:
    tree = {
        "name": "known",
        "base": {
            "dataset_path": "a/b",
            "hook_name": "model.layers.12",
            "sae": {"architecture": "topk", "d_sae": 64, "k": 8},
            **base,
        },
        "space": {},
    }
    return [text for text in load_experiment(tree).warnings if "attention sinks" in text]


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("HuggingFaceTB/SmolLM2-135M", "SmolLM2"),
        ("./models/smollm2/", "SmolLM2"),
        ("meta-llama/Llama-2-7b-hf", "Llama 2"),
        ("EleutherAI/pythia-70m-deduped", "Pythia"),
        ("Qwen/Qwen3-0.6B", "Qwen"),
        ("google/gemma-3-270m", "Gemma 3"),
    ],
)
def test_a_known_family(model: str, family: str) -> None:
    (warning,) = warnings_of(model_name=model)
    assert warning.startswith(f"{family} models have attention sinks")
    assert "max_activation_norm_multiple: 10" in warning
    assert warnings_of(model_name=model, max_activation_norm_multiple=10) == []


def test_sinks_at_bos_are_left_out_with_the_special_tokens() -> None:
    assert warnings_of(model_name="google/gemma-3-270m", exclude_special_tokens=True) == []
    assert warnings_of(model_name="Qwen/Qwen3-0.6B", exclude_special_tokens=True) != []


@pytest.mark.parametrize(
    "base",
    [
        {"model_name": "somebody/unknown"},
        # Nothing was measured on these, and no source at hand speaks of them.
        {"model_name": "mistralai/Mistral-7B-v0.1"},
        {"model_name": "gpt2", "hook_name": "transformer.h.8"},
        {"model_name": "HuggingFaceTB/SmolLM2-135M", "hook_name": "model.layers.12.mlp"},
        {"model_name": "HuggingFaceTB/SmolLM2-135M", "seqpos_slice": [1, None]},
    ],
)
def test_no_warning_without_reason(base: dict[str, Any]) -> None:
    assert warnings_of(**base) == []


def test_hook_names_of_transformer_lens() -> None:
    base = {"model_name": "EleutherAI/pythia-70m-deduped", "model_class_name": "TransformerBridge"}
    assert warnings_of(**base, hook_name="blocks.8.hook_resid_pre") != []
    assert warnings_of(**base, hook_name="blocks.8.hook_mlp_out") == []
