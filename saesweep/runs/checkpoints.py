"""Checkpoints of the whole sweep at a block boundary: safetensors and JSON, with checksums, the last two kept.

The tensors are written piece by piece, their checksum taken on the way: nothing is copied whole or read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saesweep.atomic import finite, replace_folder, write_bytes, write_json
from saesweep.errors import UserError
from saesweep.files import read_json_object, sha256

PIECE_BYTES = 1 << 24
_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class Cancelled(Exception):
    """Whoever asked for the file does not want it any more."""


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of the tensors' data."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, is_cancelled: Callable[[], bool]) -> str:
    """Write a safetensors file, flushed to the disk, and return its SHA-256.

    Args:
        path: The file.
        tensors: By name, on any device; one at a time is brought to the CPU.
        is_cancelled: Asked between pieces.

    Raises:
        Cancelled: It was cancelled; the file is not whole.
    """
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in _pieces(tensors):
            if is_cancelled():
                raise Cancelled
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    # Widest elements first, so that every tensor begins at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, start = {}, 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        flat = tensors[name].detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            data = flat.view(torch.uint8).numpy().data
            for begin in range(0, len(data), PIECE_BYTES):
                yield data[begin : begin + PIECE_BYTES]


KEEP = 2
_FILES = ("state.json", "tensors.safetensors")
_BLOCK = re.compile(r"[0-9]{8,18}")
"""Names of whole checkpoints; `str.isdigit` would also take digits that are none to `int`, such as a superscript two."""


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds."""

    block: int
    """Blocks that had been trained."""
    state: dict[str, Any]
    """JSON data: stream position, scheduler, slots, measurements."""
    tensors: dict[str, Tensor]
    """Weights, moments and counters by name, on the CPU."""


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they lie, one folder each, named by block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, block: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint, then drop all but the newest two."""
        self.save_encoded(block, self.encode(state), tensors, is_cancelled=lambda: False)

    def encode(self, state: Mapping[str, Any]) -> bytes:
        """Return the JSON data of a checkpoint as it is written."""
        return (json.dumps(finite(state), indent=1) + "\n").encode()

    def save_encoded(
        self, block: int, state: bytes, tensors: Mapping[str, Tensor], *, is_cancelled: Callable[[], bool]
    ) -> None:
        """Write a checkpoint, hashed on the way, then drop all but the newest two.

        Raises:
            Cancelled: `is_cancelled` said so before it was whole; nothing of it is left.
        """
        self._folder.mkdir(parents=True, exist_ok=True)

        def fill(folder: Path) -> None:
            sums = {
                "state.json": hashlib.sha256(state).hexdigest(),
                "tensors.safetensors": write_tensors(
                    folder / "tensors.safetensors", tensors, is_cancelled=is_cancelled
                ),
            }
            write_bytes(folder / "state.json", state)
            write_json(folder / "checksums.json", sums)

        replace_folder(self._folder / f"{block:08d}", fill)
        for old in self._blocks()[KEEP:]:
            shutil.rmtree(self._folder / f"{old:08d}")

    def load_latest(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that is whole, and a message about each newer one that is not."""
        damaged: list[str] = []
        for block in self._blocks():
            folder = self._folder / f"{block:08d}"
            try:
                state = _checked_state(folder)
                return Checkpoint(block, state, load_file(folder / "tensors.safetensors")), damaged
            except (OSError, UserError, ValueError, SafetensorError) as error:
                damaged.append(f"checkpoint {folder} is damaged ({error}); going back to the one before")
                # Out of the way: as the newest by number it would outlive the whole ones written from now on.
                aside = self._folder / f"damaged-{folder.name}"
                if aside.exists():
                    shutil.rmtree(aside)
                os.replace(folder, aside)
        return None, damaged

    def latest_state(self) -> dict[str, Any] | None:
        """Return the JSON data of the newest checkpoint that is whole; None without one. No tensor is loaded."""
        for block in self._blocks():
            with suppress(OSError, UserError, ValueError):
                return _checked_state(self._folder / f"{block:08d}")
        return None

    def clear(self) -> None:
        """Remove every checkpoint."""
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def _blocks(self) -> list[int]:
        if not self._folder.exists():
            return []
        names = [p.name for p in self._folder.iterdir() if _BLOCK.fullmatch(p.name) and p.is_dir()]
        return sorted((int(name) for name in names if f"{int(name):08d}" == name), reverse=True)


def _checked_state(folder: Path) -> dict[str, Any]:
    """Return the JSON data of a checkpoint whose files match their checksums."""
    sums = read_json_object(folder / "checksums.json")
    for name in _FILES:
        if sha256(folder / name) != sums.get(name):
            raise ValueError(f"{name} does not match its checksum")
    return read_json_object(folder / "state.json")
