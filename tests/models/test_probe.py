"""Models that tensors without values do not run through: the probe falls back, or says one thing about the model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.errors import UserError
from saesweep.models import list_hooks
from saesweep.models import skeleton as skeleton_module
from saesweep.models.inspection import inspect_model
from saesweep.models.library import locate
from saesweep.models.load import load_model
from saesweep.models.pretrained import loading_kwargs, read_config
from saesweep.models.skeleton import build_skeleton
from tests.models.tiny import D_VOCAB, HIDDEN, run_of, save_mixtral, save_t5, save_vit


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_mixtral(tmp_path_factory.mktemp("mixtral"))


def test_a_float32_mixture_of_experts_is_inspected(mixtral: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = inspect_model(run_of(model_name=str(mixtral)), ["model.layers.0", "model.layers.1.mlp"])
    assert facts.hooks == {"model.layers.0": HIDDEN, "model.layers.1.mlp": HIDDEN}
    assert facts.n_token_ids == D_VOCAB
    assert caplog.records == []  # torch logs a traceback about the operation without a rule


def test_its_hooks_are_listed_with_their_shapes(mixtral: Path) -> None:
    shapes = {hook.name: hook.axes for hook in list_hooks(run_of(model_name=str(mixtral)))}
    assert shapes["model.layers.1"] == ("context", "token", str(HIDDEN))
    assert shapes["lm_head"] == ("context", "token", str(D_VOCAB))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("class_name", ["AutoModelForCausalLM", "TransformerBridge"])
def test_zeros_and_no_values_find_the_same_shapes(
    name: str, class_name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(model_name=str(request.getfixturevalue(name)), model_class_name=class_name)
    expected = list_hooks(run)

    class Refusing:
        def __init__(self, **_: Any) -> None:
            raise NotImplementedError("no rule for tensors without values")

    monkeypatch.setattr(skeleton_module, "FakeTensorMode", Refusing)
    assert list_hooks(run) == expected


def test_zeros_take_the_tied_parameters_and_the_buffers_of_the_model(gpt2: Path) -> None:
    run = run_of(model_name=str(gpt2))
    config = read_config(locate(run), loading_kwargs(None))
    zeros = build_skeleton(run, config, offline=True, zeros=True)[0].model  # type: ignore[attr-defined]
    real = load_model(run).model  # type: ignore[attr-defined]
    assert zeros.lm_head.weight is zeros.transformer.wte.weight
    assert {name: p.shape for name, p in zeros.named_parameters()} == {n: p.shape for n, p in real.named_parameters()}
    assert all(not p.any() for p in zeros.parameters())
    for name, buffer in real.named_buffers():
        assert torch.equal(dict(zeros.named_buffers())[name], buffer), name


def test_the_skeleton_takes_the_experts_that_the_run_asks_for(mixtral: Path) -> None:
    for wanted in ("eager", "grouped_mm"):
        run = run_of(model_name=str(mixtral), model_from_pretrained_kwargs={"experts_implementation": wanted})
        config = read_config(locate(run), loading_kwargs(run.model_from_pretrained_kwargs))
        skeleton = build_skeleton(run, config, offline=True)[0]
        assert skeleton.model.config._experts_implementation == wanted  # type: ignore[attr-defined]


def test_the_skeleton_takes_changes_of_the_configuration_as_loading_does(llama: Path) -> None:
    run = run_of(model_name=str(llama), model_from_pretrained_kwargs={"num_hidden_layers": 2})
    assert "model.layers.2" not in load_model(run).hook_names()
    with pytest.raises(UserError, match=r"has no hook 'model.layers.2'"):
        inspect_model(run, ["model.layers.2"])


def test_a_decoder_that_gets_no_tokens_is_one_message_about_the_model(tmp_path: Path) -> None:
    run = run_of(model_name=str(save_t5(tmp_path)), model_class_name="AutoModelForSeq2SeqLM")
    assert inspect_model(run, ["encoder.block.1"]).hooks == {"encoder.block.1": HIDDEN}
    for ask in (lambda: inspect_model(run, ["decoder.block.1"]), lambda: list_hooks(run)):
        with pytest.raises(UserError, match=r"an encoder and a decoder.*AutoModelForTextEncoding"):
            ask()
    encoder = run.model_copy(update={"model_class_name": "AutoModelForTextEncoding"})
    assert any(hook.name == "encoder.block.1" for hook in list_hooks(encoder))


def test_a_class_that_takes_no_token_ids_is_one_message(tmp_path: Path) -> None:
    run = run_of(model_name=str(save_vit(tmp_path)), model_class_name="AutoModel")
    with pytest.raises(UserError, match=r"base.model_class_name: ViTModel takes no token ids"):
        inspect_model(run, ["layers.0"])
