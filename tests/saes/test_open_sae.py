"""Published SAEs of other tools: SAELens 5 folders and Gemma Scope's params.npz."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saesweep.errors import UserError
from saesweep.saes import open_sae

D_IN, D_SAE = 8, 16


def weights(*vectors: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {
        "W_enc": torch.randn(D_IN, D_SAE, generator=generator),
        "W_dec": torch.randn(D_SAE, D_IN, generator=generator),
        "b_dec": torch.randn(D_IN, generator=generator),
    }
    return made | {name: torch.randn(D_SAE, generator=generator).abs() for name in ("b_enc", *vectors)}


def v5_folder(folder: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    cfg = {
        "model_name": "gemma-2b",
        "hook_point": "blocks.6.hook_resid_post",
        "hook_point_layer": 6,
        "dataset_path": "some/dataset",
        "context_size": 1024,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "expansion_factor": 2,
        "activation_fn_str": "relu",
        "dtype": "torch.float32",
        "l1_coefficient": 2,
        "lr": 7e-5,
        "normalize_activations": "none",
        "device": "cuda",
        **changes,
    }
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({k: v for k, v in cfg.items() if v is not None}))
    save_file(tensors, folder / "sae_weights.safetensors")
    return folder


def test_a_saelens_5_folder(tmp_path: Path) -> None:
    tensors = weights()
    sae = open_sae(v5_folder(tmp_path / "old", {**tensors, "scaling_factor": torch.ones(D_SAE)}, d_sae=None))
    x_BD = torch.randn(5, D_IN)
    latents_BF = ((x_BD - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu()
    assert torch.allclose(sae.encode(x_BD), latents_BF)
    assert torch.allclose(sae(x_BD), latents_BF @ tensors["W_dec"] + tensors["b_dec"], atol=1e-5)
    assert sae.metadata["hook_name"] == "blocks.6.hook_resid_post"
    assert sae.metadata["saelens_v5"]["lr"] == 7e-5


def test_a_saelens_5_topk(tmp_path: Path) -> None:
    sae = open_sae(v5_folder(tmp_path / "old", weights(), activation_fn_str="topk", activation_fn_kwargs={"k": 3}))
    assert sae.architecture == "topk"
    assert int((sae.encode(torch.randn(9, D_IN)) != 0).sum(-1).max()) <= 3


@pytest.mark.parametrize(
    ("changes", "extra", "message"),
    [
        ({"activation_fn_str": "tanh-relu"}, {}, "tanh-relu"),
        ({"d_sae": D_SAE + 1}, {}, "shape"),
        ({}, {"scaling_factor": torch.full((D_SAE,), 2.0)}, "scaling_factor"),
        ({}, {"b_enc": torch.full((D_SAE,), torch.nan)}, "NaN or infinite values in b_enc"),
    ],
)
def test_saelens_5_folders_that_would_be_read_wrongly(
    changes: dict[str, Any], extra: dict[str, torch.Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        open_sae(v5_folder(tmp_path / "old", {**weights(), **extra}, **changes))


def gemma_scope(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    arrays = {name: tensor.numpy() for name, tensor in weights("threshold").items()} | changes
    np.savez(folder / "params.npz", **{name: array for name, array in arrays.items() if array is not None})
    return folder


def test_a_gemma_scope_folder(tmp_path: Path) -> None:
    folder = gemma_scope(tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71")
    sae, same = open_sae(folder), open_sae(folder / "params.npz")
    tensors = weights("threshold")
    x_BD = torch.randn(40, D_IN)
    hidden_BF = x_BD @ tensors["W_enc"] + tensors["b_enc"]  # Gemma Scope does not subtract b_dec from the input
    latents_BF = hidden_BF * (hidden_BF > tensors["threshold"])
    assert torch.allclose(sae.encode(x_BD), latents_BF)
    assert torch.equal(same(x_BD), sae(x_BD))
    assert sae.metadata["model_name"] == "google/gemma-2-2b"
    assert sae.metadata["hook_name"] == "blocks.20.hook_resid_post"


def test_gemma_scope_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tensor threshold is missing"):
        open_sae(gemma_scope(tmp_path / "a", threshold=None))
    with pytest.raises(UserError, match=r"W_dec"):
        open_sae(gemma_scope(tmp_path / "b", W_dec=None))
    with pytest.raises(UserError, match=r"not a readable params\.npz"):
        open_sae(gemma_scope(tmp_path / "c", W_dec=np.array([{"pickled": 1}], dtype=object)))
    broken = gemma_scope(tmp_path / "d")
    (broken / "params.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match=r"not a readable params\.npz"):
        open_sae(broken)


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a folder here nor a Hub id"):
        open_sae(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no SAE"):
        open_sae(tmp_path)
    file = tmp_path / "weights.bin"
    file.touch()
    with pytest.raises(UserError, match="is a file"):
        open_sae(file)
