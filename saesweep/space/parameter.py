"""One range of the search space, and when it is sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saesweep.specs import ParameterSpec, is_among


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One range of the space and when it is sampled. A path with several ranges gives several parameters."""

    path: str
    """Dotted path of the base run."""
    spec: ParameterSpec
    """The range as written."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Sampled only where each of these paths has one of its values; the implicit conditions are among them."""
    place: tuple[str | int, ...] = ()
    """Where it was written: the keys and indices from the root of the file."""
    name: str = ""
    """Its name in the study, which the space gives it."""

    def is_active(self, params: Mapping[str, Any]) -> bool:
        """Return whether the conditions hold for these values by path; a path without a value meets no condition."""
        return all(path in params and is_among(params[path], values) for path, values in self.when.items())

    def can_be_active(self, params: Mapping[str, Any]) -> bool:
        """Return whether no condition contradicts these values by path, of which some may be missing."""
        return all(is_among(params[path], values) for path, values in self.when.items() if path in params)

    @property
    def condition_text(self) -> str:
        """The condition in one piece of text, e.g. `sae.architecture=gated/standard`."""
        return ",".join(f"{path}={'/'.join(_text(v) for v in values)}" for path, values in self.when.items())

    def describe(self) -> dict[str, Any]:
        """Return the range and its conditions as plain JSON values."""
        spec, when = self.spec, {path: list(values) for path, values in self.when.items()}
        if spec.choice is not None:
            return {"choice": list(spec.choice), "when": when}
        return {spec.kind: [spec.low, spec.high], "log": spec.log, "step": spec.step, "when": when}


def _text(value: Any) -> str:
    """Return a string as it is and any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
