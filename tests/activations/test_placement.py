"""Where the language model and the shuffle window lie."""

from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.activations import ActivationSource, open_source
from saesweep.errors import UserError
from saesweep.specs.experiment import EvaluationSpec
from tests.activations.cache.runs import save_texts
from tests.models.tiny import run_of

EVALUATION = EvaluationSpec(select_tokens=64, test_tokens=64)
HOOKS = ["model.layers.1", "model.layers.2.mlp"]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


def source(llama: Path, texts: Path, **fields: Any) -> ActivationSource:
    return open_source(run_of(model_name=str(llama), dataset_path=str(texts), **fields), EVALUATION, HOOKS)


def test_a_model_spread_by_a_device_map_gives_the_same_batches(llama: Path, texts: Path, tmp_path: Path) -> None:
    """A part of it lies on disk and is read when it is needed: a model larger than one device."""
    device_map = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    device_map |= {"model.layers.2": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread = source(
        llama,
        texts,
        model_from_pretrained_kwargs={"device_map": device_map, "offload_folder": str(tmp_path), "dtype": "float32"},
    )
    whole = source(llama, texts)
    assert spread.model is not None
    on_disk: Any = spread.model
    assert on_disk.model.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    for _ in range(3):
        expected, found = whole.stream.next_batch(), spread.stream.next_batch()
        for hook in HOOKS:
            assert torch.equal(found[hook], expected[hook])
    tokens = spread.select.tokens_NT
    assert tokens is not None
    assert whole.model is not None
    spliced = [model.logits(tokens, replace=("model.layers.1", torch.neg)) for model in (spread.model, whole.model)]
    assert torch.equal(*spliced)


@pytest.mark.parametrize("field", ["device", "llm_device", "act_store_device"])
def test_a_device_that_is_not_there_is_named_by_its_field(field: str, llama: Path, texts: Path) -> None:
    with pytest.raises(UserError, match=rf"base\.{field}: 'cuda:99' asks for a CUDA device"):
        source(llama, texts, **{field: "cuda:99"})


@pytest.mark.gpu
def test_the_model_on_the_gpu_and_the_window_in_main_memory(llama: Path, texts: Path) -> None:
    found = source(llama, texts, device="cpu", llm_device="cuda", act_store_device="cpu")
    assert found.model is not None
    assert found.model.device.type == "cuda"
    assert found.stream.next_batch()[HOOKS[0]].device.type == "cpu"
