"""Every field of a configuration does something: the package reads it, or refuses any value but its default."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saesweep.specs import BaseRun
from saesweep.specs.model import Spec
from saesweep.specs.pretokenize import PretokenizeSpec

PACKAGE = Path(__file__).parents[2] / "saesweep"
READ_BY_NAME = {
    "by_architecture": "experiment/parameters.py",
    "l1_warm_up_steps": "specs/schedules.py",
    "l0_warm_up_steps": "specs/schedules.py",
}
"""Field -> the file that reads it by its name in a table, or from the file's tree before there is a model."""
REFUSED = {
    "activations_mixing_fraction": 0.25,
    "dataset_trust_remote_code": True,
    "output_path": "output",
    "resume_from_checkpoint": "checkpoints/1",
}
"""Field of SAELens without a meaning here -> a value that is refused."""


def spec_classes(base: type[Spec] = Spec) -> Iterator[type[Spec]]:
    """Yield the configuration models of the package."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("saesweep."):
            yield cls
        yield from spec_classes(cls)


class Reads(ast.NodeVisitor):
    """Names of attributes that code reads, but for checks: a field that is only checked does nothing."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        is_check = node.name.endswith("problems") or any("validator" in ast.unparse(d) for d in node.decorator_list)
        if not is_check:
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            self.names.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and isinstance(node.args[1], ast.Constant):
            self.names.add(str(node.args[1].value))
        self.generic_visit(node)


def unread(sources: list[str]) -> set[str]:
    """Return the fields that none of these sources reads as an attribute, whatever it is an attribute of."""
    reads = Reads()
    for source in sources:
        reads.visit(ast.parse(source))
    return {name for cls in spec_classes() for name in cls.model_fields} - reads.names


def test_every_field_is_read_or_refused() -> None:
    sources = [file.read_text() for file in sorted(PACKAGE.rglob("*.py"))]
    assert unread(sources) == {*READ_BY_NAME, *REFUSED}


def test_a_field_that_is_only_checked_counts_as_unread() -> None:
    check = "def problems(self):\n    return [] if self.lr else ['lr']\n"
    assert "lr" in unread([check])
    assert "lr" not in unread([check, "step(run.lr)\n"])
    assert "lr" not in unread(["getattr(run, 'lr', None)\n"])


@pytest.mark.parametrize(("field", "file"), READ_BY_NAME.items())
def test_names_are_in_the_file_that_reads_by_them(field: str, file: str) -> None:
    names = [node.value for node in ast.walk(ast.parse((PACKAGE / file).read_text())) if isinstance(node, ast.Constant)]
    assert field in names


@pytest.mark.parametrize(("field", "value"), REFUSED.items())
def test_what_is_not_read_is_refused(field: str, value: Any) -> None:
    run = BaseRun.model_validate(
        {"dataset_path": "x", "sae": {"architecture": "topk", "d_in": 8, "d_sae": 128}, field: value}
    )
    assert [name for name, _ in run.problems()] == [field]
    if field in PretokenizeSpec.model_fields:
        spec = PretokenizeSpec.model_validate({"dataset_path": "a.txt", "save_path": "b", field: value})
        assert [name for name, _ in spec.problems()] == [field]
