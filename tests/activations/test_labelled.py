"""Labelled texts: drawn by a seed, balanced, texts to test on apart; and what a dataset can lack."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from saesweep.activations.labelled import LabelledTexts, read_labelled
from saesweep.errors import UserError
from saesweep.specs import ProbeTaskSpec


def write(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(counts: dict[Any, int]) -> list[dict[str, Any]]:
    return [{"text": f"{label} {n}", "label": label} for label, count in counts.items() for n in range(count)]


def read(path: str, seed: int = 0, **fields: Any) -> LabelledTexts:
    return read_labelled(ProbeTaskSpec(name="task", dataset_path=path, **fields), "probes[0]", seed)


def test_classes_are_balanced_and_test_texts_are_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "texts.jsonl", rows_of({2: 60, 0: 48, 1: 300}))
    found = read(path)
    assert found.classes == ("0", "1", "2")
    assert [len(texts) for texts in found.train] == [36, 36, 36]  # of the rarest, less a quarter
    assert [len(texts) for texts in found.test] == [12, 12, 12]
    assert len(set(found.texts)) == 3 * 48
    for part in (found.train, found.test):
        assert [{text[0] for text in texts} for texts in part] == [{"0"}, {"1"}, {"2"}]
    assert read(path) == found
    assert read(path, seed=1).train != found.train
    few = read(path, max_train=45, max_test=32, test_fraction=0.5)
    assert [len(few.train[0]), len(few.test[0])] == [15, 10]


def test_a_split_of_its_own_and_rows_that_say_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    empty = [{"text": " ", "label": True}, {"text": None, "label": False}, {"text": "?", "label": None}, "\n"]
    write(folder / "train.jsonl", [*empty, *rows_of({True: 20, False: 20})])
    write(folder / "test.jsonl", rows_of({True: 15, False: 11}))
    found = read(str(folder), test_split="test")
    assert found.classes == ("False", "True")
    assert [sorted(texts) for texts in found.train] == [sorted(f"{c} {n}" for n in range(20)) for c in (False, True)]
    assert [len(texts) for texts in found.test] == [11, 11]


@pytest.mark.parametrize(
    ("rows", "fields", "said"),
    [
        (rows_of({0: 50, 1: 50}), {"column_name": "txt"}, r"probes\[0\]\.column_name: .* has no column 'txt'; did you mean 'text'"),
        (rows_of({0: 50, 1: 50}), {"label_column": "lable"}, r"probes\[0\]\.label_column: .* 'lable'; did you mean 'label'"),
        ([{"words": "a", "label": 0}], {}, r"probes\[0\]\.column_name: .* has no text column \(text, content"),
        (rows_of({0: 50}), {}, r"probes\[0\]\.label_column: .* has 1 classes in 'label'; a probe tells 2 to 20 apart"),
        (rows_of({n: 20 for n in range(21)}), {}, "has 21 classes"),
        ([*rows_of({0: 50, 1: 50}), {"text": "x", "label": 0.5}], {}, r"label_column: row 100 of .* holds float in 'label'"),
        ([*rows_of({0: 50, 1: 50}), "{]\n"], {}, r"probes\[0\]\.dataset_path: .*line 101 of"),
        (rows_of({0: 50, 1: 30}), {}, r"probes\[0\]: .* leaves 8 texts of each class to test it on, fewer than 10"),
        (rows_of({0: 50, 1: 50}), {"split": "dev"}, r"probes\[0\]\.split: .* has no split 'dev'"),
    ],
)  # fmt: skip
def test_what_a_dataset_lacks(rows: list[Any], fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(write(tmp_path / "texts.jsonl", rows), **fields)


def test_splits_of_other_classes(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "train.jsonl", rows_of({"a": 20, "b": 20}))
    write(folder / "test.jsonl", rows_of({"a": 20, "c": 20}))
    with pytest.raises(
        UserError, match=r"test_split: the classes of 'test' \(a, c\) are not those of 'train' \(a, b\)"
    ):
        read(str(folder), test_split="test")
