"""YAML to a located document, scalars as YAML 1.2 has them, and plain data to YAML that reads back the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saesweep.errors import Problem, UserError
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.experiment.yaml_text import parse_scalar, read_yaml

Write = Callable[[str], Path]
Problems = Callable[..., list[Problem]]
One = Callable[..., Problem]

BASE = """
base:
  model_name: builtin:tiny-lm
  dataset_path: builtin:python-docs
  sae: {architecture: topk, d_in: 128, d_sae: 1024}
"""


def test_duplicate_key_is_located(write: Write, only_problem: One) -> None:
    problem = only_problem(write(f"name: a{BASE}name: b\n"))
    assert (problem.path, problem.line, problem.column) == ("name", 6, 1)
    assert "the first is on line 1" in problem.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nbase:\n\tmodel_name: x\n", 3),  # a tab
        ("name: a\nbase: {model_name: x\n", 3),  # no end
        ("name: 'a\n", 2),
        ("name: a\nbase: *nothing\n", 2),
        ("name: a\nbase: }\n", 2),
        ("name: a\n---\nname: b\n", 2),  # two documents
    ],
)
def test_syntax_errors_are_located(write: Write, only_problem: One, text: str, line: int) -> None:
    problem = only_problem(write(text))
    assert problem.line == line
    assert "not valid YAML" in problem.message


def test_tab_says_what_to_do(write: Write, only_problem: One) -> None:
    assert "indent with spaces" in only_problem(write("name: a\nbase:\n\tmodel_name: x\n")).message


def test_control_character_is_located(write: Write, only_problem: One) -> None:
    problem = only_problem(write("name: a\nbase: \x07\n"))
    assert (problem.line, problem.column) == (2, 7)
    assert "U+0007" in problem.message


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_empty_file(write: Write, only_problem: One, text: str) -> None:
    assert "is empty" in only_problem(write(text)).message


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "5\n"])
def test_root_must_be_a_mapping(write: Write, only_problem: One, text: str) -> None:
    assert "must be a mapping" in only_problem(write(text)).message


@pytest.mark.parametrize("key", ["5", "true", "null", "[a]", "1e-4"])
def test_keys_must_be_text(write: Write, only_problem: One, key: str) -> None:
    problem = only_problem(write(f"name: a\n? {key}\n: x\n"))
    assert problem.line == 2
    assert "is not text" in problem.message


@pytest.mark.parametrize("key", ["no", "on", "y"])
def test_words_that_yaml_11_reads_as_booleans_are_text(write: Write, only_problem: One, key: str) -> None:
    assert f"unknown key '{key}'" in only_problem(write(f"name: a{BASE}{key}: x\n")).message


def test_tags_are_refused(write: Write, only_problem: One) -> None:
    assert "not supported" in only_problem(write("name: !!python/name:os.system x\nbase: {}\n")).message


def test_anchors_and_merge_keys(write: Write) -> None:
    text = """
name: a
base:
  model_name: builtin:tiny-lm
  dataset_path: builtin:python-docs
  training_tokens: &tokens 1M
  sae: &sae {architecture: topk, d_in: 128, d_sae: 1024}
evaluation: {select_tokens: *tokens}
by_architecture:
  topk:
    sae: {<<: {k: 9}, aux_loss_coefficient: 0.5}
"""
    experiment = load_experiment(write(text))
    assert experiment.spec.evaluation.select_tokens == 1_000_000
    assert experiment.tree["by_architecture"]["topk"]["sae"] == {"k": 9, "aux_loss_coefficient": 0.5}


def test_own_key_wins_over_a_merged_one_wherever_it_stands(write: Write) -> None:
    experiment = load_experiment(write(f"name: a{BASE}search: {{trials: 3, <<: {{trials: 9, patience: 4}}}}\n"))
    assert (experiment.spec.search.trials, experiment.spec.search.patience) == (3, 4)


def test_first_of_several_merged_mappings_wins(write: Write) -> None:
    experiment = load_experiment(write(f"name: a{BASE}search: {{<<: [{{patience: 4}}, {{patience: 5, trials: 2}}]}}\n"))
    assert (experiment.spec.search.trials, experiment.spec.search.patience) == (2, 4)


def test_alias_of_itself(write: Write, only_problem: One) -> None:
    assert "contains it" in only_problem(write("name: &a [*a]\n")).message


def test_growing_aliases_are_stopped(write: Write, problems: Problems) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    found = problems(write("\n".join(lines)))
    assert any("aliases written out" in p.message for p in found)


def test_deep_nesting_is_stopped(write: Write, problems: Problems) -> None:
    assert "nested" in problems(write(f"name: {'[' * 100}{']' * 100}\n"))[0].message
    assert "nested" in problems(write(f"name: {'[' * 100_000}\n"))[0].message


def test_unprintable_source_of_python_values(only_problem: One, problems: Problems) -> None:
    assert "set" in problems({"name": "a", "base": {"model_name": {1, 2}}})[0].message
    assert "not text" in problems({"name": "a", 5: 1})[0].message
    assert "finite" in problems({"name": "a", "base": {"lr": float("nan")}})[0].message


def test_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("name: a")
    with pytest.raises(UserError, match=r"no such experiment file; .* has other\.yaml"):
        load_experiment(tmp_path / "mine.yaml")


def test_folder_instead_of_file(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: a")
    with pytest.raises(UserError, match="is a folder"):
        load_experiment(tmp_path)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e4", 1e4),
        ("1.0E4", 1e4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3.5e+2", -350.0),
        ("010", 10),
        ("-7", -7),
        ("+7", 7),
        ("16_384", 16384),
        ("1_000.5", 1000.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("YES", "YES"),
        ("1:30", "1:30"),
        ("90M", "90M"),
        ("5%", "5%"),
        ("1_", "1_"),
        ("_1", "_1"),
        ("2001-01-01", "2001-01-01"),
        (".", "."),
        ("-", "-"),
        ("e4", "e4"),
        ("0x", "0x"),
    ],
)
def test_yaml_12_core_scalars(text: str, value: object) -> None:
    parsed = parse_scalar(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.INF", ".nan", "1e999", "9" * 5000])
def test_numbers_that_no_setting_has(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_scalar(text)


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
