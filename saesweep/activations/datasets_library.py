"""Datasets read through the `datasets` library: Hub ids, JSON, CSV, Parquet, and folders saved by `save_to_disk`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saesweep.activations.columns import as_conversation, as_document, find_column, find_conversations
from saesweep.activations.documents import Document, Documents, MapDocuments, StreamDocuments
from saesweep.activations.retry import connection_errors, resuming
from saesweep.errors import UserError

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


def open_hub(run: BaseRun) -> Documents:
    """Open the `train` split of a Hub dataset, as a stream where `run.streaming` says so.

    Raises:
        UserError: It cannot be had, is empty, or has no column with text or tokens.
    """
    import datasets

    with _reading(run.dataset_path, "could not be downloaded or read; check the name, the network and your access"):
        dataset = datasets.load_dataset(run.dataset_path, split="train", streaming=run.streaming)
    return _documents(run, dataset)


def open_tables(run: BaseRun, loader: str, files: Sequence[Path]) -> Documents:
    """Open local JSON, CSV or Parquet files, as a stream where `run.streaming` says so.

    Args:
        run: The base run.
        loader: `json`, `csv` or `parquet`.
        files: The files, read in this order.

    Raises:
        UserError: They cannot be read, are empty, or have no column with text or tokens.
    """
    import datasets

    empty = [file for file in files if file.stat().st_size == 0]
    if len(empty) == len(files):
        raise UserError(_empty(run.dataset_path))
    names = [str(file) for file in files if file not in empty]
    with _reading(run.dataset_path, f"cannot be read as {loader}"):
        dataset = datasets.load_dataset(loader, data_files=names, split="train", streaming=run.streaming)
    return _documents(run, dataset)


def open_saved(run: BaseRun, folder: Path) -> Documents:
    """Open a folder written by `Dataset.save_to_disk` (of a `DatasetDict`, its `train` split).

    Raises:
        UserError: It cannot be read, is empty, or has no column with text or tokens.
    """
    import datasets

    with _reading(run.dataset_path, "cannot be read as a dataset saved by save_to_disk"):
        dataset = datasets.load_from_disk(str(folder))
    if isinstance(dataset, datasets.DatasetDict):
        if "train" not in dataset:
            splits = ", ".join(dataset)
            raise UserError(f"base.dataset_path: {run.dataset_path} has no train split; its splits: {splits}")
        dataset = dataset["train"]
    return _documents(run, dataset)


def _documents(run: BaseRun, dataset: Any) -> Documents:
    import datasets

    name = run.dataset_path
    with _reading(name, "its first row cannot be read"):
        first = next(iter(dataset), None)
    if first is None:
        raise UserError(_empty(name))
    if run.use_chat_formatting:
        column, is_tokenized = find_conversations(name, first), False
    else:
        column, is_tokenized = find_column(name, first, run.is_dataset_tokenized)
    dataset = dataset.select_columns([column])

    def document(cell: Any) -> Document:
        return (
            as_conversation(name, column, cell)
            if run.use_chat_formatting
            else as_document(name, column, cell, is_tokenized)
        )

    document(first[column])

    if isinstance(dataset, datasets.IterableDataset):

        def iterate(start: int) -> Iterator[Document]:
            with _reading(name, "a row cannot be read"):
                for row in resuming(lambda position: iter(dataset.skip(position)), start, name=name):
                    yield document(row[column])

        return StreamDocuments(name=name, iterate=iterate, is_tokenized=is_tokenized, column=column)

    plain = dataset.with_format(None)

    def read(indices: Sequence[int]) -> list[Document]:
        cells = plain[[int(index) for index in indices]][column]
        return [document(cell) for cell in cells]

    return MapDocuments(name=name, size=len(dataset), read=read, is_tokenized=is_tokenized, column=column)


@contextmanager
def _reading(name: str, problem: str) -> Iterator[None]:
    """Turn the ways in which `datasets` fails to read into one message, and keep its progress bars off the terminal."""
    import datasets

    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    # OSError: connections, missing files; ValueError: unknown split or configuration, malformed rows.
    except (*connection_errors(), ValueError, datasets.exceptions.DatasetsError) as error:
        if "corresponds to no data" in str(error):  # a split without rows
            raise UserError(_empty(name)) from error
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"base.dataset_path: {name} {problem}: {reason}") from error
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _empty(name: str) -> str:
    return f"base.dataset_path: {name} is empty; give a dataset with at least one document"
