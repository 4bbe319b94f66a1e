"""The search space: one `Parameter` for each range, and all of them in the order in which a trial's values are chosen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from saesweep.errors import UserError
from saesweep.specs import ParameterSpec, is_among, is_same


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


class Space:
    """The parameters under their names in the study.

    A path with one range is called by its path; of several ranges, each is called `path|condition`.

    Args:
        parameters: Each after those that its conditions name.

    Raises:
        ValueError: One does not come after a parameter that its conditions name, or two have the same path and condition.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        ranges = Counter(p.path for p in parameters)
        self.parameters = tuple(
            replace(p, name=p.path if ranges[p.path] == 1 else f"{p.path}|{p.condition_text}") for p in parameters
        )
        self.paths = frozenset(ranges)
        """The dotted paths that are searched."""
        self.by_name: Mapping[str, Parameter] = {p.name: p for p in self.parameters}
        if len(self.by_name) < len(self.parameters):
            raise ValueError(f"two ranges have the same condition: {[p.name for p in self.parameters]}")
        for index, parameter in enumerate(self.parameters):
            settled = {p.path for p in self.parameters[:index]} - {p.path for p in self.parameters[index:]}
            if unsettled := [path for path in parameter.when if path not in settled]:
                raise ValueError(f"{parameter.name} does not come after {unsettled[0]}, which its condition names")

    def walk(self, params: Mapping[str, Any]) -> Iterator[Parameter]:
        """Yield the active parameters in order; the caller puts each one's value into `params` before the next."""
        return (parameter for parameter in self.parameters if parameter.is_active(params))

    def is_conditional(self, fixed: Sequence[str] = ()) -> bool:
        """Return whether some parameter may be absent once the paths in `fixed` have one value."""
        return any(set(parameter.when) - set(fixed) for parameter in self.parameters)

    def why_outside(self, params: Mapping[str, Any]) -> str | None:
        """Return in which way values by path are no point of the space, to be said of a trial; None where they are one.

        A point has a value in its range for every active parameter, and no other value.
        """
        chosen: dict[str, Any] = {}
        for parameter in self.walk(chosen):
            path = parameter.path
            if path not in params:
                return f"space.{path} is searched now, and there is no value of it"
            if not parameter.spec.contains(params[path]):
                return f"space.{path} is {params[path]!r}, which is outside {parameter.spec.range_text}"
            chosen[path] = params[path]
        left = [path for path in params if path not in chosen]
        return f"space.{left[0]} is {params[left[0]]!r}, and is not searched there any more" if left else None

    def strata(self, path: str) -> list[dict[str, Any]]:
        """Return one stratum per choice of a parameter: the settings that its trials share.

        Raises:
            UserError: When the path is not an unconditional choice of the space.
        """
        choices = {p.path: p.spec.choice for p in self.parameters if p.spec.choice is not None and not p.when}
        if path not in choices:
            raise UserError(
                f"search.stratify: {path} is not an unconditional choice of `space`; these are: {list(choices)}"
            )
        return [{path: choice} for choice in choices[path] or ()]

    def describe(self) -> dict[str, Any]:
        """Return every range by name as plain JSON values, for comparison with a stored study."""
        return {parameter.name: parameter.describe() for parameter in self.parameters}


def has_settings(params: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Return whether values by path include all those of `settings`."""
    return all(path in params and is_same(params[path], value) for path, value in settings.items())
