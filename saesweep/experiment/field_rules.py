"""What a single field of a base run says about a value, whatever the other fields are."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from saesweep.experiment.document import Place
from saesweep.experiment.explain import explain
from saesweep.specs import BaseRun
from saesweep.specs.architectures import StandardSpec, spec_class
from saesweep.specs.datasets import WeightedDatasetSpec
from saesweep.specs.logger import LoggerSpec
from saesweep.specs.synthetic import SyntheticSpec


def field_problems(path: str, value: Any, architecture: str) -> list[tuple[Place, str]]:
    """Return the field's own objections to a value, each with its place inside the value.

    Args:
        path: Dotted path of a field that exists.
        value: The value to try.
        architecture: The architecture whose field is meant, for `sae.` paths.
    """
    block, _, field = path.rpartition(".")
    tree = {field: value}
    try:
        if block == "sae":
            spec_class(architecture).model_validate(tree)
        elif block == "logger":
            LoggerSpec.model_validate(tree)
        elif block == "synthetic":
            SyntheticSpec.model_validate(tree)
        else:
            BaseRun.model_validate({**tree, "sae": StandardSpec()})
    except ValidationError as error:
        return [(place[1:], message) for place, message in explain(error, tree, _keys_inside) if place[:1] == (field,)]
    return []


def _keys_inside(place: Place) -> tuple[str, ...]:
    """Return the keys of a mapping inside a field's value."""
    return tuple(WeightedDatasetSpec.model_fields) if place[:1] == ("datasets",) else ()
