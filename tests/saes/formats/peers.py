"""Small files in the layouts of other tools, and their formulas in float64, written from the formats' definitions.

Shares no code with the readers. `tests/interop/peer_formats.py` compares the readers with the peers' own code.
"""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

D_IN, D_SAE, K = 8, 24, 3
WIDE = 1024
"""Qwen Scope's names count latents in thousands."""


@dataclass
class Peer:
    """One SAE as another tool leaves it."""

    source: Path
    """What is named: a folder, or a file."""
    config: Path | None
    weights: Path
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def normal(*shape: int, seed: int) -> Tensor:
    """Numbers that float32 holds exactly, in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def tensors(d_sae: int = D_SAE) -> dict[str, Tensor]:
    """Weights [F, D], [D, F] as `nn.Linear` has them, and one vector of each kind."""
    return {
        "enc_FD": normal(d_sae, D_IN, seed=1) / 3,
        "dec_DF": normal(D_IN, d_sae, seed=2) / 2,
        "b_enc_F": normal(d_sae, seed=3) / 4,
        "b_dec_D": normal(D_IN, seed=4),
        "threshold_F": normal(d_sae, seed=5).abs(),
        "mag_F": normal(d_sae, seed=6) / 4,
        "r_F": normal(d_sae, seed=7) / 4,
    }


def largest(pre_BF: Tensor, k: int) -> Tensor:
    """Keep each row's k largest, as far as they are positive."""
    bar_B1 = pre_BF.sort(dim=-1, descending=True).values[:, k - 1 : k]
    return pre_BF.clamp_min(0) * (pre_BF >= bar_B1)


def _stored(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float().contiguous() for name, tensor in named.items()}


def _json(path: Path, data: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def gemma_scope_2(root: Path, **changes: Any) -> Peer:
    t = tensors()
    folder = root / "google" / "gemma-scope-2-1b-pt" / "resid_post_all" / "layer_10_width_16k_l0_small"
    config = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-1b-pt",
        "hf_hook_point_in": "model.layers.10.output",
        "hf_hook_point_out": "model.layers.10.output",
        "width": D_SAE,
        "l0": 20,
        "affine_connection": False,
        "type": "sae",
        **changes,
    }
    path = _json(folder / "config.json", config)
    names = {"w_enc": t["enc_FD"].T, "b_enc": t["b_enc_F"], "threshold": t["threshold_F"]}
    save_file(_stored({**names, "w_dec": t["dec_DF"].T, "b_dec": t["b_dec_D"]}), folder / "params.safetensors")

    def encode(x_BD: Tensor) -> Tensor:
        pre_BF = x_BD @ t["enc_FD"].T + t["b_enc_F"]
        return pre_BF.clamp_min(0) * (pre_BF > t["threshold_F"])

    return Peer(folder, path, folder / "params.safetensors", encode, lambda f: f @ t["dec_DF"].T + t["b_dec_D"])


def dictionary_learning(root: Path, kind: str, **changes: Any) -> Peer:
    t = tensors()
    folder = root / "trainer_0"
    trainer = {
        "dict_class": kind,
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "k": K,
        "layer": 5,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_5",
        **changes,
    }
    path = _json(folder / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 1024, "io": "out"}})
    linear = {"encoder.weight": t["enc_FD"], "encoder.bias": t["b_enc_F"], "decoder.weight": t["dec_DF"]}
    direct = {"W_enc": t["enc_FD"].T, "b_enc": t["b_enc_F"], "W_dec": t["dec_DF"].T, "b_dec": t["b_dec_D"]}
    counted = {"k": torch.tensor(K), "threshold": torch.tensor(0.7)}
    state = {
        "AutoEncoder": {**linear, "bias": t["b_dec_D"]},
        "AutoEncoderNew": {**linear, "decoder.bias": t["b_dec_D"]},
        "GatedAutoEncoder": {
            "encoder.weight": t["enc_FD"],
            "decoder.weight": t["dec_DF"],
            "decoder_bias": t["b_dec_D"],
            "gate_bias": t["b_enc_F"],
            "mag_bias": t["mag_F"],
            "r_mag": t["r_F"],
        },
        "JumpReluAutoEncoder": {**direct, "threshold": t["threshold_F"]},
        "AutoEncoderTopK": {**linear, "b_dec": t["b_dec_D"], **counted},
        "BatchTopKSAE": {**linear, "b_dec": t["b_dec_D"], **counted},
        "MatryoshkaBatchTopKSAE": {**direct, **counted, "group_sizes": torch.tensor([8, 16])},
    }[kind]
    torch.save({name: tensor.float() if tensor.ndim else tensor for name, tensor in state.items()}, folder / "ae.pt")
    norm_F = t["dec_DF"].pow(2).sum(0).sqrt() if kind == "AutoEncoder" else torch.ones(D_SAE).double()

    def encode(x_BD: Tensor) -> Tensor:
        centred = kind not in ("AutoEncoderNew", "JumpReluAutoEncoder")
        inner_BF = (x_BD - t["b_dec_D"] if centred else x_BD) @ t["enc_FD"].T
        pre_BF = inner_BF + t["b_enc_F"]
        if kind == "GatedAutoEncoder":
            return (inner_BF * t["r_F"].exp() + t["mag_F"]).clamp_min(0) * (pre_BF > 0)
        if kind == "AutoEncoderTopK":
            return largest(pre_BF, K)
        if kind == "JumpReluAutoEncoder":
            return pre_BF.clamp_min(0) * (pre_BF > t["threshold_F"])
        bar = counted["threshold"].double() if "BatchTopK" in kind else 0.0
        return pre_BF.clamp_min(0) * (pre_BF > bar) * norm_F

    return Peer(folder, path, folder / "ae.pt", encode, lambda f: f / norm_F @ t["dec_DF"].T + t["b_dec_D"])


def sparsify(root: Path, hook: str = "layers.5", **changes: Any) -> Peer:
    t = tensors()
    folder = root / hook
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": D_SAE,
        "k": K,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D_IN,
        **changes,
    }
    path = _json(folder / "cfg.json", config)
    _json(root / "config.json", {"model": "EleutherAI/pythia-70m", "dataset": "some/text", "ctx_len": 512})
    named = {"encoder.weight": t["enc_FD"], "encoder.bias": t["b_enc_F"], "W_dec": t["dec_DF"].T, "b_dec": t["b_dec_D"]}
    save_file(_stored(named), folder / "sae.safetensors")
    return Peer(
        folder,
        path,
        folder / "sae.safetensors",
        lambda x: largest((x - t["b_dec_D"]) @ t["enc_FD"].T + t["b_enc_F"], K),
        lambda f: f @ t["dec_DF"].T + t["b_dec_D"],
    )


def llama_scope(root: Path, **changes: Any) -> Peer:
    """The scale and the decoder's norms stand apart from the weights, as they do before OpenMOSS folds them."""
    t = tensors()
    folder = root / "fnlp" / "Llama3_1-8B-Base-LXR-8x" / "Llama3_1-8B-Base-L15R-8x"
    config = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.5,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 10.8125, "out": 10.8125},
        "sparsity_include_decoder_norm": True,
        "use_glu_encoder": False,
        "top_k": K,
        **changes,
    }
    path = _json(folder / "hyperparams.json", config)
    (folder / "checkpoints").mkdir()
    linear = {"encoder.weight": t["enc_FD"], "encoder.bias": t["b_enc_F"], "decoder.weight": t["dec_DF"]}
    save_file(_stored({**linear, "decoder.bias": t["b_dec_D"]}), folder / "checkpoints" / "final.safetensors")
    scale = {"dataset-wise": D_IN**0.5 / 10.8125, "inference": 1.0}.get(config["norm_activation"])
    norm_F = t["dec_DF"].pow(2).sum(0).sqrt() if config["sparsity_include_decoder_norm"] else torch.ones(D_SAE).double()

    def scale_of(x_BD: Tensor) -> Any:
        return D_IN**0.5 / x_BD.pow(2).sum(-1, keepdim=True).sqrt() if scale is None else scale

    def encode(x_BD: Tensor) -> Tensor:
        scaled_BD = x_BD * scale_of(x_BD)
        if config["apply_decoder_bias_to_pre_encoder"]:
            scaled_BD = scaled_BD - t["b_dec_D"]
        # A scale per token stays in the latents; a fixed one is taken out of them.
        unit_BF = (scaled_BD @ t["enc_FD"].T + t["b_enc_F"]) * norm_F / (1.0 if scale is None else scale)
        if config["act_fn"] == "topk" and not config["jump_relu_threshold"]:
            return largest(unit_BF, K)
        bar = 0.0 if config["act_fn"] == "relu" else config["jump_relu_threshold"]
        return unit_BF.clamp_min(0) * (unit_BF > bar)

    def decode(f_BF: Tensor) -> Tensor:
        assert scale is not None
        return (f_BF * scale / norm_F @ t["dec_DF"].T + t["b_dec_D"]) / scale

    return Peer(folder, path, folder / "checkpoints" / "final.safetensors", encode, decode)


def qwen_scope(root: Path) -> Peer:
    t = tensors(WIDE)
    folder = root / "Qwen" / "SAE-Res-Qwen3-1.7B-Base-W1K-L0_3"
    folder.mkdir(parents=True)
    named = {"W_enc": t["enc_FD"], "b_enc": t["b_enc_F"], "W_dec": t["dec_DF"], "b_dec": t["b_dec_D"]}
    file = folder / "layer7.sae.pt"
    torch.save({name: tensor.float() for name, tensor in named.items()}, file)
    return Peer(
        file,
        None,
        file,
        lambda x: largest(x @ t["enc_FD"].T + t["b_enc_F"], K),
        lambda f: f @ t["dec_DF"].T + t["b_dec_D"],
    )
