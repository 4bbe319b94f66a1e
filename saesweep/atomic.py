"""Files that are either whole or absent: written to a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saesweep.files import WANDB_FOLDER

_LEFT_OVER = re.compile(
    r"\.(?P<target>.+)\.(?:(?:[0-9]+\.)?tmp|(?P<old>old)|rewound(?:-journal|-wal|-shm)?)", re.DOTALL
)
"""Names that a file or folder has while it is written, or while another takes its place."""


def replace_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write a temporary file, then put it in the place of `path`.

    Its folder is made where it is missing. Where `fill` raises, nothing has changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tmp.touch()
        mode = tmp.stat().st_mode
        fill(tmp)
        tmp.chmod(mode)  # safetensors makes files that only their owner may read, whatever the umask
        _sync(tmp)
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    _sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically."""
    replace_file(path, lambda tmp: tmp.write_bytes(data))


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file atomically; NaN and infinities become null."""
    write_text(path, json.dumps(finite(data), indent=1) + "\n")


def write_table(path: Path, data: Mapping[str, Any], rows: str) -> None:
    """Do the same with a mapping whose entry `rows` is a long list: each of its items takes one line.

    Indented, it would be four times as long and take six times as long to write.
    """
    text = json.dumps(finite({name: value for name, value in data.items() if name != rows}), indent=1)
    items = ",\n".join(f"  {_one_line(item)}" for item in data[rows])
    write_text(path, f"{text[:-2]},\n {json.dumps(rows)}: [\n{items}\n ]\n}}\n")


def _one_line(item: Any) -> str:
    try:
        return json.dumps(item, allow_nan=False)
    except (TypeError, ValueError):  # NaN or infinities, or a mapping that is no dict
        return json.dumps(finite(item))


def finite(value: Any) -> Any:
    """Return JSON data with NaN and infinities replaced by None: strict JSON readers refuse them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def replace_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Build a folder under a temporary name, then put it in the target's place.

    A kill between the two renames leaves no target, never a half-written one; what follows a kill, this or
    `remove_leftovers`, puts the old one back.
    """
    tmp, old = _temporary_names(target)
    _put_back(target)
    if tmp.exists():
        shutil.rmtree(tmp)
    tmp.mkdir(parents=True)
    try:
        fill(tmp)
    except BaseException:
        shutil.rmtree(tmp, ignore_errors=True)
        raise
    for file in tmp.rglob("*"):
        if file.is_file():
            _sync(file)
    if target.exists():
        os.replace(target, old)
    os.replace(tmp, target)
    _sync(target.parent)
    if old.exists():
        shutil.rmtree(old)


def is_temporary_name(name: str) -> bool:
    """Return whether a name is one that only a file or folder of ours has, and only while it is written."""
    return _LEFT_OVER.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed writer left anywhere in a run directory; put back a folder whose place nothing has taken.

    The caller holds the run's lock, so that no other process is writing. W&B's folder is left alone.
    """
    for name in sorted(os.listdir(folder)):
        path = folder / name
        found = _LEFT_OVER.fullmatch(name)
        is_folder = path.is_dir() and not path.is_symlink()
        if found is None:
            if is_folder and name != WANDB_FOLDER:
                remove_leftovers(path)
        elif found["old"] is not None and is_folder:
            _put_back(folder / found["target"])
        elif is_folder:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _temporary_names(target: Path) -> tuple[Path, Path]:
    """Return the names of the folder that is being written, and of the one whose place it takes."""
    return target.with_name(f".{target.name}.tmp"), target.with_name(f".{target.name}.old")


def _put_back(target: Path) -> None:
    """Undo a replacement that a kill cut off between its two renames; finish one that it cut off after them."""
    _, old = _temporary_names(target)
    if old.exists() and not target.exists():
        os.replace(old, target)
    elif old.exists():
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
