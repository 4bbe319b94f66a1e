"""The model class and hook that exports name for SAELens: one library's names, whatever the run was trained with."""

from pathlib import Path
from typing import Any

import pytest

from saesweep.models import SAELensPair, saelens_pair
from saesweep.specs.model_loading import WEIGHT_PROCESSING
from tests.models.tiny import run_of, save_bert, save_llama

OFF = dict.fromkeys(WEIGHT_PROCESSING, False)
CAUSAL, HOOKED, BRIDGE = "AutoModelForCausalLM", "HookedTransformer", "TransformerBridge"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_llama(tmp_path_factory.mktemp("llama")))


def pair(name: str, hook: str, **fields: Any) -> tuple[str, str]:
    found = saelens_pair(run_of(model_name=name, hook_name=hook, **fields))
    return found.model_class_name, found.hook_name


@pytest.mark.parametrize(
    ("model_class", "hook", "expected"),
    [
        (CAUSAL, "model.layers.1", (CAUSAL, "model.layers.1")),
        (CAUSAL, "model.layers.1.mlp.up_proj", (CAUSAL, "model.layers.1.mlp.up_proj")),
        ("LlamaForCausalLM", "model.layers.1.mlp", (CAUSAL, "model.layers.1.mlp")),
        # AutoModel has the body alone, without its prefix.
        ("AutoModel", "layers.1", (CAUSAL, "model.layers.1")),
        # SAELens reads outputs only: a block's input is the output of the one before it.
        (CAUSAL, "model.layers.2:input", (CAUSAL, "model.layers.1")),
        (CAUSAL, "model.layers.0:input", (HOOKED, "blocks.0.hook_resid_pre")),
        (CAUSAL, "model.layers.1.self_attn.o_proj:input", (HOOKED, "blocks.1.attn.hook_z")),
        # HookedTransformer loads no folder.
        (BRIDGE, "blocks.1.hook_resid_post", (CAUSAL, "model.layers.1")),
        (BRIDGE, "blocks.2.hook_resid_pre", (CAUSAL, "model.layers.1")),
        (BRIDGE, "blocks.1.attn.hook_z", (HOOKED, "blocks.1.attn.hook_z")),
        # Nothing corresponds: the run's own names, which SAELens refuses.
        (CAUSAL, "model.layers.1.mlp.down_proj:input", (CAUSAL, "model.layers.1.mlp.down_proj:input")),
    ],
)
def test_a_local_folder(llama: str, model_class: str, hook: str, expected: tuple[str, str]) -> None:
    assert pair(llama, hook, model_class_name=model_class) == expected


def test_a_hub_id_of_transformer_lens_keeps_its_hook_point() -> None:
    kwargs = {"dtype": "bfloat16", "center_writing_weights": False}
    run = run_of(
        model_name="gpt2",
        model_class_name=BRIDGE,
        hook_name="blocks.3.hook_resid_post",
        model_from_pretrained_kwargs=kwargs,
    )
    assert saelens_pair(run) == SAELensPair(HOOKED, "blocks.3.hook_resid_post", {"dtype": "bfloat16", **OFF})


def test_arguments_are_those_of_the_class_that_is_named(llama: str) -> None:
    kwargs = {"dtype": "auto", "center_writing_weights": False, "revision": "main"}
    fields = {"model_name": llama, "model_class_name": BRIDGE, "model_from_pretrained_kwargs": kwargs}
    post = saelens_pair(run_of(hook_name="blocks.1.hook_resid_post", **fields))
    assert post.model_from_pretrained_kwargs == {"dtype": "auto", "revision": "main"}
    heads = saelens_pair(run_of(hook_name="blocks.1.attn.hook_z", **fields))
    assert heads.model_from_pretrained_kwargs == {"revision": "main", **OFF}


def test_heads_need_the_axis_that_transformer_lens_has(llama: str) -> None:
    fields: dict[str, Any] = {"model_class_name": BRIDGE, "hook_head_index": 2}
    assert pair(llama, "blocks.1.attn.hook_z", **fields) == (HOOKED, "blocks.1.attn.hook_z")


def test_an_encoder_keeps_its_own_names(tmp_path: Path) -> None:
    assert pair(str(save_bert(tmp_path)), "encoder.layer.1", model_class_name="AutoModel") == (
        "AutoModel",
        "encoder.layer.1",
    )
