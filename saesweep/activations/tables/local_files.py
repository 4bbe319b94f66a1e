"""What a local `dataset_path` stands for: files, by split, or a dataset saved by `save_to_disk`."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from saesweep.activations.tables.selection import TRAIN, Selection, split_of


class LocalKind(Enum):
    """Formats of local data; the value is the loader's name in `datasets`."""

    TEXT = "text"
    JSON = "json"
    JSON_LINES = "json lines"
    CSV = "csv"
    PARQUET = "parquet"
    SAVED = "save_to_disk"


_KINDS = {
    ".txt": LocalKind.TEXT,
    ".json": LocalKind.JSON,
    ".jsonl": LocalKind.JSON_LINES,
    ".csv": LocalKind.CSV,
    ".parquet": LocalKind.PARQUET,
}


@dataclass(frozen=True)
class LocalData:
    """Files of one format, in sorted order (for `SAVED` the one folder, as split `train`)."""

    kind: LocalKind
    files: dict[str, list[Path]]
    """By split."""

    def chosen(self, selection: Selection) -> dict[str, list[Path]]:
        """Return the files of the splits that are read.

        Raises:
            UserError: A split does not exist.
        """
        selection.check_splits(self.files)
        return {name: self.files[name] for name in dict.fromkeys(selection.split_names)}

    def left_out(self, selection: Selection) -> tuple[str, ...]:
        """Return a note about files that are taken for other splits by their names."""
        others = {name: files for name, files in self.files.items() if name not in selection.split_names}
        if not others:
            return ()
        named = ", ".join(f"{name} ({files[0].name}{', ...' * (len(files) > 1)})" for name, files in others.items())
        return (
            f"{selection.block}split: {selection.path} has files of other splits, by their names, which are not read: "
            f"{named}; a glob such as {selection.path}/* reads every file",
        )


def find_local(selection: Selection) -> LocalData | None:
    """Return the local data that a selection names, None where the `datasets` library must find it.

    That is so for a Hub id, and for a local folder with named configurations (`dataset_name`).

    Raises:
        UserError: A path that does not exist, a folder or glob without data files, or with several formats.
    """
    path = selection.path
    root = Path(path).expanduser()
    if any(mark in path for mark in "*?["):
        selection.refuse("a glob", "dataset_name", "data_files", "data_dir")
        files = [Path(name) for name in sorted(glob.glob(str(root), recursive=True)) if Path(name).is_file()]
        return LocalData(_one_kind(selection, files), {TRAIN: files})
    if root.is_dir():
        return None if selection.name is not None else _find_in_folder(selection, root)
    if root.is_file():
        selection.refuse("a file", "dataset_name", "data_files", "data_dir")
        return LocalData(_one_kind(selection, [root]), {TRAIN: [root]})
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or root.suffix.lower() in _KINDS:
        raise selection.mistake(
            "dataset_path", f"{path!r} does not exist; give a file, folder, glob or a Hub dataset id"
        )
    return None


def _find_in_folder(selection: Selection, root: Path) -> LocalData:
    if (root / "dataset_info.json").is_file() or (root / "dataset_dict.json").is_file():
        selection.refuse("a dataset saved by save_to_disk", "data_files", "data_dir")
        return LocalData(LocalKind.SAVED, {TRAIN: [root]})
    folder = root
    if selection.data_dir is not None:
        folder = root / selection.data_dir
        if not folder.is_dir():
            raise selection.mistake("data_dir", f"{selection.path} has no folder {selection.data_dir!r}")
    if selection.data_files is not None:  # as in `datasets`, files that are named are all of the split `train`
        return _named_files(selection, folder, selection.data_files)
    files = _data_files(folder)
    kind = _one_kind(selection, files)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file, folder), []).append(file)
    return LocalData(kind, splits)


def _named_files(selection: Selection, folder: Path, patterns: tuple[str, ...]) -> LocalData:
    files: list[Path] = []
    for pattern in patterns:
        found = [
            Path(name) for name in sorted(glob.glob(str(folder / pattern), recursive=True)) if Path(name).is_file()
        ]
        if not found:
            there = [file.relative_to(folder).as_posix() for file in _data_files(folder)]
            raise selection.unknown("data_files", pattern, there)
        files += [file for file in found if file not in files]
    return LocalData(_one_kind(selection, files), {TRAIN: files})


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _KINDS)


def _one_kind(selection: Selection, files: list[Path]) -> LocalKind:
    path, known = selection.path, ", ".join(_KINDS)
    if not files:
        raise selection.mistake("dataset_path", f"{path!r} holds no data files ({known})")
    found: set[LocalKind] = set()
    for file in files:
        if file.suffix.lower() not in _KINDS:
            raise selection.mistake("dataset_path", f"the format of {str(file)!r} is not known; known: {known}")
        found.add(_KINDS[file.suffix.lower()])
    if found == {LocalKind.JSON, LocalKind.JSON_LINES}:  # the library reads both
        return LocalKind.JSON
    if len(found) > 1:
        kinds = ", ".join(sorted(kind.value for kind in found))
        raise selection.mistake(
            "dataset_path", f"{path!r} mixes formats ({kinds}); choose one with a glob such as {path}/*.txt"
        )
    return found.pop()
