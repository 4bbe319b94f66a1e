"""The folder of a published SAE: exact round trips, whole files, and clear refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from saesweep.errors import UserError
from saesweep.saes import load_sae_folder, save_sae_folder

from .plain_formulas import D_SAE
from .test_export import ARCHITECTURES, MODES, export


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_sae_folder(tmp_path / "sae", export("jumprelu", dtype=torch.float32)[3], sparsity_F=None)
    return tmp_path / "sae"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(architecture: str, mode: str, dtype: torch.dtype, tmp_path: Path) -> None:
    _, _, _, exported, x_BD = export(architecture, mode, dtype)
    save_sae_folder(tmp_path / "new" / "sae", exported, sparsity_F=None)
    loaded = load_sae_folder(tmp_path / "new" / "sae")
    assert loaded.cfg == exported.cfg
    assert loaded.tensors.keys() == exported.tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in exported.tensors.items())
    assert torch.equal(loaded(x_BD), exported(x_BD))


def test_files(tmp_path: Path) -> None:
    exported = export("topk", dtype=torch.float32)[3]
    share_F = torch.linspace(0, 1, D_SAE)
    save_sae_folder(tmp_path, exported, sparsity_F=share_F, extra_files={"runner_cfg.json": {"lr": 1e-4}})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cfg.json",
        "checksums.json",
        "runner_cfg.json",
        "sae_weights.safetensors",
        "sparsity.safetensors",
    ]
    stored = load_file(tmp_path / "sparsity.safetensors")
    assert list(stored) == ["sparsity"]
    torch.testing.assert_close(stored["sparsity"], torch.log10(share_F + 1e-10))
    assert json.loads((tmp_path / "runner_cfg.json").read_text()) == {"lr": 1e-4}


def test_weights_are_as_readable_as_other_files(folder: Path) -> None:
    assert (folder / "sae_weights.safetensors").stat().st_mode == (folder / "cfg.json").stat().st_mode


def test_saving_again_replaces(folder: Path) -> None:
    other = export("topk", dtype=torch.float32)[3]
    save_sae_folder(folder, other, sparsity_F=None)
    assert load_sae_folder(folder).cfg == other.cfg


@pytest.mark.parametrize("sparsity_F", [torch.full((D_SAE,), -3.0), torch.rand(D_SAE + 1), torch.full((D_SAE,), 2.0)])
def test_sparsity_is_a_share_of_tokens(sparsity_F: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sparsity_F"):
        save_sae_folder(tmp_path, export("topk")[3], sparsity_F=sparsity_F)


def test_a_failed_write_leaves_the_old_file_and_no_litter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_sae_folder(folder)

    def interrupted(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("saesweep.atomic.os.fsync", interrupted)
    with pytest.raises(OSError, match="disk full"):
        save_sae_folder(folder, export("topk", dtype=torch.float32)[3], sparsity_F=None)
    after = load_sae_folder(folder)
    assert after.cfg == before.cfg
    assert sorted(path.name for path in folder.iterdir()) == ["cfg.json", "checksums.json", "sae_weights.safetensors"]


def _edit_cfg(folder: Path, **changes: Any) -> None:
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg = {key: value for key, value in {**cfg, **changes}.items() if value is not ...}
    (folder / "cfg.json").write_text(json.dumps(cfg))


def _edit_tensors(folder: Path, **changes: Any) -> None:
    tensors = load_file(folder / "sae_weights.safetensors")
    tensors = {key: value for key, value in {**tensors, **changes}.items() if value is not ...}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "checksums.json").unlink()  # changed on purpose


BROKEN_CFG: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "temporal"}, "is a temporal SAE"),
    ({"architecture": ...}, "unknown architecture"),
    ({"architecture": "topk"}, "k must be a whole number"),
    ({"dtype": "int8"}, "dtype must be one of"),
    ({"d_in": ...}, "d_in must be"),
    ({"d_sae": "40"}, "d_sae must be"),
    ({"d_sae": 39}, "shape"),
    ({"metadata": ...}, "metadata is missing"),
    ({"metadata": {}}, "SAELens 6"),
    ({"metadata": {"sae_lens_version": "5.11.0"}}, "5.11.0"),
    ({"normalize_activations": "expected_average_only_in"}, "unfinished training"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN_CFG)
def test_cfg_that_does_not_fit_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    _edit_cfg(folder, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_sae_folder(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": ...}, "tensor threshold is missing"),
        ({"topk_threshold": torch.zeros(())}, "unknown tensor topk_threshold"),
        ({"W_dec": torch.zeros(3, 3)}, r"W_dec has shape \[3, 3\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    _edit_tensors(folder, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_sae_folder(folder)
    assert "sae_weights.safetensors" in str(caught.value)


@pytest.mark.parametrize("has_checksums", [True, False])
@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_missing_and_damaged_files_are_named(folder: Path, name: str, has_checksums: bool) -> None:
    path = folder / name
    whole = path.read_bytes()
    if not has_checksums:
        (folder / "checksums.json").unlink()
    for damaged in (whole[: len(whole) // 2], b"", b"\xff\xfe\x00garbage"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=name):
            load_sae_folder(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        load_sae_folder(folder)


def test_weights_and_densities_that_were_not_exported_together_are_refused(tmp_path: Path) -> None:
    exported = export("topk", dtype=torch.float32)[3]
    for name in ("sae_weights.safetensors", "sparsity.safetensors"):
        folder = tmp_path / name
        save_sae_folder(folder, exported, sparsity_F=torch.zeros(D_SAE))
        stored = load_file(folder / name)
        first = next(iter(stored))
        save_file({**stored, first: stored[first] + 1}, folder / name)
        with pytest.raises(UserError, match=rf"{name}: does not match its checksum in checksums\.json"):
            load_sae_folder(folder)
        (folder / "checksums.json").unlink()  # changed on purpose
        assert load_sae_folder(folder).cfg == exported.cfg


def test_checksums_without_the_weights_are_refused(folder: Path) -> None:
    (folder / "checksums.json").write_text("{}")
    with pytest.raises(UserError, match=r"checksums\.json: damaged, it has no checksum of sae_weights\.safetensors"):
        load_sae_folder(folder)


def test_a_pickle_in_place_of_the_weights_is_not_opened(folder: Path) -> None:
    torch.save({"W_dec": torch.zeros(2)}, folder / "sae_weights.safetensors")
    with pytest.raises(UserError, match="does not match its checksum"):
        load_sae_folder(folder)
    (folder / "checksums.json").unlink()
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_sae_folder(folder)


def test_what_saelens_leaves_out_has_its_defaults(folder: Path) -> None:
    full = load_sae_folder(folder)
    _edit_cfg(folder, device=..., apply_b_dec_to_input=..., normalize_activations=..., reshape_activations=...)
    x_BD = torch.randn(5, full.d_in)
    assert torch.equal(load_sae_folder(folder)(x_BD), full(x_BD))
