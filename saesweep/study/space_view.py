"""The search space as Optuna needs it: named parameters with conditions, in the order of their dependence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from saesweep.errors import UserError
from saesweep.study.parameter_view import ParameterView, same_value


@dataclass(frozen=True, kw_only=True)
class SpaceView:
    """All parameters of a space.

    Raises:
        UserError: When conditions refer to each other in a circle, or one names a path that has no value.
    """

    parameters: tuple[ParameterView, ...]
    """One entry per range; a path with ranges by condition has several, no two of them active together."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Values of the base run at paths that conditions name but the space does not search."""

    def __post_init__(self) -> None:
        searched = {parameter.path for parameter in self.parameters}
        for parameter in self.parameters:
            for path in parameter.when:
                if path not in searched and path not in self.base:
                    raise UserError(
                        f"space.{parameter.path}: `when` names {path}, which has no value in this experiment"
                    )
        names = [parameter.name for parameter in self.ordered]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"space.{twice[0]}: two ranges have the same condition; give each another `when`")

    @cached_property
    def ordered(self) -> tuple[ParameterView, ...]:
        """The parameters under their Optuna names, each after those that its condition reads; else in file order.

        A path with one range is called by its path; of several, each is called `path|condition`.
        """
        ranges = Counter(parameter.path for parameter in self.parameters)
        left = [p.named(p.path if ranges[p.path] == 1 else f"{p.path}|{p.condition_text}") for p in self.parameters]
        done: list[ParameterView] = []
        while left:
            unresolved = {parameter.path for parameter in left}
            ready = next((p for p in left if not unresolved & set(p.when)), None)
            if ready is None:
                raise UserError(f"space: the `when` conditions of {', '.join(sorted(unresolved))} refer to each other")
            left.remove(ready)
            done.append(ready)
        return tuple(done)

    @cached_property
    def by_name(self) -> dict[str, ParameterView]:
        """The parameters by Optuna name."""
        return {parameter.name: parameter for parameter in self.ordered}

    def is_active(self, parameter: ParameterView, params: Mapping[str, Any]) -> bool:
        """Return whether a parameter exists beside the values chosen so far (by path).

        A condition on a searched parameter that is itself inactive does not hold.
        """
        searched = {p.path for p in self.parameters}
        known = {**{path: value for path, value in self.base.items() if path not in searched}, **params}
        return all(
            path in known and any(same_value(known[path], value) for value in allowed)
            for path, allowed in parameter.when.items()
        )

    def has_settings(self, params: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
        """Return whether the values by path include all those of `settings`."""
        return all(path in params and same_value(params[path], value) for path, value in settings.items())

    def walk(self, params: dict[str, Any]) -> Iterator[ParameterView]:
        """Yield the active parameters in order; the caller puts each one's value into `params` before the next.

        Raises:
            UserError: When two ranges of one path are active together.
        """
        seen: set[str] = set()
        for parameter in self.ordered:
            if self.is_active(parameter, params):
                if parameter.path in seen:
                    raise UserError(f"space.{parameter.path}: two of its ranges hold at once for {params}")
                seen.add(parameter.path)
                yield parameter

    def is_conditional(self, fixed: Sequence[str] = ()) -> bool:
        """Return whether some parameter may be absent once the paths in `fixed` have one value."""
        return any(set(parameter.when) - set(fixed) - set(self.base) for parameter in self.parameters)

    def strata(self, path: str) -> list[dict[str, Any]]:
        """Return one stratum per choice of a parameter: the settings that its trials share.

        Raises:
            UserError: When the path is not an unconditional choice of the space.
        """
        found = [parameter for parameter in self.parameters if parameter.path == path]
        if len(found) != 1 or found[0].kind != "choice" or found[0].when:
            choices = [p.path for p in self.parameters if p.kind == "choice" and not p.when]
            raise UserError(f"search.stratify: {path} is not an unconditional choice of `space`; these are: {choices}")
        return [{path: choice} for choice in found[0].choices]

    def decode(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by path from Optuna's parameters."""
        return {self.by_name[name].path: self.by_name[name].decode(value) for name, value in named.items()}

    def check_settings(self, where: str, settings: Mapping[str, Any]) -> None:
        """Check given settings, a baseline, against the space.

        Raises:
            UserError: When one names a path that is not searched, or a value outside every range of its path.
        """
        for path, value in settings.items():
            ranges = [parameter for parameter in self.parameters if parameter.path == path]
            if not ranges:
                known = sorted({p.path for p in self.parameters})
                raise UserError(f"{where}: {path} is not in `space`, which has {known}; put fixed values into `base`")
            if not any(parameter.contains(value) for parameter in ranges):
                allowed = " or ".join(parameter.range_text for parameter in ranges)
                raise UserError(f"{where}: {path} is {value!r}, but space.{path} allows {allowed}")

    def describe(self) -> dict[str, Any]:
        """Return every range by Optuna name as plain JSON values, for comparison with a stored study."""
        return {parameter.name: parameter.describe() for parameter in self.ordered}
