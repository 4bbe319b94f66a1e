"""Labelled texts for probes: read, drawn by a seed, and divided into texts to probe on and texts to test on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saesweep.activations.columns import find_text_column
from saesweep.activations.tables import Selection, Table, Unreadable, open_table
from saesweep.errors import UserError
from saesweep.messages import did_you_mean
from saesweep.specs.probes import DEFAULT_TEST_FRACTION, ProbeTaskSpec

_MAX_CLASSES = 20
_MIN_TEXTS = 10
"""Of each class, to probe on and to test on: fewer say nothing."""

Class = str | int | bool


@dataclass(frozen=True)
class LabelledTexts:
    """The texts of a task, as many of each class."""

    name: str
    classes: tuple[str, ...]
    """In the order of their labels."""
    train: tuple[tuple[str, ...], ...]
    """By class, the texts that probes are trained on, in random order."""
    test: tuple[tuple[str, ...], ...]
    """By class, the texts that they are tested on, in random order."""

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts: class by class those of `train`, then class by class those of `test`."""
        return tuple(text for part in (self.train, self.test) for texts in part for text in texts)


@dataclass(frozen=True)
class _Rows:
    """An opened split: its table, the column of its text, and the rows of each class in random order."""

    table: Table
    column: str
    by_class: Mapping[Class, Sequence[int]]


def read_labelled(task: ProbeTaskSpec, place: str, seed: int) -> LabelledTexts:
    """Return the texts of a task; rows without text or label are left out.

    Of each class as many texts are kept as the rarest one has, at most the task's `max_train` and `max_test` over all
    classes: an accuracy of 1 over the number of classes is what guessing gives.

    Args:
        task: The task.
        place: Where the file names it, such as `evaluation.probes.tasks[0]`, for messages.
        seed: Which texts are drawn, and which of them are tested on.

    Raises:
        UserError: The dataset cannot be read, has no such column, has labels that are no classes, or too few texts of one.
    """
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    train = _open_split(task, task.split, place, rng)
    classes = sorted(train.by_class, key=lambda label: (type(label).__name__, label))
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise UserError(
            f"{place}.label_column: {task.dataset_path} has {len(classes)} classes in {task.label_column!r}; a probe tells 2 "
            f"to {_MAX_CLASSES} apart"
        )
    if task.test_split is None:
        fraction = DEFAULT_TEST_FRACTION if task.test_fraction is None else task.test_fraction
        cuts = {label: round(fraction * len(rows)) for label, rows in train.by_class.items()}
        test = _Rows(train.table, train.column, {label: train.by_class[label][:cut] for label, cut in cuts.items()})
        train = _Rows(train.table, train.column, {label: train.by_class[label][cut:] for label, cut in cuts.items()})
    else:
        test = _open_split(task, task.test_split, place, rng)
        if set(test.by_class) != set(classes):
            raise UserError(
                f"{place}.test_split: the classes of {task.test_split!r} ({_listed(test.by_class)}) are not those of "
                f"{task.split!r} ({_listed(classes)})"
            )
    parts = [
        _texts(rows, classes, max_texts // len(classes))
        for rows, max_texts in ((train, task.max_train), (test, task.max_test))
    ]
    for texts, what in zip(parts, ("to train a probe on", "to test it on"), strict=True):
        if len(texts[0]) < _MIN_TEXTS:
            raise UserError(
                f"{place}: {task.dataset_path} leaves {len(texts[0])} texts of each class {what}, fewer than {_MIN_TEXTS}; "
                "give more texts, another test_fraction or larger max_train and max_test"
            )
    return LabelledTexts(task.name, tuple(map(str, classes)), *parts)


def _open_split(task: ProbeTaskSpec, split: str, place: str, rng: np.random.Generator) -> _Rows:
    """Return an opened split, with the rows that have a label."""
    table = open_table(
        Selection(
            path=task.dataset_path,
            name=task.dataset_name,
            split=split,
            data_files=task.data_files,
            data_dir=task.data_dir,
            block=f"{place}.",
        )
    )
    column = find_text_column(f"{place}.", task.dataset_path, task.column_name, table.first)
    if task.label_column not in table.first:
        hint = did_you_mean(task.label_column, table.first)
        raise UserError(
            f"{place}.label_column: {task.dataset_path} has no column {task.label_column!r}{hint}; its columns: "
            f"{', '.join(table.first)}"
        )
    assert table.size is not None
    rows: dict[Class, list[int]] = {}
    for row, label in enumerate(table.iterate(0, task.label_column)):
        if isinstance(label, Unreadable):
            raise UserError(f"{place}.dataset_path: {task.dataset_path}: {label.reason}")
        if not isinstance(label, (str, int, type(None))):
            raise UserError(
                f"{place}.label_column: row {row} of {task.dataset_path} holds {type(label).__name__} in "
                f"{task.label_column!r}; a class is text, a whole number or true/false"
            )
        if label is not None and label != "":
            rows.setdefault(label, []).append(row)
    return _Rows(table, column, {label: rng.permutation(own).tolist() for label, own in rows.items()})


def _texts(rows: _Rows, classes: Sequence[Class], max_texts: int) -> tuple[tuple[str, ...], ...]:
    """Return at most so many texts of each class, as many of each."""
    found = [_first_texts(rows, rows.by_class[label], max_texts) for label in classes]
    count = min(map(len, found))
    return tuple(tuple(texts[:count]) for texts in found)


def _first_texts(rows: _Rows, numbers: Sequence[int], max_texts: int) -> list[str]:
    """Return the first texts of these rows that are there; a block is read at a time, as most are."""
    assert rows.table.read is not None
    texts: list[str] = []
    for start in range(0, len(numbers), max(max_texts, 1)):
        cells: list[Any] = rows.table.read(numbers[start : start + max_texts], rows.column)
        texts += [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        if len(texts) >= max_texts:
            break
    return texts[:max_texts]


def _listed(classes: Any) -> str:
    return ", ".join(sorted(map(str, classes)))
