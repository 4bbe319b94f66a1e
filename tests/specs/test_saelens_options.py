"""docs/saelens_options.md: every field of SAELens' configurations is in it, and every test that it names exists."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from saesweep.specs import BaseRun
from saesweep.specs.architectures import architectures, spec_class
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.pretokenize import PretokenizeSpec

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "saelens_options.md").read_text()
# Fields of every configuration of SAELens, read from the installed package by `dataclasses.fields`.
FIELDS: dict[str, list[str]] = json.loads((TESTS / "specs" / "saelens_fields.json").read_text())["configurations"]
ROW = re.compile(r"\| `(\w+)` \| (.+) \| `([\w/.]+)::(\w+)` \|")
OURS = {
    "LanguageModelSAERunnerConfig": set(BaseRun.model_fields),
    "LoggingConfig": set(LoggerSpec.model_fields),
    "PretokenizeRunnerConfig": set(PretokenizeSpec.model_fields),
}


def section(name: str) -> list[tuple[str, str, str, str]]:
    """(option, what it is here, test file, test) of a configuration's table."""
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    lines = [line for line in found.group(1).splitlines() if line.startswith("| `")]
    matches = [ROW.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [(match[1], match[2], match[3], match[4]) for match in matches if match is not None]


@cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_in_the_table_and_its_test_exists(name: str) -> None:
    rows = section(name)
    assert [option for option, *_ in rows] == FIELDS[name]
    missing = [(option, file, test) for option, _, file, test in rows if test not in named_in(file)]
    assert missing == []


def test_no_section_is_left_over() -> None:
    assert re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) == list(FIELDS)


@pytest.mark.parametrize("name", OURS)
def test_what_is_said_to_be_there_is_there(name: str) -> None:
    for option, said, *_ in section(name):
        if said.startswith("yes"):
            assert option in OURS[name], option
        if option not in OURS[name]:
            assert said.startswith(("no:", "as ", "written")), (option, said)


def test_every_architecture_s_fields_are_there() -> None:
    names = {"".join(part.capitalize() for part in name.split("_")).lower(): name for name in architectures()}
    for config in FIELDS:
        key = config.removesuffix("TrainingSAEConfig").lower()
        if config.endswith("TrainingSAEConfig") and key in names:
            fields = set(spec_class(names[key]).model_fields)
            for option, said, *_ in section(config):
                assert option in fields or not said.startswith("yes"), (config, option)
