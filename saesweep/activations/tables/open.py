"""Opens a dataset, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep import builtin
from saesweep.activations.tables.local_files import LocalKind, find_local
from saesweep.activations.tables.selection import TRAIN, Selection, rows_of_split
from saesweep.activations.tables.table import Table, random_access


def open_table(selection: Selection) -> Table:
    """Open `builtin:python-docs`, a local file, folder or glob, or a Hub dataset.

    Raises:
        UserError: It does not exist, cannot be read, or is empty; a split, configuration or file of it does not exist.
    """
    if selection.path.startswith("builtin:"):
        return _open_builtin(selection)
    local = find_local(selection)
    if local is not None and local.kind is LocalKind.TEXT:
        from saesweep.activations.tables.lines import open_text_lines

        return open_text_lines(selection, local)
    if local is not None and local.kind is LocalKind.JSON_LINES:
        from saesweep.activations.tables.lines import open_json_lines

        return open_json_lines(selection, local)

    from saesweep.activations.tables.library import open_hub, open_saved, open_tables

    if local is None:
        return open_hub(selection)
    if local.kind is LocalKind.SAVED:
        return open_saved(selection, local.files[TRAIN][0])
    return open_tables(selection, local)


def _open_builtin(selection: Selection) -> Table:
    if selection.path != builtin.DATASET_DOCS:
        raise selection.mistake(
            "dataset_path", f"unknown built-in text {selection.path!r}; there is {builtin.DATASET_DOCS}"
        )
    selection.refuse("built in", "dataset_name", "data_files", "data_dir")
    selection.check_splits([TRAIN])
    from saesweep.builtin.text import documents

    texts = documents()
    chosen = rows_of_split(selection, {TRAIN: len(texts)})
    if not len(chosen):
        raise selection.empty()

    def read(indices: Sequence[int], column: str) -> list[str]:
        return [texts[chosen[index]] for index in indices]

    return random_access(first={"text": texts[chosen[0]]}, size=len(chosen), read=read)
