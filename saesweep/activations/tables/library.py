"""Datasets read through the `datasets` library: Hub ids, JSON, CSV, Parquet, and folders saved by `save_to_disk`."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from saesweep.activations.retry import connection_errors, resuming
from saesweep.activations.tables.local_files import LocalData
from saesweep.activations.tables.selection import Selection, bad_slice, rows_of_split
from saesweep.activations.tables.table import Table, random_access
from saesweep.errors import UserError, first_line
from saesweep.hub import offline_where_unreachable, unreachable_text

_BLOCK_ROWS = 1000


def open_hub(selection: Selection) -> Table:
    """Open a Hub dataset, or a local folder with named configurations, as a stream where `streaming` says so.

    Raises:
        UserError: It cannot be had or is empty; it has no such configuration, split or files.
    """
    import datasets

    _check_slice(selection)
    path = Path(selection.path).expanduser()
    unreachable = "" if path.is_dir() else unreachable_text()
    problem = "could not be downloaded or read; check the name, the network and your access"
    if unreachable:
        problem = f"is not on this machine, and {unreachable}; check the network, or give a local file"
    with _reading(selection, problem), offline_where_unreachable() if unreachable else nullcontext():
        try:
            dataset = datasets.load_dataset(
                str(path) if path.is_dir() else selection.path,
                name=selection.name,
                data_dir=selection.data_dir,
                data_files=None if selection.data_files is None else list(selection.data_files),
                split=selection.split,
                streaming=selection.streaming,
            )
        except (OSError, ValueError) as error:
            wrong = _wrong_name(selection, error)
            if wrong is None:
                raise
            raise wrong from error
    return _table(selection, dataset)


def open_tables(selection: Selection, local: LocalData) -> Table:
    """Open local JSON, CSV or Parquet files, as a stream where `streaming` says so.

    Raises:
        UserError: They cannot be read or are empty; the split does not exist.
    """
    import datasets

    by_split = {
        name: [file for file in files if file.stat().st_size] for name, files in local.chosen(selection).items()
    }
    files = [file for split_files in by_split.values() for file in split_files]
    if not files:
        raise selection.empty()
    _check_slice(selection)
    names = {name: [str(file) for file in split_files] for name, split_files in by_split.items()}
    with _reading(selection, f"cannot be read as {local.kind.value}", files):
        dataset = datasets.load_dataset(
            local.kind.value, data_files=names, split=selection.split, streaming=selection.streaming
        )
    return _table(selection, dataset, files, local.left_out(selection))


def open_saved(selection: Selection, folder: Path) -> Table:
    """Open a folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`.

    Raises:
        UserError: It cannot be read or is empty; it has no such split.
    """
    import datasets

    files = sorted(folder.rglob("*.arrow"))
    with _reading(selection, "cannot be read as a dataset saved by save_to_disk", files):
        saved = datasets.load_from_disk(str(folder))
        splits = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        selection.check_splits(splits)
        names = list(dict.fromkeys(selection.split_names))
        rows = rows_of_split(selection, {name: len(splits[name]) for name in names})
        dataset = splits[names[0]] if len(names) == 1 else datasets.concatenate_datasets([splits[n] for n in names])
        if len(rows) != len(dataset):
            dataset = dataset.select(rows)
    return _table(selection, dataset, files)


def _table(selection: Selection, dataset: Any, files: Sequence[Path] = (), notes: tuple[str, ...] = ()) -> Table:
    """Return a dataset of the library as a table.

    Args:
        selection: What it is.
        dataset: A `Dataset` or an `IterableDataset`.
        files: Its local files, to name the damaged one.
        notes: What to tell the user.
    """
    import datasets

    dataset = dataset.with_format(None)  # SAELens' datasets are saved in torch's
    with _reading(selection, "its first row cannot be read", files):
        first = next(iter(dataset), None)
    if first is None:
        raise selection.empty()

    if isinstance(dataset, datasets.IterableDataset):

        def iterate(start: int, column: str) -> Iterator[Any]:
            rows = dataset.select_columns([column])

            def open_at(position: int) -> Iterator[Any]:
                return iter(rows.skip(position))

            with _reading(selection, "a row cannot be read", files):
                # A local file that cannot be read now cannot be read a minute later.
                found = open_at(start) if files else resuming(open_at, start, name=selection.path)
                for row in found:
                    yield row[column]

        return Table(first=first, size=None, iterate=iterate, read=None, notes=notes)

    @cache
    def column_of(column: str) -> Any:
        return dataset.select_columns([column])

    def read(indices: Sequence[int], column: str) -> list[Any]:
        with _reading(selection, "a row cannot be read", files):
            cells: list[Any] = column_of(column)[[int(index) for index in indices]][column]
        return cells

    return random_access(first=first, size=len(dataset), read=read, notes=notes, block_rows=_BLOCK_ROWS)


def _check_slice(selection: Selection) -> None:
    import datasets

    try:
        datasets.ReadInstruction.from_spec(selection.split)
    except (ValueError, AssertionError) as error:
        raise bad_slice(selection, error) from None
    if selection.streaming and selection.is_sliced:
        raise selection.mistake(
            "split",
            f"{selection.split!r} is a slice, which a stream has not; set streaming: false, or name whole splits",
        )


def _wrong_name(selection: Selection, error: Exception) -> UserError | None:
    """Return the error about the name that the library did not find, None where it failed otherwise."""
    import datasets

    text, path = str(error), selection.path
    files = None if selection.data_files is None else list(selection.data_files)
    if isinstance(error, ValueError) and re.search(r"BuilderConfig .* not found|Config name is missing", text):
        known = _names(lambda: datasets.get_dataset_config_names(path, data_files=files))
        if selection.name is not None:
            return selection.unknown("dataset_name", selection.name, known)
        return selection.mistake("dataset_name", f"missing; {path} has the configurations {', '.join(sorted(known))}")
    if isinstance(error, ValueError) and re.match(r"(Unknown|Bad) split", text):
        known = _names(lambda: datasets.get_dataset_split_names(path, selection.name, data_files=files))
        wrong = next((name for name in selection.split_names if name not in known), selection.split)
        return selection.unknown("split", wrong, known)
    if selection.data_files:
        files_there = _names(lambda: _files_on_the_hub(path))
        inside = f"{selection.data_dir}/" if selection.data_dir else ""
        for pattern in selection.data_files:
            if files_there and "://" not in pattern and not fnmatch.filter(files_there, f"{inside}{pattern}"):
                return selection.unknown("data_files", pattern, files_there)
    return None


def _files_on_the_hub(repo: str) -> list[str]:
    from huggingface_hub import HfApi

    return list(HfApi().list_repo_files(repo, repo_type="dataset"))


def _names(ask: Callable[[], Iterable[str]]) -> list[str]:
    """Return the names that are there, none where even that cannot be asked."""
    try:
        return list(ask())
    except ValueError:
        return []
    except connection_errors():
        return []


@contextmanager
def _reading(selection: Selection, problem: str, files: Sequence[Path] = ()) -> Iterator[None]:
    """Turn the ways in which `datasets` fails to read into one message, and keep its progress bars off the terminal."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    named = _FailedFiles()
    handlers = list(logging.getLogger("datasets").handlers)
    for handler in handlers:
        handler.addFilter(named)
    try:
        yield
    # OSError: connections, missing files; ValueError: unknown split or configuration, malformed rows.
    except (*connection_errors(), ValueError, datasets.exceptions.DatasetsError) as error:
        if "corresponds to no data" in str(error):  # a split without rows
            raise selection.empty() from error
        damaged = named.latest or _damaged_file(files)
        about = problem if damaged is None else f"{problem} (file {damaged})"
        raise selection.mistake("dataset_path", f"{selection.path} {about}: {_reason(error)}") from error
    finally:
        for handler in handlers:
            handler.removeFilter(named)
        if not bars:
            datasets.enable_progress_bars()


class _FailedFiles(logging.Filter):
    """Takes the name of a file that cannot be read from the library's log, where alone it is said, and says it no more."""

    latest: str | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        found = re.match(
            r"Failed to (?:read file|read schema from|load JSON from file) '(.+?)' with error", record.getMessage()
        )
        if found is not None:
            self.latest = found.group(1)
        return found is None


def _damaged_file(files: Sequence[Path]) -> Path | None:
    """Return the first file that cannot be read through."""
    if len(files) == 1:
        return files[0]
    for file in files:
        try:
            _read_through(file)
        except (OSError, ValueError):  # pyarrow's errors are one of the two
            return file
    return None


def _read_through(file: Path) -> None:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    if file.suffix == ".parquet":
        for _ in pyarrow.parquet.ParquetFile(file).iter_batches():
            pass
    elif file.suffix == ".arrow":
        with pyarrow.memory_map(str(file)) as source:
            for _ in pyarrow.ipc.open_stream(source):
                pass


def _reason(error: BaseException) -> str:
    import datasets

    # Where the library says only that a dataset could not be made, the cause says why.
    while isinstance(error, datasets.exceptions.DatasetsError) and error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
