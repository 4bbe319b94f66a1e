"""Imports go one way: each room imports from those below it, and the driver never sees a tensor."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "saesweep"

LEVELS = (
    ("cli", "__main__"),
    ("planning", "publish", "report", "api", "testing"),
    ("driver",),
    ("engines",),
    ("worker",),
    ("engines.protocol",),
    ("engines.records",),
    ("result", "at_hand"),
    ("study", "scheduler", "forecast", "tracking", "display"),
)
"""From top to bottom, the rooms of a sweep; what is named nowhere lies below them all. Rooms of one level may meet."""
TENSOR_ROOMS = ("torch", "safetensors", "saesweep.cohort", "saesweep.saes", "saesweep.activations", "saesweep.models")


def room_of(module: str) -> str:
    """Return the room of a module of the package."""
    parts = module.split(".")[1:]
    if parts[:2] in (["engines", "protocol"], ["engines", "records"]):
        return ".".join(parts)
    return parts[0] if parts else ""


def level_of(room: str) -> int:
    return next((number for number, rooms in enumerate(LEVELS) if room in rooms), len(LEVELS))


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of everything that a file imports, now or when a function is called, types included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.lineno, node.module


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    return ".".join(["saesweep", *file.relative_to(ROOT).with_suffix("").parts])


def test_each_room_imports_from_those_below_it() -> None:
    wrong = []
    for file in modules():
        room = room_of(name_of(file))
        if room == "__init__":  # the package's lazy names
            continue
        for line, module in imports_of(file):
            if not module.startswith("saesweep."):
                continue
            other = room_of(module)
            if other != room and level_of(other) < level_of(room):
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {room} imports {other}")
    assert wrong == []


def imported_at_run_time(file: Path, names: set[str]) -> set[str]:
    """Return the modules that a module imports, at once or when a function is called; packages themselves are left out."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & names
        waiting += ast.iter_child_nodes(node)
    return found - {name_of(file)}


def test_no_module_imports_itself_by_way_of_others() -> None:
    files = {name_of(file): file for file in modules() if file.name != "__init__.py"}
    left = {name: imported_at_run_time(file, set(files)) for name, file in files.items()}
    while free := {name for name, others in left.items() if not others & left.keys()}:
        left = {name: others for name, others in left.items() if name not in free}
    assert sorted(left) == []


def test_nothing_below_it_takes_a_name_from_the_root() -> None:
    """The version too has a file of its own."""
    rooms = {path.stem for path in ROOT.iterdir()}
    wrong = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in modules()
        if file != ROOT / "__init__.py"
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.ImportFrom) and node.module == "saesweep" and {a.name for a in node.names} - rooms)
        or (isinstance(node, ast.Import) and "saesweep" in {alias.name for alias in node.names})
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "room", ["driver", "scheduler", "forecast", "study", "engines/protocol.py", "engines/records.py"]
)
def test_who_decides_sees_no_tensor(room: str) -> None:
    wrong = []
    for file in modules():
        if not str(file.relative_to(ROOT)).startswith(room):
            continue
        for line, module in imports_of(file):
            if module.split(".")[0] == "torch" or module.startswith(
                (*TENSOR_ROOMS, "saesweep.worker", "saesweep.evaluation")
            ):
                wrong.append(f"{file.relative_to(ROOT)}:{line}: {module}")
    assert wrong == []


def test_a_worker_knows_no_policy_no_study_and_no_board() -> None:
    decided = (
        "optuna",
        "saesweep.scheduler",
        "saesweep.study",
        "saesweep.forecast",
        "saesweep.driver",
        "saesweep.events",
    )
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {module}"
        for file in modules()
        if file.is_relative_to(ROOT / "worker")
        for line, module in imports_of(file)
        if module.startswith(decided)
    ]
    assert wrong == []


def test_every_named_room_is_there() -> None:
    for room in [room for rooms in LEVELS for room in rooms]:
        path = ROOT / room.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), room


def test_every_file_that_the_page_on_architecture_names_is_there() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:saesweep|tests)/[a-z_/]+\.py)`", page)
    assert len(named) > 15
    assert [name for name in named if not (ROOT.parent / name).is_file()] == []
