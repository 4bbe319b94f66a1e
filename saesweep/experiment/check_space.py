"""Static checks of `space`: paths, values within each field's own rules, conditions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft, known_path_hint
from saesweep.experiment.explain import field_problems
from saesweep.experiment.fields import (
    ARCHITECTURE,
    NESTED,
    STREAM_PATHS,
    architectures_with,
    known_paths,
    searchable_paths,
    why_not_searchable,
    why_without_effect,
)
from saesweep.experiment.parameters import flatten_space, for_architecture, overrides_of
from saesweep.messages import did_you_mean, nearest
from saesweep.space import Parameter, grid_points
from saesweep.specs import ParameterSpec, is_among
from saesweep.specs.architectures import architectures, listed

MAX_STREAMS = 64


def check_space(draft: Draft) -> tuple[Parameter, ...]:
    """Note mistakes of the space; return the parameters without one."""
    for path in draft.block("space"):
        if path not in draft.broken and (message := _path_problem(draft, path)):
            draft.document.add(("space", path), message, at_key=True)
            draft.broken.add(path)
    for path, ranges in draft.space.items():
        for index, spec in enumerate(ranges):
            place = _place(draft, path, index)
            for field, message in spec.problems():
                draft.document.add((*place, field) if field else place, message)
                draft.broken.add(path)
            if path not in draft.broken:
                _check_values(draft, path, spec, place)
                _check_when(draft, path, spec, place)
                if path in STREAM_PATHS:
                    _check_stream_parameter(draft, path, spec, place)
        if not ranges:
            draft.document.add(("space", path), "is an empty list; give a range or leave it out")
            draft.broken.add(path)
    usable = {path: ranges for path, ranges in draft.space.items() if path not in draft.broken}
    parameters = flatten_space(usable, draft.architectures)
    _check_circles(draft, parameters)
    _check_overridden(draft, parameters)
    _check_overlaps(draft, parameters)
    _check_number_of_streams(draft, parameters)
    return tuple(p for p in parameters if p.path not in draft.broken)


def _check_overridden(draft: Draft, parameters: Sequence[Parameter]) -> None:
    """Note values of `by_architecture` that never hold, because every trial of the architecture draws its own."""
    for name in draft.architectures:
        always = {p.path for p in for_architecture(parameters, name) if not p.when}
        for path, setting in overrides_of(draft.tree, name).items():
            if path in always and setting.place[-1] != "preset":  # a preset is a package: the space refines it
                draft.document.add(
                    setting.place,
                    f"space.{path} gives every {name} trial a value of its own, so that this one never holds; remove it, "
                    f"or limit space.{path} to other architectures with when: {{{ARCHITECTURE}: [...]}}",
                    at_key=True,
                )


def _place(draft: Draft, path: str, index: int) -> Place:
    return ("space", path, index) if isinstance(draft.block("space").get(path), list) else ("space", path)


def _path_problem(draft: Draft, path: str) -> str:
    if (why := why_without_effect(path)) is not None:
        return why
    if path not in (*known_paths(), *NESTED):
        guess = nearest(path, searchable_paths(draft.architectures)) or nearest(path, known_paths())
        hint = f"; did you mean {guess!r}?" if guess else "; name a field of base, such as lr or sae.k"
        return f"no field of a base run is called {path!r}{hint}"
    if path not in searchable_paths():
        return why_not_searchable(path)
    if not architectures_with(path, draft.architectures):
        having = listed(architectures_with(path, architectures()))
        return f"no architecture of this experiment ({', '.join(draft.architectures)}) has {path[4:]}; it belongs to {having}"
    return ""


def _check_values(draft: Draft, path: str, spec: ParameterSpec, place: Place) -> None:
    """Note values that the field itself refuses, for any architecture that the range can apply to."""
    if path == ARCHITECTURE:
        return
    names = [a for a in architectures_with(path, draft.architectures) if a in spec.when.get(ARCHITECTURE, (a,))]
    key = spec.kind
    values: list[tuple[Any, Place]] = [(v, (*place, key, i)) for i, v in enumerate(spec.extremes())]
    if spec.kind == "float" and spec.low != spec.high:
        values.append(((spec.low + spec.high) / 2, (*place, key)))
    for value, where in values:
        for name in names[:1] if not path.startswith("sae.") else names:
            problems = field_problems(path, value, name)
            if not problems:
                continue
            draft.broken.add(path)
            message = problems[0][1]
            if spec.kind == "float" and "whole number" in message:
                draft.document.add((*place, key), f"{path} is a whole number; write int: instead of float:")
                return
            if spec.kind != "choice" and "takes" in message and "number" not in message:
                draft.document.add((*place, key), f"{path} {message}; write choice: instead of {key}:")
                return
            draft.document.add(where, message)


def _check_when(draft: Draft, path: str, spec: ParameterSpec, place: Place) -> None:
    document = draft.document
    space = draft.block("space")
    for name, values in spec.when.items():
        where = (*place, "when", name)
        if name == path:
            document.add(where, "a parameter cannot depend on itself", at_key=True)
            draft.broken.add(path)
            continue
        if name not in space:
            if name in known_paths():
                message = "is not searched, so its value is the same for all trials; remove the condition"
            else:
                message = f"unknown parameter {name!r}{did_you_mean(name, space) or known_path_hint(name)}"
            document.add(where, message, at_key=True)
            draft.broken.add(path)
            continue
        if name in draft.broken and name != ARCHITECTURE:
            continue
        written = space_value(draft, place, name)
        for index, value in enumerate(values):
            at = (*where, index) if isinstance(written, list) else where
            if message := _when_problem(draft, path, name, value):
                document.add(at, message)
                draft.broken.add(path)
        if not values:
            document.add(where, "is empty: the parameter would never be sampled")
            draft.broken.add(path)


def _check_stream_parameter(draft: Draft, path: str, spec: ParameterSpec, place: Place) -> None:
    """Note a range, or a condition on what is settled only after the stream."""
    if spec.kind != "choice":
        draft.document.add(
            (*place, spec.kind),
            f"{path} decides the activation stream, and each of its values is a stream of its own; "
            f"write choice: [...] instead of {spec.kind}:",
        )
        draft.broken.add(path)
    for name in spec.when:
        if name in draft.space and name not in STREAM_PATHS and path not in draft.broken:
            draft.document.add(
                (*place, "when", name),
                f"{path} decides the activation stream, which is settled before {name}; "
                f"its condition can name {', '.join(STREAM_PATHS)}",
                at_key=True,
            )
            draft.broken.add(path)


def _check_number_of_streams(draft: Draft, parameters: tuple[Parameter, ...]) -> None:
    """Note more streams than anyone means to open one after the other."""
    own = [p for p in parameters if p.path in STREAM_PATHS]
    count = 0 if draft.broken.intersection(p.path for p in own) else sum(1 for _ in grid_points(own))
    if count > MAX_STREAMS:
        draft.document.add(
            own[-1].place, f"makes {count} activation streams with the other choices of streams; at most {MAX_STREAMS}"
        )
        draft.broken.add(own[-1].path)


def space_value(draft: Draft, place: Place, name: str) -> Any:
    """Return a condition as written: one value or a list."""
    node: Any = draft.tree
    for part in (*place, "when", name):
        node = node[part]
    return node


def _when_problem(draft: Draft, path: str, name: str, value: Any) -> str:
    options: list[Any] = list(draft.architectures) if name == ARCHITECTURE else []
    if not options:
        for spec in draft.space.get(name, ()):
            if spec.kind == "float":
                return f"{name} is a range of real numbers; a condition can name a choice or an int only"
            if spec.kind == "int":
                if spec.contains(value):
                    return ""
            else:
                options += list(spec.choice or ())
    if is_among(value, options):
        if name == ARCHITECTURE and not architectures_with(path, (value,)):
            return f"{value} has no {path[4:]}, so this can never apply"
        return ""
    hint = did_you_mean(str(value), [str(option) for option in options])
    known = f" (values: {', '.join(map(str, options))})" if options else ""
    return f"{name} is never {show(value)}{hint}{known}"


def _check_circles(draft: Draft, parameters: tuple[Parameter, ...]) -> None:
    seen: set[str] = set()
    for parameter in parameters:  # each comes after those it depends on, unless they depend on each other
        searched = {p.path for p in parameters}
        missing = [name for name in parameter.when if name not in seen and name in searched]
        same = {p.path for p in parameters if p.path == parameter.path}
        if missing and not same.issuperset(missing):
            draft.document.add(parameter.place, f"its condition on {missing[0]} leads back to itself")
            draft.broken.add(parameter.path)
        seen.add(parameter.path)


def _check_overlaps(draft: Draft, parameters: tuple[Parameter, ...]) -> None:
    for first, second in itertools.combinations(parameters, 2):
        if first.path != second.path:
            continue
        shared = set(first.when).intersection(second.when)
        if any(not [v for v in first.when[name] if is_among(v, second.when[name])] for name in shared):
            continue
        common = [
            a
            for a in architectures_with(first.path, draft.architectures)
            if a in first.when.get(ARCHITECTURE, (a,)) and a in second.when.get(ARCHITECTURE, (a,))
        ]
        line = draft.document.mark(first.place).line
        other = f"the range on line {line}" if line is not None else f"range {first.place[-1]}"
        draft.document.add(
            second.place,
            f"for {', '.join(common)} both this range and {other} apply; separate them with `when`",
        )
        draft.broken.add(first.path)
