"""Generated pages and the schema are current and complete; nothing heavy is imported to make them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saesweep.experiment import experiment_schema, load_experiment
from saesweep.experiment.fields import known_paths, searchable_paths
from saesweep.experiment.reference import options_table
from saesweep.specs.architectures import architectures

ROOT = Path(__file__).parents[2]


def test_reference_page_is_current() -> None:
    committed = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert committed == options_table(), "run: python -m saesweep.experiment.reference > docs/options.md"


def test_reference_page_describes_every_option() -> None:
    rows = [line for line in options_table().splitlines() if line.startswith("| `")]
    for path in known_paths():
        name = path.rsplit(".", 1)[-1]
        assert any(row.startswith(f"| `{name}`") for row in rows), name
    assert not [row for row in rows if row.endswith("|  |")]
    assert not [row for row in rows if "any value |" in row]


def test_schema_knows_every_option_and_describes_it() -> None:
    schema = experiment_schema()
    base = schema["properties"]["base"]["properties"]
    described = {**{k: v for k, v in base.items() if k != "sae"}, **base["sae"]["properties"]}
    assert not [name for name, field in described.items() if not field.get("description")]
    assert {p for p in known_paths() if "." not in p} <= set(base)
    assert {p[4:] for p in known_paths() if p.startswith("sae.")} == set(base["sae"]["properties"])
    assert set(schema["properties"]["space"]["properties"]) == set(searchable_paths())
    assert base["sae"]["properties"]["architecture"]["enum"] == list(architectures())
    json.dumps(schema, allow_nan=False)


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(v) for v in node.values()))
    return set().union(*(_references(v) for v in node)) if isinstance(node, list) else set()


def test_schema_references_resolve() -> None:
    schema = experiment_schema()
    assert {r.removeprefix("#/$defs/") for r in _references(schema)} <= set(schema["$defs"])


def _accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """A validator of the few JSON Schema words that the schema uses."""
    if "$ref" in schema:
        return _accepts(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], value, root)
    if "anyOf" in schema and not any(_accepts(option, value, root) for option in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    kind = schema.get("type")
    if kind in kinds and (not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool))):
        return False
    if kind == "number" and (isinstance(value, bool) or not isinstance(value, (int, float))):
        return False
    if isinstance(value, dict) and ("properties" in schema or "additionalProperties" in schema):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in known:
                if not _accepts(known[key], item, root):
                    return False
            elif other is False or (isinstance(other, dict) and not _accepts(other, item, root)):
                return False
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return all(_accepts(schema["items"], item, root) for item in value)
    return True


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem)
def test_schema_accepts_the_shipped_experiments(path: Path) -> None:
    schema = experiment_schema()
    assert _accepts(schema, load_experiment(path).tree, schema)


@pytest.mark.parametrize(
    "change",
    [{"nam": 1}, {"base": {"lrr": 1}}, {"space": {"foo": {"int": [1, 2]}}}, {"search": {"trials": "x"}}, {"base": 5}],
)
def test_schema_refuses_mistakes(tree: dict[str, Any], change: dict[str, Any]) -> None:
    schema = experiment_schema()
    assert _accepts(schema, tree, schema)
    assert not _accepts(schema, {**tree, **change}, schema)


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from saesweep.experiment import load_experiment, experiment_schema; "
        f"load_experiment({str(ROOT / 'experiments' / 'quickstart.yaml')!r}); experiment_schema(); "
        "print([m for m in ('torch', 'optuna', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
