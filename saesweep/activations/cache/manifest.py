"""What a cache holds: `manifest.json`, replaced as a whole after each shard, so that a kill loses one shard at most."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from saesweep.atomic import write_text
from saesweep.errors import UserError

FILE_NAME = "manifest.json"
FORMAT_VERSION = 1
CONTEXTS, SELECT, TEST, WINDOW, TRAIN = "contexts", "select", "test", "window", "train"
PARTS = (CONTEXTS, SELECT, TEST, WINDOW, TRAIN)
"""In the order in which they are written: held-out token ids, held-out rows, the rows that estimate norms, training rows."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file; for row parts it holds a tensor [rows, width] per hook."""

    file: str
    """Name in the cache's folder."""
    part: str
    """One of `PARTS`."""
    rows: int
    """Rows of activations; 0 for the token ids."""
    sha256: str
    """Of the file."""
    nbytes: int
    """Size of the file."""
    stream_after: dict[str, Any] | None = None
    """Training shards: the live stream's position after the last row, so that the next shard can be made alone."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a cache but its rows."""

    source: dict[str, Any]
    """The run's fields that decide the activations (`identity.py`), model and dataset among them."""
    hooks: dict[str, int]
    """Width at every hook."""
    dtype: str
    """Type of the rows on disk."""
    model_dtype: str
    """Type in which the model gave them; a narrower `dtype` has rounded them."""
    seed: int
    """Of the data order."""
    batch_tokens: int
    """Every training shard is a multiple of it."""
    shard_tokens: int
    """Rows per training shard; the last one may have fewer."""
    tokens: int
    """Training rows wanted."""
    shuffle: dict[str, Any] = field(default_factory=dict)
    """How the order of the training rows was made, for the reader of this file."""
    shards: tuple[Shard, ...] = ()
    """Finished ones, in the order of `PARTS`."""

    def of(self, part: str) -> tuple[Shard, ...]:
        """Return the finished shards of a part."""
        return tuple(shard for shard in self.shards if shard.part == part)

    def rows(self, part: str) -> int:
        """Return the finished rows of a part."""
        return sum(shard.rows for shard in self.of(part))

    @property
    def is_complete(self) -> bool:
        """Whether every part is there."""
        return all(self.of(part) for part in PARTS) and self.rows(TRAIN) >= self.tokens

    @property
    def is_lossy(self) -> bool:
        """Whether the rows were rounded to fit `dtype`."""
        exact = {("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64")}
        return self.dtype != self.model_dtype and (self.model_dtype, self.dtype) not in exact

    def added(self, *shards: Shard) -> Manifest:
        """Return the manifest with more shards."""
        return replace(self, shards=(*self.shards, *shards))


def read_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, None where there is none.

    Raises:
        UserError: It cannot be read, or another version wrote it.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
        version = data.pop("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{folder}: a cache in format {version}, this version reads format {FORMAT_VERSION}; write it again with "
                "`saesweep cache-activations` into another folder"
            )
        shards = tuple(Shard(**shard) for shard in data.pop("shards"))
        return Manifest(**data, shards=shards)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: unreadable ({error}); this is no cache of activations") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically."""
    data = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    write_text(folder / FILE_NAME, json.dumps(data, indent=1) + "\n")


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return `field: in the cache -> in the run` for every field that differs; a missing one counts as null."""
    return [
        f"{name}: {json.dumps(found.get(name))} in the cache, {json.dumps(wanted.get(name))} in this run"
        for name in dict.fromkeys([*wanted, *found])
        if found.get(name) != wanted.get(name)
    ]
