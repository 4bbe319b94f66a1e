"""What a local `dataset_path` stands for: a file, a folder, a glob, or a dataset saved by `save_to_disk`."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from saesweep.errors import UserError


class LocalKind(Enum):
    """Formats of local data; the value is the loader's name in `datasets`."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    SAVED = "save_to_disk"


_KINDS = {
    ".txt": LocalKind.TEXT,
    ".json": LocalKind.JSON,
    ".jsonl": LocalKind.JSON,
    ".csv": LocalKind.CSV,
    ".parquet": LocalKind.PARQUET,
}


@dataclass(frozen=True)
class LocalData:
    """Files of one format, in sorted order (for `SAVED` the one folder)."""

    kind: LocalKind
    files: list[Path]


def find_local(path: str) -> LocalData | None:
    """Return the local data that `path` names, None where it is no local path (a Hub id then).

    Raises:
        UserError: A path that does not exist, a folder or glob without data files, or with several formats.
    """
    root = Path(path).expanduser()
    if any(mark in path for mark in "*?["):
        files = [Path(name) for name in sorted(glob.glob(str(root), recursive=True)) if Path(name).is_file()]
    elif root.is_dir():
        if (root / "dataset_info.json").is_file() or (root / "dataset_dict.json").is_file():
            return LocalData(LocalKind.SAVED, [root])
        files = sorted(file for file in root.rglob("*") if file.suffix.lower() in _KINDS)
    elif root.is_file():
        files = [root]
    elif path.startswith((".", "/", "~")) or path.count("/") > 1 or root.suffix.lower() in _KINDS:
        raise UserError(f"base.dataset_path: {path!r} does not exist; give a file, folder, glob or a Hub dataset id")
    else:
        return None
    return LocalData(_one_kind(path, files), files)


def _one_kind(path: str, files: list[Path]) -> LocalKind:
    known = ", ".join(_KINDS)
    if not files:
        raise UserError(f"base.dataset_path: {path!r} holds no data files ({known})")
    found: set[LocalKind] = set()
    for file in files:
        if file.suffix.lower() not in _KINDS:
            raise UserError(f"base.dataset_path: the format of {str(file)!r} is not known; known: {known}")
        found.add(_KINDS[file.suffix.lower()])
    if len(found) > 1:
        kinds = ", ".join(sorted(kind.value for kind in found))
        raise UserError(
            f"base.dataset_path: {path!r} mixes formats ({kinds}); choose one with a glob such as {path}/*.txt"
        )
    return found.pop()
