"""Damaged and hostile files: every one is read or refused with one clean message, never a crash."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saesweep.errors import UserError
from saesweep.saes import open_sae, read_pretrained, save_sae_folder

from .test_export import export

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    save_sae_folder(folder, export("topk")[3], sparsity_F=None)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = sorted(path.name for path in folder.parent.iterdir())
    for reader in (open_sae, lambda path: read_pretrained(str(path))):
        with contextlib.suppress(UserError):
            reader(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == before
    for path in folder.iterdir():
        path.unlink()


@FUZZ
@given(data=st.data())
def test_cfg_values(data: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    cfg = json.loads(files["cfg.json"])
    keys = st.sampled_from([*cfg, "hook_name", "decoder_init_norm", "activation_fn_str", "activation_fn_kwargs"])
    for key in data.draw(st.lists(keys, min_size=1, max_size=3)):
        cfg[key] = data.draw(VALUES)
        if data.draw(st.integers(0, 3)) == 0:
            del cfg[key]
    read(tmp_path / "sae", {**files, "cfg.json": json.dumps(cfg).encode()})


@FUZZ
@given(data=st.data(), name=st.sampled_from(["cfg.json", "sae_weights.safetensors"]))
def test_bytes(data: Any, name: str, files: dict[str, bytes], tmp_path: Path) -> None:
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 800) - 1))] = data.draw(st.integers(0, 255))
    read(tmp_path / "sae", {**files, name: bytes(content[: data.draw(st.integers(0, len(content)))])})


@FUZZ
@given(data=st.data())
def test_params_npz(data: Any, tmp_path: Path) -> None:
    sink = io.BytesIO()
    eye = np.eye(4, dtype=np.float32)
    np.savez(sink, W_enc=eye, W_dec=eye, b_enc=eye[0], b_dec=eye[0], threshold=eye[0])
    content = bytearray(sink.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    read(tmp_path / "sae", {"params.npz": bytes(content)})
