"""Rows in safetensors files: written whole with a checksum, read through a memory map, verified when first opened."""

# Shape suffix legend: M = rows, D = width at a hook

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saesweep.activations.cache.manifest import Shard
from saesweep.atomic import replace_file
from saesweep.errors import UserError
from saesweep.files import sha256

_OPEN_FILES = 4


def write_shard(
    folder: Path,
    file: str,
    part: str,
    tensors: Mapping[str, Tensor],
    *,
    rows: int,
    stream_after: dict[str, Any] | None = None,
) -> Shard:
    """Write one shard; it is whole or absent.

    Raises:
        UserError: The disk is full.
    """

    def fill(tmp: Path) -> None:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp)
        # safetensors reports a full disk as an error of its own, with the system's message in it.
        except SafetensorError as error:
            if "os error" not in str(error):
                raise
            raise OSError(str(error)) from error

    path = folder / file
    try:
        replace_file(path, fill)
        checksum, nbytes = sha256(path), path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{folder / file}: cannot be written ({error}). Nothing written before is lost: make room and run the same "
            "command again"
        ) from error
    return Shard(file=file, part=part, rows=rows, sha256=checksum, nbytes=nbytes, stream_after=stream_after)


def check_shard(folder: Path, shard: Shard) -> str | None:
    """Return what is wrong with a shard's file, None where it is as written."""
    path = folder / shard.file
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != shard.nbytes:
        return f"has {path.stat().st_size} bytes instead of {shard.nbytes}"
    if sha256(path) != shard.sha256:
        return "does not have its checksum"
    return None


class ShardRows:
    """The rows of one part as one long array per hook, on disk. Safe to read from several threads.

    Args:
        folder: The cache.
        shards: The part's shards, in order.
        widths: The hooks that are read, with their widths.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], widths: Mapping[str, int]) -> None:
        self._folder = folder
        self._shards = tuple(shards)
        self._ends = list(accumulate(shard.rows for shard in shards))
        self._widths = dict(widths)
        self._open: OrderedDict[int, Any] = OrderedDict()
        self._verified: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int, hooks: Sequence[str], *, dtype: torch.dtype, pin: bool) -> dict[str, Tensor]:
        """Return rows `start` to `stop` [M,D] of each hook, copied out of the map.

        Args:
            start: First row.
            stop: Row after the last.
            hooks: Which hooks.
            dtype: Type to convert to.
            pin: Put them into page-locked memory, from where a GPU copies at full speed.

        Raises:
            UserError: A shard is missing or damaged; the message names it.
        """
        found = {hook: torch.empty(stop - start, self._widths[hook], dtype=dtype, pin_memory=pin) for hook in hooks}
        with self._lock:
            for number, (shard, end) in enumerate(zip(self._shards, self._ends, strict=True)):
                begin = end - shard.rows
                low, high = max(start, begin), min(stop, end)
                if low >= high:
                    continue
                file = self._file(number)
                for hook, rows_MD in found.items():
                    rows_MD[low - start : high - start].copy_(file.get_slice(hook)[low - begin : high - begin])
        return found

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._open.clear()

    def _file(self, number: int) -> Any:
        if number not in self._open:
            shard = self._shards[number]
            # Read through once: a flipped bit would train silently, and the pages are wanted next anyway.
            if number not in self._verified:
                problem = check_shard(self._folder, shard)
                if problem is not None:
                    raise UserError(
                        f"{self._folder / shard.file}: the shard {problem}; run the `saesweep cache-activations` command "
                        "that wrote it again, which makes this shard anew"
                    )
                self._verified.add(number)
            self._open[number] = safe_open(self._folder / shard.file, framework="pt")
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]
