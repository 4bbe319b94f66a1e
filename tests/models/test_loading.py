"""Finding, inspecting and loading models, and what is said when that fails."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.errors import UserError
from saesweep.models import HookNames, inspect_model, list_hooks, load_model, names_of_hook
from tests.models.tiny import D_VOCAB, HIDDEN, run_of, save_llama


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to connect fails the test that made it."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a network call for a local model")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def message(run: Any, *hooks: str) -> str:
    with pytest.raises(UserError) as caught:
        inspect_model(run, hooks or ["model.layers.1"])
    return str(caught.value)


@pytest.mark.parametrize(
    ("class_name", "hook", "width"),
    [
        ("AutoModelForCausalLM", "model.layers.1", HIDDEN),
        ("AutoModelForCausalLM", "model.layers.1.mlp.gate_proj", 48),
        ("TransformerBridge", "blocks.1.hook_resid_post", HIDDEN),
        ("TransformerBridge", "blocks.1.mlp.hook_post", 48),
        ("HookedTransformer", "blocks.1.attn.hook_z", HIDDEN),
    ],
)
def test_inspection_says_what_loading_finds(llama: Path, class_name: str, hook: str, width: int) -> None:
    run = run_of(model_name=str(llama), model_class_name=class_name)
    facts = inspect_model(run, [hook])
    assert facts.hooks == {hook: width}
    assert (facts.d_vocab, facts.context_limit, facts.has_lm_head) == (D_VOCAB, 64, True)
    model = load_model(run)
    acts = model.activations(torch.full((1, 3), 5), [hook])[hook]
    assert acts.flatten(2).shape[-1] == width
    assert model.d_vocab == D_VOCAB
    if class_name == "AutoModelForCausalLM":
        assert facts.n_parameters == sum(p.numel() for p in model.model.parameters())
        assert facts.weight_bytes == 4 * facts.n_parameters


def test_inspection_of_a_bridge_over_fused_weights(gpt2: Path) -> None:
    run = run_of(model_name=str(gpt2), model_class_name="TransformerBridge", hook_head_index=1)
    assert inspect_model(run, ["blocks.1.attn.hook_z"]).hooks == {"blocks.1.attn.hook_z": HIDDEN // 4}


def test_inspection_reads_no_weights(tmp_path: Path) -> None:
    save_llama(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    run = run_of(model_name=str(tmp_path))
    assert inspect_model(run, ["model.layers.1"]).hooks == {"model.layers.1": HIDDEN}
    with pytest.raises(UserError, match=r"the weights of the folder .* cannot be read"):
        load_model(run)


def test_bytes_follow_the_loading_type(llama: Path) -> None:
    half = inspect_model(
        run_of(model_name=str(llama), model_from_pretrained_kwargs={"dtype": "bfloat16"}), ["model.layers.0"]
    )
    assert half.weight_bytes == 2 * half.n_parameters


def test_an_unknown_hook_lists_the_nearest(llama: Path) -> None:
    text = message(run_of(model_name=str(llama)), "model.layer.2")
    assert "has no hook 'model.layer.2'" in text
    assert "model.layers.2" in text


def test_a_hook_name_of_the_other_library_is_recognised(llama: Path) -> None:
    assert "model_class_name: TransformerBridge" in message(run_of(model_name=str(llama)), "blocks.1.hook_resid_post")
    bridge = run_of(model_name=str(llama), model_class_name="TransformerBridge")
    assert "model_class_name: AutoModelForCausalLM" in message(bridge, "model.layers.1")


@pytest.mark.parametrize("hook", ["model.layers", "model.rotary_emb"])
def test_a_hook_without_a_row_per_token_is_refused(llama: Path, hook: str) -> None:
    assert message(run_of(model_name=str(llama)), hook).startswith("base.hook_name: ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"context_size": 65}, "context_size: 65 is more than"),
        ({"model_class_name": "HookedMamba"}, "model_class_name: 'HookedMamba' is not supported"),
        ({"hook_head_index": 1}, "hook_head_index: 1 is given, but the hook has no head axis"),
        ({"model_from_pretrained_kwargs": {"dtype": "float99"}}, "dtype: 'float99' is no type"),
        ({"model_from_pretrained_kwargs": {"fold_ln": True}}, "weight processing is not supported"),
        ({"sae": {"architecture": "topk", "k": 4, "d_sae": 64, "d_in": 33}}, "sae.d_in: 33 is given"),
    ],
)
def test_mistakes_in_the_fields_are_named(llama: Path, fields: dict[str, Any], said: str) -> None:
    assert said in message(run_of(**{"model_name": str(llama), **fields}))


def test_a_head_beyond_the_last_is_refused(llama: Path) -> None:
    run = run_of(model_name=str(llama), model_class_name="TransformerBridge", hook_head_index=4)
    assert "4 is too large; the hook has 4 heads" in message(run, "blocks.1.attn.hook_z")


def test_an_unknown_loading_argument_is_named(llama: Path) -> None:
    run = run_of(model_name=str(llama), model_from_pretrained_kwargs={"no_such_argument": 1})
    with pytest.raises(UserError, match=r"model_from_pretrained_kwargs: .*no_such_argument"):
        load_model(run)


def test_sae_lens_default_of_no_processing_is_accepted(llama: Path) -> None:
    run = run_of(model_name=str(llama), model_from_pretrained_kwargs={"center_writing_weights": False})
    assert inspect_model(run, ["model.layers.0"]).hooks == {"model.layers.0": HIDDEN}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(tmp_path: Path, missing: str, said: str) -> None:
    save_llama(tmp_path)
    (tmp_path / missing).unlink()
    assert said in message(run_of(model_name=str(tmp_path)))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert "does not exist" in message(run_of(model_name=str(tmp_path / "nowhere")))


def test_an_unknown_built_in_model() -> None:
    assert "unknown built-in model 'builtin:huge-lm'" in message(run_of(model_name="builtin:huge-lm"))


def test_a_hub_model_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = run_of(model_name="nobody/no-such-model", model_from_pretrained_kwargs={"cache_dir": str(tmp_path)})
    with pytest.raises(UserError, match="'nobody/no-such-model' could not be downloaded or read"):
        inspect_model(run, ["model.layers.0"], offline=True)


def test_classes_that_do_not_fit(llama: Path) -> None:
    def said(class_name: str) -> str:
        with pytest.raises(UserError) as caught:
            inspect_model(run_of(model_name=str(llama), model_class_name=class_name), [])
        return str(caught.value)

    assert "no model class of transformers; nearest: AutoModelForCausalLM" in said("AutoModelForCausalML")
    assert "is of type 'llama', which BertModel does not load" in said("BertModel")


@pytest.mark.parametrize("class_name", ["AutoModelForCausalLM", "TransformerBridge"])
def test_listed_hooks_are_those_that_work(llama: Path, class_name: str) -> None:
    run = run_of(model_name=str(llama), model_class_name=class_name)
    points = list_hooks(run)
    model = load_model(run)
    assert [point.name for point in points] == model.hook_names()
    rows = [point for point in points if point.axes is not None and point.axes[:2] == ("context", "token")]
    # The rotary embedding of a skeleton and of a bridge are no hooks of the layers.
    rows = [point for point in rows if "layers.1" in point.name or "blocks.1" in point.name]
    assert len(rows) > 20
    for point in rows:
        acts = model.activations(torch.zeros(2, 3, dtype=torch.long), [point.name])[point.name]
        assert [str(size) for size in acts.shape[2:]] == list(point.axes[2:])  # type: ignore[index]
    assert {point.counterpart for point in points} > {
        *(f"blocks.2.{name}" for name in ("hook_resid_post", "hook_mlp_out"))
    } or "model.layers.2.mlp" in {point.counterpart for point in points}


def test_names_in_both_libraries(llama: Path) -> None:
    run = run_of(model_name=str(llama))
    assert names_of_hook(run, "model.layers.1.mlp") == HookNames("model.layers.1.mlp", "blocks.1.hook_mlp_out")
    assert names_of_hook(run, "lm_head") == HookNames("lm_head", None)
    bridge = run_of(model_name=str(llama), model_class_name="TransformerBridge")
    assert names_of_hook(bridge, "blocks.1.hook_resid_pre") == HookNames(
        "model.layers.1:input", "blocks.1.hook_resid_pre"
    )
