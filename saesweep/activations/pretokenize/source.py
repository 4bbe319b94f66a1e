"""The cells of one column of a dataset, in order, from any position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep import builtin
from saesweep.activations.local_files import LocalKind, find_local
from saesweep.errors import UserError
from saesweep.specs.pretokenize import PretokenizeSpec

_READ_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A column of a dataset."""

    size: int | None
    """Number of rows; None for a stream."""
    iterate: Callable[[int], Iterator[Any]]
    """The cells from this row on: text, a conversation, or None."""


def open_cells(spec: PretokenizeSpec) -> Cells:
    """Open the dataset's split and column.

    Raises:
        UserError: It cannot be had, or has no such column.
    """
    if spec.dataset_path.startswith("builtin:"):
        if spec.dataset_path != builtin.DATASET_DOCS:
            raise UserError(
                f"dataset_path: unknown built-in text {spec.dataset_path!r}; there is {builtin.DATASET_DOCS}"
            )
        from saesweep.builtin.text import documents

        texts = documents()
        return Cells(size=len(texts), iterate=lambda start: iter(texts[start:]))
    with _reading(spec):
        dataset = _load(spec)
        first = next(iter(dataset), None)
    if first is None:
        raise UserError(f"dataset_path: {spec.dataset_path} is empty; give a dataset with at least one document")
    if spec.column_name not in first:
        raise UserError(
            f"column_name: {spec.dataset_path} has no column {spec.column_name!r}; its columns: {', '.join(first)}"
        )
    return _cells(spec, dataset.select_columns([spec.column_name]))


def _load(spec: PretokenizeSpec) -> Any:
    import datasets

    local = None if spec.data_files or spec.data_dir else find_local(spec.dataset_path)
    if local is not None and local.kind is LocalKind.SAVED:
        return _of_split(spec, datasets.load_from_disk(str(local.files[0])))
    if local is not None:
        files = [str(path) for path in local.files]
        return datasets.load_dataset(local.kind.value, data_files=files, split=spec.split, streaming=spec.streaming)
    path = Path(spec.dataset_path).expanduser()
    return datasets.load_dataset(
        str(path) if path.exists() else spec.dataset_path,
        name=spec.dataset_name,
        data_dir=spec.data_dir,
        data_files=None if spec.data_files is None else list(spec.data_files),
        split=spec.split,
        streaming=spec.streaming,
    )


def _of_split(spec: PretokenizeSpec, saved: Any) -> Any:
    import datasets

    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if spec.split not in saved:
        raise UserError(f"split: {spec.dataset_path} has no split {spec.split!r}; its splits: {', '.join(saved)}")
    return saved[spec.split]


def _cells(spec: PretokenizeSpec, dataset: Any) -> Cells:
    import datasets

    column = spec.column_name
    is_stream = isinstance(dataset, datasets.IterableDataset)

    def iterate(start: int) -> Iterator[Any]:
        if not is_stream and start >= len(dataset):
            return  # interrupted after its last document
        with _reading(spec):
            rest = dataset.skip(start) if is_stream else dataset.select(range(start, len(dataset)))
            for rows in rest.iter(_READ_ROWS):
                yield from rows[column]

    return Cells(size=None if is_stream else len(dataset), iterate=iterate)


class _reading:
    """Turns the ways in which `datasets` fails to read into one message, and keeps its progress bars off the terminal."""

    def __init__(self, spec: PretokenizeSpec) -> None:
        self._name = spec.dataset_path

    def __enter__(self) -> None:
        import datasets

        self._bars = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import datasets

        if self._bars:
            datasets.enable_progress_bars()
        if isinstance(error, (OSError, ValueError, datasets.exceptions.DatasetsError)):
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"dataset_path: {self._name} cannot be read: {reason}") from error
