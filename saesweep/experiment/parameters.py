"""The space of the file as a flat list of parameters, every condition written out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from saesweep.experiment.document import Place
from saesweep.experiment.fields import ARCHITECTURE, READ_ONLY_WITH, TARGET_L0, architectures_with, is_read
from saesweep.space import Parameter
from saesweep.specs import ObjectiveSpec, ParameterSpec, is_among


def flatten_space(space: Mapping[str, Sequence[ParameterSpec]], architectures: Sequence[str]) -> tuple[Parameter, ...]:
    """Return the parameters, each after those that its conditions name, otherwise in the order of the file.

    A field that not every architecture in play has is sampled only for those which have it, and a field that is read
    only under some setting (`lr_end`: a cosine schedule) only under it, where that setting is searched too.
    """
    found = []
    for path, ranges in space.items():
        for index, spec in enumerate(ranges):
            when = dict(spec.when)
            having = architectures_with(path, architectures)
            if set(having) != set(architectures):
                when[ARCHITECTURE] = _both(when.get(ARCHITECTURE), having)
            decider, _ = READ_ONLY_WITH.get(path, ("", ()))
            if decider in space and all(r.choice is not None for r in space[decider]):
                searched = [v for r in space[decider] for v in r.choice or () if is_read(path, {decider: v})]
                when[decider] = _both(when.get(decider), tuple(searched))
            place: Place = ("space", path, index) if len(ranges) > 1 else ("space", path)
            found.append(Parameter(path=path, spec=spec, when=when, place=place))
    return _ordered(found)


def target_parameters(objective: ObjectiveSpec | None) -> tuple[Parameter, ...]:
    """Return the choice of a target L0 that `objective.matched` adds to every trial; nothing without it."""
    if objective is None or objective.matched is None:
        return ()
    spec = ParameterSpec(choice=objective.matched.l0)
    return (Parameter(path=TARGET_L0, spec=spec, place=("objective", "matched", "l0")),)


def _both(stated: tuple[Any, ...] | None, implied: tuple[Any, ...]) -> tuple[Any, ...]:
    return implied if stated is None else tuple(v for v in stated if is_among(v, implied))


def _ordered(parameters: list[Parameter]) -> tuple[Parameter, ...]:
    done: list[Parameter] = []
    waiting = list(parameters)
    while waiting:
        names = {p.path for p in waiting}
        ready = [p for p in waiting if not (names - {p.path}).intersection(p.when)]
        ready = ready or waiting  # a circle of conditions, which the checks report
        # One pass takes every parameter whose conditions are settled, so that the order of the file is kept.
        done += ready
        waiting = [p for p in waiting if p not in ready]
    return tuple(done)


def for_architecture(parameters: Sequence[Parameter], architecture: str) -> list[Parameter]:
    """Return the parameters that trials of an architecture can have, the architecture itself settled."""
    found = []
    for parameter in parameters:
        if parameter.path == ARCHITECTURE or architecture not in parameter.when.get(ARCHITECTURE, (architecture,)):
            continue
        when = {path: values for path, values in parameter.when.items() if path != ARCHITECTURE}
        found.append(replace(parameter, when=when))
    return found
