from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.experiment import dump_yaml, load_experiment
from saesweep.experiment.yaml_text import read_yaml

TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "no",
        "on",
        "1e-4",
        "010",
        "1:30",
        "16_384",
        "null",
        "~",
        "",
        "0x1F",
        ".inf",
        "1e999",
        "a: b",
        "- a",
        "#c",
        "<<",
        "=",
        " x ",
        "5%",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)


def _same(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


@settings(max_examples=300, deadline=None)
@given(TREES)
def test_dump_reads_back_the_same(value: Any) -> None:
    tree = {"key": value}
    document = read_yaml(dump_yaml(tree), None)
    assert document.problems == []
    assert _same(document.tree, tree)


@pytest.mark.parametrize("text", ["no", "on", "yes", "1e-4", "010", "1:30", "2001-01-01", "0b1", "1_000"])
def test_text_stays_text_for_yaml_11_readers_too(text: str) -> None:
    assert yaml.safe_load(dump_yaml({"key": text})) == {"key": text}


def test_an_experiment_survives_being_saved(tree: dict[str, Any], tmp_path: Path) -> None:
    tree["base"]["lr"] = 1e-4
    tree["space"] = {"sae.k": {"int": [8, 64], "log": True}}
    first = load_experiment(copy.deepcopy(tree))
    path = tmp_path / "experiment.yaml"
    path.write_text(dump_yaml(first.tree), encoding="utf-8")
    second = load_experiment(path)
    assert second.tree == first.tree
    assert second.fingerprint() == first.fingerprint()
    assert second.spec == first.spec
