"""Both libraries: activations, early stop, splice."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from saesweep.models import LanguageModel, load_model, replace_activations, shape_activations
from saesweep.models.base import CPU_PIECE_TOKENS
from saesweep.models.bridge import BridgeModel
from saesweep.models.huggingface import HuggingFaceModel
from tests.models.tiny import D_VOCAB, HIDDEN, run_of, save_bert

RESID, MLP, ATTN, HEADS = "resid", "mlp", "attention", "heads"
HUGGING_FACE = {RESID: "model.layers.1", MLP: "model.layers.0.mlp", ATTN: "model.layers.1.self_attn"}
BRIDGE = {RESID: "blocks.1.hook_resid_post", MLP: "blocks.0.hook_mlp_out", ATTN: "blocks.1.hook_attn_out"}
TOKENS = torch.randint(3, D_VOCAB, (5, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def hugging_face(llama: Path) -> LanguageModel:
    return load_model(run_of(model_name=str(llama)))


@pytest.fixture(scope="module")
def bridge(llama: Path) -> LanguageModel:
    return load_model(run_of(model_name=str(llama), model_class_name="TransformerBridge"))


def test_both_libraries_give_the_same_activations(hugging_face: LanguageModel, bridge: LanguageModel) -> None:
    ours = hugging_face.activations(TOKENS, list(HUGGING_FACE.values()))
    theirs = bridge.activations(TOKENS, list(BRIDGE.values()))
    for place in HUGGING_FACE:
        a, b = ours[HUGGING_FACE[place]], theirs[BRIDGE[place]]
        assert a.shape == (5, 12, HIDDEN)
        assert a.std() > 0.1
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("library", ["hugging_face", "bridge"])
def test_a_cpu_gets_many_contexts_in_pieces(library: str, request: pytest.FixtureRequest) -> None:
    model: HuggingFaceModel | BridgeModel = request.getfixturevalue(library)
    hooks = list((HUGGING_FACE if isinstance(model, HuggingFaceModel) else BRIDGE).values())
    tokens_NT = torch.randint(3, D_VOCAB, (2 * CPU_PIECE_TOKENS // 12 + 3, 12))
    sizes = []
    network = model.model if isinstance(model, HuggingFaceModel) else model.bridge
    embedding = next(module for module in network.modules() if isinstance(module, torch.nn.Embedding))
    with embedding.register_forward_hook(lambda _module, _args, out: sizes.append(out.shape[0] * out.shape[1])):
        found = model.activations(tokens_NT, hooks)
    assert len(sizes) == 3
    assert max(sizes) <= CPU_PIECE_TOKENS
    for context in (0, 84, 85, 86, len(tokens_NT) - 1):  # around the first cut, and the ends
        alone = model.activations(tokens_NT[context : context + 1], hooks)
        for hook in hooks:
            assert found[hook].shape == (len(tokens_NT), 12, HIDDEN)
            torch.testing.assert_close(found[hook][context], alone[hook][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("library", ["hugging_face", "bridge"])
def test_hooks_are_read_together_and_exchanged_together(library: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(library)
    names = HUGGING_FACE if library == "hugging_face" else BRIDGE
    together = f"{names[RESID]} + {names[MLP]}"  # the second runs first
    found = model.activations(TOKENS, [names[MLP], together])
    alone = model.activations(TOKENS, [names[RESID], names[MLP]])
    assert torch.equal(found[names[MLP]], alone[names[MLP]])
    assert torch.equal(found[together], torch.cat([alone[names[RESID]], alone[names[MLP]]], dim=-1))
    # What the MLP gives is exchanged first, and does not matter where all of the later stream is exchanged too.
    zeros, seen = torch.zeros(5, 12, HIDDEN), []
    spliced = model.logits(
        TOKENS, replace=(together, [lambda acts: (seen.append(acts), zeros)[1], lambda acts: 9 * acts])
    )
    assert torch.equal(spliced, model.logits(TOKENS, replace=(names[RESID], lambda _: zeros)))
    assert not torch.allclose(seen[0], alone[names[RESID]], atol=1e-3)


def test_both_libraries_give_the_same_logits_clean_and_spliced(
    hugging_face: LanguageModel, bridge: LanguageModel
) -> None:
    clean = hugging_face.logits(TOKENS)
    assert clean.shape == (5, 12, D_VOCAB)
    torch.testing.assert_close(clean, bridge.logits(TOKENS), atol=1e-4, rtol=0)
    for place in HUGGING_FACE:
        spliced = hugging_face.logits(TOKENS, replace=(HUGGING_FACE[place], torch.neg))
        assert (spliced - clean).abs().max() > 1e-2
        theirs = bridge.logits(TOKENS, replace=(BRIDGE[place], torch.neg))
        torch.testing.assert_close(spliced, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["hugging_face", "bridge"])
def test_an_identical_splice_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(kind)
    hook = (HUGGING_FACE if kind == "hugging_face" else BRIDGE)[RESID]
    assert torch.equal(model.logits(TOKENS), model.logits(TOKENS, replace=(hook, torch.clone)))
    assert torch.equal(model.logits(TOKENS), model.logits(TOKENS))  # and the hook is gone


def test_the_input_of_a_module_is_a_hook(hugging_face: LanguageModel) -> None:
    hooks = [
        "model.layers.1:input",
        "model.layers.0",
        "model.layers.1.mlp.down_proj:input",
        "model.layers.1.self_attn:input",
    ]
    acts = hugging_face.activations(TOKENS, hooks)
    assert torch.equal(acts[hooks[0]], acts[hooks[1]])
    block = hugging_face.model.model.layers[1]
    mlp_in = hugging_face.activations(TOKENS, ["model.layers.1.mlp:input"])["model.layers.1.mlp:input"]
    assert torch.equal(acts[hooks[2]], block.mlp.act_fn(block.mlp.gate_proj(mlp_in)) * block.mlp.up_proj(mlp_in))
    # Llama hands attention its input by keyword.
    assert torch.equal(acts[hooks[3]], block.input_layernorm(acts[hooks[0]]))


@pytest.mark.parametrize("hook", ["model.layers.1:input", "model.layers.1.self_attn:input"])
def test_an_input_can_be_spliced(hugging_face: LanguageModel, hook: str) -> None:
    clean = hugging_face.logits(TOKENS)
    assert torch.equal(clean, hugging_face.logits(TOKENS, replace=(hook, torch.clone)))
    changed = hugging_face.logits(TOKENS, replace=(hook, torch.neg))
    assert (changed - clean).abs().max() > 1e-2
    if hook == "model.layers.1:input":
        torch.testing.assert_close(changed, hugging_face.logits(TOKENS, replace=("model.layers.0", torch.neg)))


def test_later_layers_do_not_run_for_an_input(hugging_face: LanguageModel) -> None:
    runs: Counter[int] = Counter()
    handles = [
        layer.register_forward_hook(lambda *_, number=number: runs.update([number]))
        for number, layer in enumerate(hugging_face.model.model.layers)
    ]
    hugging_face.activations(TOKENS, ["model.layers.1:input"])
    for handle in handles:
        handle.remove()
    assert runs == {0: 1}


def test_an_encoder(tmp_path: Path) -> None:
    bert = save_bert(tmp_path)
    for class_name, hook in (("AutoModel", "encoder.layer.0"), ("BertForMaskedLM", "bert.encoder.layer.0")):
        run = run_of(model_name=str(bert), model_class_name=class_name)
        model = load_model(run)
        assert not model.has_lm_head
        acts = model.activations(TOKENS, [hook, f"{hook}:input"])
        assert acts[hook].shape == acts[f"{hook}:input"].shape == (5, 12, HIDDEN)
        reference = model.model(TOKENS, output_hidden_states=True).hidden_states
        assert torch.equal(acts[hook], reference[1])
        assert torch.equal(acts[f"{hook}:input"], reference[0])
    # Its causal class exists, and looks at later tokens: its logits are no predictions of them.
    assert not load_model(run_of(model_name=str(bert), model_class_name="AutoModelForCausalLM")).has_lm_head


def test_hugging_face_runs_once_and_stops_after_the_last_hook(llama: Path) -> None:
    model = load_model(run_of(model_name=str(llama)))
    runs: Counter[str] = Counter()
    for name in ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "lm_head"):
        model.model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    model.activations(TOKENS, ["model.layers.1", "model.layers.0", "model.layers.0.mlp"])
    assert runs == {"model.embed_tokens": 1, "model.layers.0": 1, "model.layers.1": 1}
    runs.clear()
    model.activations(TOKENS, ["model.layers.0.mlp"])
    assert runs == {"model.embed_tokens": 1, "model.layers.0": 1}


def test_bridge_runs_once_and_stops_after_the_last_hook(llama: Path) -> None:
    model = load_model(run_of(model_name=str(llama), model_class_name="HookedTransformer"))
    runs: Counter[int] = Counter()
    for layer in range(3):
        model.bridge.blocks[layer].register_forward_pre_hook(lambda *_, layer=layer: runs.update([layer]))
    model.activations(TOKENS, ["blocks.1.hook_resid_post", "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z"])
    assert runs == {0: 1, 1: 1}


def test_hooks_leave_nothing_behind(hugging_face: LanguageModel) -> None:
    def boom(_: torch.Tensor) -> torch.Tensor:
        raise KeyError("from inside")

    before = hugging_face.logits(TOKENS)
    hugging_face.activations(TOKENS, ["model.layers.0"])
    with pytest.raises(KeyError, match="from inside"):
        hugging_face.logits(TOKENS, replace=("model.layers.0", boom))
    assert all(not module._forward_hooks for module in hugging_face.model.modules())
    assert torch.equal(before, hugging_face.logits(TOKENS))


def test_head_axis(bridge: LanguageModel) -> None:
    hook = "blocks.1.attn.hook_z"
    acts = bridge.activations(TOKENS, [hook])[hook]
    assert acts.shape == (5, 12, 4, 8)
    joined, one = shape_activations(acts), shape_activations(acts, 2)
    assert joined.shape == (5, 12, 32)
    assert torch.equal(joined[..., 16:24], one)
    # Splicing the same values back, whole or one head, changes nothing; zeroing one head changes the logits.
    clean = bridge.logits(TOKENS)
    for new, head in ((joined, None), (one, 2)):
        again = bridge.logits(TOKENS, replace=(hook, lambda a, new=new, head=head: replace_activations(a, new, head)))
        torch.testing.assert_close(again, clean)
    zeros = torch.zeros_like(one)
    ablated = bridge.logits(TOKENS, replace=(hook, lambda a: replace_activations(a, zeros, 2)))
    assert (ablated - clean).abs().max() > 1e-3


def test_autocast_computes_in_bfloat16_and_loading_type_is_kept(llama: Path) -> None:
    fields = {"model_name": str(llama)}
    exact = load_model(run_of(**fields)).activations(TOKENS, ["model.layers.0.mlp"])["model.layers.0.mlp"]
    autocast = load_model(run_of(**fields, autocast_lm=True)).activations(TOKENS, ["model.layers.0.mlp"])
    loaded = load_model(run_of(**fields, model_from_pretrained_kwargs={"dtype": "bfloat16"}))
    assert exact.dtype == torch.float32
    for other in (autocast, loaded.activations(TOKENS, ["model.layers.0.mlp"])):
        acts = other["model.layers.0.mlp"]
        assert acts.dtype == torch.bfloat16
        torch.testing.assert_close(acts.float(), exact, atol=0.1, rtol=0.1)


def test_model_kwargs_reach_the_forward_pass(llama: Path) -> None:
    plain = load_model(run_of(model_name=str(llama))).logits(TOKENS)
    last = load_model(run_of(model_name=str(llama), model_kwargs={"logits_to_keep": 1})).logits(TOKENS)
    torch.testing.assert_close(last, plain[:, -1:])
