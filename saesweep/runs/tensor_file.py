"""Writing a safetensors file piece by piece, its checksum taken on the way: nothing is copied whole or read again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

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
