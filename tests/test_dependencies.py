"""Every package that is imported is declared: under `dependencies`, or in an extra that a message names where it is missing."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.test_arrows import imports_of, modules

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
PART_OF = {"markupsafe": "jinja2", "pydantic-core": "pydantic", "tokenizers": "transformers", "triton": "torch"}
"""Distribution -> the one that fixes its version: it cannot be chosen by itself."""
ELSEWHERE = {"sae_bench", "sae_lens", "IPython", "aiohttp"}
"""Packages of an environment that the package is used in, and that it asks for before it imports them."""
EXTRAS = {"ray": "ray", "scikit-learn": "probes", "pytest": "test"}
"""Distribution -> the extra that has it."""


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


@cache
def imported() -> dict[str, list[str]]:
    """Third-party packages by name, and the files that import them."""
    found: dict[str, list[str]] = {}
    for file in modules():
        for _, module in imports_of(file):
            root = module.split(".")[0]
            if root not in sys.stdlib_module_names and root not in ("saesweep", "__future__"):
                found.setdefault(root, []).append(file.name)
    return found


def distribution_of(package: str) -> str:
    known = packages_distributions().get(package)
    return name_of(known[0]) if known else package


DIRECT = {name_of(each) for each in PROJECT["dependencies"]}


@pytest.mark.parametrize("package", sorted(imported()))
def test_what_is_imported_is_declared(package: str) -> None:
    name = distribution_of(package)
    if package in ELSEWHERE:
        assert name not in DIRECT
    elif name in EXTRAS:
        assert name in {name_of(each) for each in PROJECT["optional-dependencies"][EXTRAS[name]]}
    else:
        assert PART_OF.get(name, name) in DIRECT, f"{imported()[package]} import {package}, of {name}"


def test_what_is_declared_is_imported() -> None:
    """All of them by name, but for transformers' own reader of GGUF files, an extra."""
    names = {distribution_of(package) for package in imported()}
    assert names >= DIRECT


def test_packages_of_an_extra_are_imported_where_they_are_needed() -> None:
    """Never by a module that the rest of the package imports at its top."""
    of_extras = {"ray": ("ray.py", "ray_actor.py"), "pytest": ("testing.py",), "sklearn": ()}
    for package, files in of_extras.items():
        at_top = [
            file.name
            for file in modules()
            for node in ast.parse(file.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom)) and package in names_in(node)
        ]
        assert set(at_top) == set(files), package


def names_in(node: ast.Import | ast.ImportFrom) -> set[str]:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.split(".")[0] for name in names}
