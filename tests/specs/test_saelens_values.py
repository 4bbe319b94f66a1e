"""Which values a field takes: SAELens' own validation, recorded from it, beside ours; every difference is in the docs with its reason.

`tests/interop/saelens_values.py` wrote the record, in an environment that has SAELens.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.experiment import load_experiment
from saesweep.specs.pretokenize import PretokenizeSpec

TESTS = Path(__file__).resolve().parents[1]
RECORD: dict[str, dict[str, list[tuple[Any, str | None]]]] = json.loads(
    (TESTS / "specs" / "saelens_values.json").read_text()
)["configurations"]
PAGE = (TESTS.parent / "docs" / "saelens_options.md").read_text()
ARCHITECTURES = {
    "StandardTrainingSAEConfig": "standard",
    "GatedTrainingSAEConfig": "gated",
    "TopKTrainingSAEConfig": "topk",
    "BatchTopKTrainingSAEConfig": "batchtopk",
    "MatryoshkaBatchTopKTrainingSAEConfig": "matryoshka_batchtopk",
    "JumpReLUTrainingSAEConfig": "jumprelu",
    "AbsTopKTrainingSAEConfig": "abstopk",
    "MatchingPursuitTrainingSAEConfig": "matching_pursuit",
}


def refusal(config: str, field: str, value: Any) -> str | None:
    """Our message about a value; None where it is taken."""
    if config == "PretokenizeRunnerConfig":
        try:
            PretokenizeSpec.model_validate({"dataset_path": "a.txt", "save_path": "b", field: value})
        except ValueError as error:
            return str(error)
        return None
    base: dict[str, Any] = {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.2",
        "dataset_path": "builtin:python-docs",
        "sae": {"architecture": "topk", "d_in": 16, "d_sae": 64, "k": 4},
    }
    if config == "LanguageModelSAERunnerConfig":
        base[field] = value
    elif config == "LoggingConfig":
        base["logger"] = {field: value}
    else:
        name = ARCHITECTURES[config]
        needed = {"k": 4} if "topk" in name else {}
        needed |= {"matryoshka_widths": [8, 64]} if name.startswith("matryoshka") else {}
        base["sae"] = {"architecture": name, "d_in": 16, "d_sae": 64, **needed, field: value}
    try:
        load_experiment({"name": "values", "base": base, "space": {}})
    except UserError as error:
        return str(error)
    return None


def documented() -> dict[tuple[str, str], str]:
    """(field, value as JSON) -> reason, from the table of values that are refused here."""
    section = PAGE.split("## Values that are refused here\n")[1].split("\n## ")[0]
    found = {}
    for line in section.splitlines():
        if not line.startswith("| `"):
            continue
        fields, reason = line.strip("| ").split(" | ")
        for part in fields.split("; "):
            name, *values = re.findall(r"`([^`]*)`", part)
            assert values, part
            found |= {(name, value): reason for value in values}
    return found


REASONS = documented()
CASES = [(config, field) for config, fields in RECORD.items() for field in fields]


@pytest.mark.parametrize(("config", "field"), CASES, ids=[f"{config}.{field}" for config, field in CASES])
def test_values_are_taken_and_refused_as_in_saelens_or_the_docs_say_why(config: str, field: str) -> None:
    for value, theirs in RECORD[config][field]:
        ours = refusal(config, field, value)
        if (theirs is None) != (ours is None):
            assert ours is not None, f"SAELens refuses {value!r}: {theirs}"
            assert (field, json.dumps(value)) in REASONS, f"SAELens takes {value!r}: {ours}"


def test_every_difference_in_the_docs_is_one() -> None:
    taken = {
        (f, json.dumps(v)): c for c, fields in RECORD.items() for f, vs in fields.items() for v, m in vs if m is None
    }
    refused = {
        (field, json.dumps(value))
        for config, fields in RECORD.items()
        for field, values in fields.items()
        for value, theirs in values
        if theirs is None and (field, json.dumps(value)) in REASONS and refusal(config, field, value) is not None
    }
    assert set(REASONS) <= set(taken), set(REASONS) - set(taken)
    assert set(REASONS) == refused, set(REASONS) - refused


def test_the_record_is_of_every_field_that_has_values() -> None:
    """A field that a new version of SAELens adds is noticed by its list of fields; here none is left out of the record."""
    names = json.loads((TESTS / "specs" / "saelens_fields.json").read_text())["configurations"]
    left_out = {"sae", "logger", "metadata", "sae_lens_version", "sae_lens_training_version"}
    left_out |= {"model_kwargs", "model_from_pretrained_kwargs"}
    for config, fields in RECORD.items():
        assert set(fields) == set(names[config]) - left_out
        assert all(values for values in fields.values()), config
