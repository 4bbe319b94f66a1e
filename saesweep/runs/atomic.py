"""Files that are either whole or absent: written to a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saesweep.errors import UserError


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file atomically."""
    _replace(path, lambda tmp: _dump(tmp, data))


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: Any) -> None:
    """Replace a JSON file atomically; NaN and infinities become null."""
    write_text(path, json.dumps(finite(data), indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return the data of a JSON file that a run has written.

    Raises:
        UserError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged, this is no JSON ({error}); start a new run with --run-dir") from None


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

    A kill between the two renames leaves no target, never a half-written one.
    """
    tmp = target.with_name(f".{target.name}.tmp")
    old = target.with_name(f".{target.name}.old")
    for left_over in (tmp, old):
        if left_over.exists():
            shutil.rmtree(left_over)
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(tmp)
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)
    _sync(path.parent)


def _dump(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
