"""SAEs of other tools: their own latents and reconstructions, what is known of them, and damaged files."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saesweep.errors import UserError
from saesweep.saes import Normalizer, architecture_for, open_sae, pretrained_params, read_pretrained
from saesweep.specs.architectures import spec_class

from .peers import D_IN, D_SAE, Peer, dictionary_learning, gemma_scope_2, llama_scope, qwen_scope, sparsify

Make = Callable[[Path], Peer]
CLASSES = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
}
LLAMA: dict[str, dict[str, Any]] = {
    "jumprelu": {},
    "no scale": {"norm_activation": "inference"},
    "bias on the input": {"apply_decoder_bias_to_pre_encoder": True},
    "free norms": {"sparsity_include_decoder_norm": False},
    "relu": {"act_fn": "relu"},
    "topk": {"act_fn": "topk", "jump_relu_threshold": 0.0},
    "topk by a threshold": {"act_fn": "topk"},
}
PEERS: dict[str, Make] = {
    "Gemma Scope 2": gemma_scope_2,
    "sparsify": sparsify,
    "sparsify, free norms": lambda root: sparsify(root, normalize_decoder=False),
    "Qwen Scope": qwen_scope,
    **{kind: (lambda root, kind=kind: dictionary_learning(root, kind)) for kind in CLASSES},
    **{f"Llama Scope, {name}": (lambda root, f=fields: llama_scope(root, **f)) for name, fields in LLAMA.items()},
}


def batch() -> torch.Tensor:
    return 2 * torch.randn(64, D_IN, generator=torch.Generator().manual_seed(8)).double() + 0.5


@pytest.mark.parametrize("name", PEERS)
def test_the_peers_own_latents_and_reconstructions(name: str, tmp_path: Path) -> None:
    peer = PEERS[name](tmp_path)
    sae = open_sae(peer.source).to(dtype=torch.float64)
    latents_BF = peer.encode(batch())
    assert 0 < (latents_BF > 0).double().mean() < 1
    torch.testing.assert_close(sae.encode(batch()), latents_BF, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(batch()), peer.decode(latents_BF), rtol=1e-5, atol=1e-5)


def test_a_scale_per_token_is_one_of_ours(tmp_path: Path) -> None:
    peer = llama_scope(tmp_path, norm_activation="token-wise")
    sae = open_sae(peer.source).to(dtype=torch.float64)
    assert sae.cfg["normalize_activations"] == "constant_norm_rescale"
    torch.testing.assert_close(sae.encode(batch()), peer.encode(batch()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PEERS)
def test_training_starts_from_it(name: str, tmp_path: Path) -> None:
    peer = PEERS[name](tmp_path)
    found = read_pretrained(str(peer.source))
    sae = open_sae(peer.source)
    options = {"k": sae.cfg["k"]} if sae.architecture == "topk" else {}
    options |= {"rescale_acts_by_decoder_norm": False} if sae.architecture == "topk" else {}
    spec = spec_class(sae.architecture)(
        d_in=D_IN, d_sae=sae.d_sae, normalize_activations="expected_average_only_in", **options
    )
    architecture = architecture_for(spec)
    normalizer = Normalizer.fit("expected_average_only_in", [batch().float()], D_IN)
    like = {key: tensor.double() for key, tensor in architecture.init(torch.Generator()).items()}
    params = pretrained_params(found, architecture, normalizer, like)
    latents_BF = architecture.encode(params, normalizer.apply(batch()))
    torch.testing.assert_close(latents_BF, peer.encode(batch()), rtol=1e-4, atol=1e-4)


def test_what_the_files_say_of_model_and_hook(tmp_path: Path) -> None:
    known = {
        "Gemma Scope 2": ("google/gemma-3-1b-pt", "blocks.10.hook_resid_post", "model.layers.10"),
        "sparsify": ("EleutherAI/pythia-70m", "blocks.5.hook_resid_post", "layers.5"),
        "Qwen Scope": ("Qwen/Qwen3-1.7B-Base", "blocks.7.hook_resid_post", "model.layers.7"),
        "BatchTopKSAE": ("EleutherAI/pythia-70m-deduped", "blocks.5.hook_resid_post", None),
        "Llama Scope, jumprelu": ("meta-llama/Llama-3.1-8B", "blocks.15.hook_resid_post", None),
    }
    for number, (name, expected) in enumerate(known.items()):
        metadata = open_sae(PEERS[name](tmp_path / str(number)).source).metadata
        assert (metadata["model_name"], metadata["hook_name"], metadata.get("hf_hook_name")) == expected
    found = open_sae(tmp_path / "3" / "trainer_0")
    assert found.metadata["training_architecture"] == "batchtopk"
    assert found.metadata["context_size"] == 1024
    inside = open_sae(sparsify(tmp_path / "inside", "h.5.mlp").source).metadata
    assert (inside.get("hook_name"), inside["hf_hook_name"]) == (None, "h.5.mlp")


def test_gemma_scope_2_of_attention_and_without_a_configuration(tmp_path: Path) -> None:
    peer = gemma_scope_2(tmp_path, hf_hook_point_in="model.layers.3.self_attn.o_proj.input", hf_hook_point_out=None)
    sae = open_sae(peer.source)
    assert sae.cfg["reshape_activations"] == "hook_z"
    assert sae.metadata["hook_name"] == "blocks.3.attn.hook_z"
    assert sae.metadata["hf_hook_name"] == "model.layers.3.self_attn.o_proj:input"
    assert peer.config is not None
    peer.config.unlink()
    bare = open_sae(peer.weights).metadata
    assert (bare["model_name"], bare["hook_name"]) == ("google/gemma-3-1b-pt", "blocks.10.hook_resid_post")


@pytest.mark.parametrize("name", ["Gemma Scope 2", "sparsify", "Qwen Scope", "BatchTopKSAE"])
def test_the_file_of_the_weights_may_be_named(name: str, tmp_path: Path) -> None:
    peer = PEERS[name](tmp_path)
    assert torch.equal(open_sae(peer.weights)(batch()), open_sae(peer.source)(batch()))


def without(peer: Peer, key: str) -> Peer:
    """Return it with a key left out of its configuration."""
    assert peer.config is not None
    peer.config.write_text(json.dumps({k: v for k, v in json.loads(peer.config.read_text()).items() if k != key}))
    return peer


OTHERS: list[tuple[Make, str]] = [
    (lambda root: gemma_scope_2(root, type="crosscoder"), "is a crosscoder"),
    (lambda root: gemma_scope_2(root, architecture="topk"), "architecture must be jump_relu, got 'topk'"),
    (lambda root: sparsify(root, transcode=True), "is a transcoder"),
    (lambda root: sparsify(root, skip_connection=True), "is a transcoder"),
    (lambda root: sparsify(root, activation="groupmax"), "activation 'groupmax'"),
    (lambda root: sparsify(root, signed=True), "latents of both signs"),
    (lambda root: sparsify(root, num_latents=D_SAE + 1), r"cfg\.json calls for \[25, 8\]"),
    (lambda root: sparsify(root, k=0), "k must be a positive whole number, got 0"),
    (lambda root: sparsify(root, k=D_SAE + 1), "k must be a whole number from 1 to d_sae, got 25"),
    (lambda root: dictionary_learning(root, "AutoEncoder", dict_class="IdentityDict"), "dict_class must be one of"),
    (lambda root: dictionary_learning(root, "AutoEncoder", dict_class="BatchTopKSAE"), "has no b_dec, which"),
    (lambda root: dictionary_learning(root, "AutoEncoder", dict_size=7), "dict_size is 7, but"),
    (lambda root: dictionary_learning(root, "AutoEncoderTopK", k="3"), "k must be a positive whole number, got '3'"),
    (lambda root: llama_scope(root, hook_point_out="blocks.15.hook_mlp_out"), "is a transcoder"),
    (lambda root: llama_scope(root, use_glu_encoder=True), "gated linear unit"),
    (lambda root: llama_scope(root, norm_activation="batch-wise"), "depends on the batch"),
    (lambda root: llama_scope(root, dataset_average_activation_norm=None), "the same positive number as in and out"),
    (lambda root: llama_scope(root, dataset_average_activation_norm={"in": 10**400}), "the same positive number"),
    (
        lambda root: llama_scope(root, dataset_average_activation_norm={"in": 2.0, "out": 1.0}),
        "the same positive number",
    ),
    (lambda root: llama_scope(root, jump_relu_threshold=-1.0), "jump_relu_threshold must be a number from 0"),
    (
        lambda root: without(llama_scope(root), "jump_relu_threshold"),
        "jump_relu_threshold must be a number .* got None",
    ),
    (lambda root: llama_scope(root, act_fn="gelu"), "act_fn must be relu, jumprelu or topk, got 'gelu'"),
    (lambda root: llama_scope(root, d_sae=7), "d_sae is 7, but the weights have 24"),
]


@pytest.mark.parametrize(("make", "message"), OTHERS)
def test_what_cannot_be_read_exactly_is_named(make: Make, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_sae(make(tmp_path).source)


@pytest.mark.parametrize(
    "name", ["Gemma Scope 2", "sparsify", "Qwen Scope", "MatryoshkaBatchTopKSAE", "Llama Scope, jumprelu"]
)
def test_damaged_files_are_one_message(name: str, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            open_sae(peer.source)
        assert "\n" not in str(caught.value)

    def changed(**new: torch.Tensor | None) -> None:
        kept = {**whole, **new}
        left = {key: tensor for key, tensor in kept.items() if tensor is not None}
        if peer.weights.suffix == ".safetensors":
            save_file(left, peer.weights)
        else:
            torch.save(left, peer.weights)

    peer = PEERS[name](tmp_path)
    is_safe = peer.weights.suffix == ".safetensors"
    whole = load_file(peer.weights) if is_safe else torch.load(peer.weights, weights_only=True)
    content = peer.weights.read_bytes()
    decoder = next(key for key in whole if key.lower().startswith(("w_dec", "decoder.w")))
    for damaged in (b"", content[:40], content[: len(content) // 2], content[: len(content) - 9], b"\xff" * 200):
        peer.weights.write_bytes(damaged)
        refused("not a readable")
    changed(**{decoder: None})
    refused(f"has no {decoder}")
    changed(**{decoder: torch.full_like(whole[decoder], torch.nan)})
    refused(f"NaN or infinite values in {decoder}")
    changed(**{decoder: whole[decoder][0].contiguous()})
    refused(f"{decoder} has shape")
    changed(**{decoder: whole[decoder][:, :-1].contiguous()})
    refused(r"shape|latents|but ae.pt has")
    changed(**{decoder: whole[decoder].to(torch.complex64)})
    refused("must hold real numbers")
    peer.weights.unlink()
    if peer.config is None:
        return
    with pytest.raises(UserError, match=r"but no|holds no SAE"):
        open_sae(peer.source)
    peer.weights.write_bytes(content)
    for text, message in (("{", "not valid JSON"), ("[]", "must be a JSON object"), ("\ud800", "not UTF-8")):
        peer.config.write_bytes(text.encode("utf-8", "surrogatepass"))
        refused(message)


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize("name", ["AutoEncoder", "Qwen Scope"])
def test_no_code_is_unpickled(name: str, tmp_path: Path) -> None:
    peer = PEERS[name](tmp_path)
    whole = torch.load(peer.weights, weights_only=True)
    wide = torch.zeros(1).expand(1 << 20, 1 << 20)
    cases: list[tuple[Any, str]] = [
        (whole | {"more": Bomb()}, "never unpickled"),
        ([1], "must hold tensors by name"),
        (whole | {"more": [1]}, "more is no plain tensor"),
        (whole | {"more": wide}, "claims more numbers than the file holds"),
    ]
    for content, message in cases:
        torch.save(content, peer.weights)
        with pytest.raises(UserError, match=message):
            open_sae(peer.source)
    peer.weights.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="never unpickled"):
        open_sae(peer.source)


def test_architectures_of_saelens_that_are_not_read(tmp_path: Path) -> None:
    cases = {
        "temporal": "is a temporal SAE",
    }
    for architecture, message in cases.items():
        (tmp_path / "cfg.json").write_text(
            json.dumps({"architecture": architecture, "d_in": 4, "d_sae": 8, "metadata": {}})
        )
        save_file({"W_dec": torch.zeros(8, 4)}, tmp_path / "sae_weights.safetensors")
        with pytest.raises(UserError, match=message):
            open_sae(tmp_path)
    (tmp_path / "cfg.json").unlink()
    (tmp_path / "conf.yaml").touch()
    (tmp_path / "latest_ckpt.safetensors").touch()
    with pytest.raises(UserError, match="is a temporal SAE"):
        open_sae(tmp_path)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoder_of_gemma_scope_2(tmp_path: Path, skip: bool) -> None:
    points = {"hf_hook_point_in": "model.layers.10.mlp.input", "hf_hook_point_out": "model.layers.10.mlp.output"}
    peer = gemma_scope_2(tmp_path, type="transcoder", **points)
    skip_DO = torch.randn(D_IN, D_IN, generator=torch.Generator().manual_seed(3))
    if skip:
        save_file({**load_file(peer.weights), "affine_skip_connection": skip_DO}, peer.weights)
    sae = open_sae(peer.source)
    assert sae.architecture == ("jumprelu_skip_transcoder" if skip else "jumprelu_transcoder")
    assert (sae.d_in, sae.d_out) == (D_IN, D_IN)
    wanted = peer.decode(peer.encode(batch())) + (batch() @ skip_DO.double() if skip else 0)
    torch.testing.assert_close(sae.to(dtype=torch.float64)(batch()), wanted, rtol=1e-5, atol=1e-5)
    known = {name: sae.metadata[name] for name in ("hook_name", "hook_name_out", "hf_hook_name", "hf_hook_name_out")}
    assert known == {
        "hook_name": "blocks.10.hook_mlp_in",
        "hook_name_out": "blocks.10.hook_mlp_out",
        "hf_hook_name": "model.layers.10.mlp:input",
        "hf_hook_name_out": "model.layers.10.mlp",
    }


def test_a_transcoder_of_gemma_scope_is_no_sae(tmp_path: Path) -> None:
    folder = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_4" / "width_16k" / "average_l0_88"
    folder.mkdir(parents=True)
    (folder / "params.npz").touch()
    with pytest.raises(UserError, match="is a transcoder"):
        open_sae(folder)


def test_a_qwen_scope_file_outside_its_repository(tmp_path: Path) -> None:
    peer = qwen_scope(tmp_path)
    moved = tmp_path / "layer7.sae.pt"
    peer.source.rename(moved)
    with pytest.raises(UserError, match="k is said by its repository's name alone"):
        open_sae(moved)
