"""Copies of exported SAEs: a winner's folder, with what the run says about it added to its provenance."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saesweep.atomic import replace_folder, write_json
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
