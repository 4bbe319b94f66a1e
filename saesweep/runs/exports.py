"""Copies of exported SAEs: a winner's folder, with what the run says about it added to its provenance, and what a copy may replace."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from saesweep.atomic import replace_folder, write_json
from saesweep.errors import UserError
from saesweep.files import read_json_object

_TRAIN_AGAIN = "restore it, or start a new run with --run-dir: this trial's SAE is written once, at its end"


def copy_export(
    source: Path,
    target: Path,
    extra: Mapping[str, Any],
    alter: Callable[[Path], Mapping[str, Any]] | None = None,
) -> None:
    """Copy an exported SAE's folder in one step, adding to its `provenance.json`.

    Args:
        source: The folder.
        target: Where the copy goes; what is there is replaced.
        extra: What to add.
        alter: Changes files of the copy before it is seen, and returns what else to add.
    """

    def fill(folder: Path) -> None:
        for file in source.iterdir():
            shutil.copy2(file, folder / file.name)
        found = read_json_object(folder / "provenance.json", fix=_TRAIN_AGAIN)
        altered = {} if alter is None else alter(folder)
        write_json(folder / "provenance.json", {**found, **altered, **extra})

    target.parent.mkdir(parents=True, exist_ok=True)
    replace_folder(target, fill)


def check_replaceable(
    place: object, names: Iterable[str], *, is_own: Callable[[str], bool], kind: str, force: bool
) -> None:
    """Refuse to write over anything but an export of the same kind, and over that one only with `--force`.

    Args:
        place: The folder, or its URL.
        names: Of the files that it holds.
        is_own: Whether a file of this name belongs to such an export.
        kind: What that is, such as "an exported SAE".
        force: Whether to replace it.

    Raises:
        UserError: The folder may not be written.
    """
    found = sorted(names)
    others = [name for name in found if not is_own(name)]
    if others:
        raise UserError(f"{place}: holds files that are not of {kind} ({others[0]}); name an empty or new folder")
    if found and not force:
        raise UserError(f"{place}: holds {kind} already; name a new folder, or replace it with --force")
