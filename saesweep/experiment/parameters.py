"""The space of the file as parameters, and the run that they lead to, layer by layer: base, by_architecture, parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from saesweep.experiment.document import Place, block
from saesweep.experiment.explain import explain, no_keys
from saesweep.experiment.fields import (
    ARCHITECTURE,
    NESTED,
    READ_ONLY_WITH,
    TARGET_L0,
    architectures_with,
    flatten,
    is_read,
    nest,
    parts_of,
    run_fields,
)
from saesweep.space import Parameter
from saesweep.specs import BaseRun, ObjectiveSpec, ParameterSpec, is_among
from saesweep.specs.architectures import SAESpec, StandardSpec, spec_class
from saesweep.specs.presets import PRESETS


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


class Setting(NamedTuple):
    """A value and the place it was written at."""

    value: Any
    place: Place


def base_architecture(tree: Mapping[str, Any]) -> Any:
    """Return the architecture that `base` names, SAELens' default where it names none."""
    return block(tree, "base", "sae").get("architecture", "standard")


def overrides_of(tree: Mapping[str, Any], architecture: str) -> dict[str, Setting]:
    """Return the values of `by_architecture` for an architecture, its preset's below its own."""
    own = block(tree, "by_architecture", architecture)
    place: Place = ("by_architecture", architecture)
    found = {p: Setting(v, (*place, "preset")) for p, v in _preset(own).items()}
    for key, value in own.items():
        if key in NESTED and isinstance(value, dict):
            found.update({f"{key}.{name}": Setting(item, (*place, key, name)) for name, item in value.items()})
        elif key != "preset":
            found[key] = Setting(value, (*place, key))
    return found


def _preset(own: Mapping[str, Any]) -> dict[str, Any]:
    name = own.get("preset")
    return PRESETS.get(name, {}) if isinstance(name, str) else {}


def layered(
    tree: Mapping[str, Any],
    architecture: str,
    params: Mapping[str, Any],
    places: Mapping[str, Place] | None = None,
) -> dict[str, Setting]:
    """Return the value of every stated field of a trial, and where it comes from.

    Fields of `base.sae` and `by_architecture` that the architecture lacks are left out, and so are fields that are read
    only under another setting than the one the trial draws (a base `lr_end` where it draws a constant schedule).

    Args:
        tree: The experiment's tree.
        architecture: The trial's architecture.
        params: The trial's parameters by dotted path, and the L0 that it aims at.
        places: Where the parameters were written.
    """
    known = spec_class(architecture).model_fields
    flat = {path: Setting(value, ("base", *parts_of(path))) for path, value in flatten(block(tree, "base")).items()}
    flat.update(overrides_of(tree, architecture))
    flat = {p: s for p, s in flat.items() if not p.startswith("sae.") or p[4:] in known}
    for field in READ_ONLY_WITH:
        if not is_read(field, params):
            flat.pop(field, None)
    own = {p: v for p, v in params.items() if p != TARGET_L0}
    flat.update({p: Setting(v, (places or {}).get(p, ("space", p))) for p, v in own.items()})
    flat[ARCHITECTURE] = Setting(architecture, flat.get(ARCHITECTURE, Setting(None, ("base", "sae"))).place)
    if TARGET_L0 in params and (taker := field_of_target(architecture, flat)) is not None:
        flat[taker] = Setting(params[TARGET_L0], ("objective", "matched", "l0"))
    return flat


def field_of_target(architecture: str, flat: Mapping[str, Setting]) -> str | None:
    """Return the field that takes a target L0 as it is; None where a coefficient is steered towards it."""
    if spec_class(architecture).sparsity_field == "k":
        return "sae.k"
    mode = flat.get("sae.jumprelu_sparsity_loss_mode")
    if "target_l0" in spec_class(architecture).model_fields and mode is not None and mode.value == "quadratic":
        return "sae.target_l0"
    return None


def build_run(flat: Mapping[str, Setting]) -> tuple[BaseRun | None, list[tuple[str, str]]]:
    """Validate the fields of one trial.

    Returns:
        The run, or None, and the mistakes as (dotted path, message). Unknown fields are left to the check of keys.
    """
    tree = nest({path: setting.value for path, setting in flat.items()})
    architecture = flat[ARCHITECTURE].value
    own, sae_tree = {k: v for k, v in tree.items() if k in run_fields()}, tree.get("sae", {})
    found: list[tuple[str, str]] = []
    sae: SAESpec | None = None
    try:
        sae = spec_class(architecture).model_validate(sae_tree)
    except ValidationError as error:
        found += [(_path(("sae", *place)), message) for place, message in explain(error, sae_tree, no_keys)]
    run: BaseRun | None = None
    own["sae"] = sae if sae is not None else StandardSpec()
    try:
        run = BaseRun.model_validate(own)
    except ValidationError as error:
        found += [(_path(place), message) for place, message in explain(error, own, no_keys)]
    if run is None or sae is None:
        return None, found
    run = _at_its_hook(run)
    return run, [*found, *cross_field_problems(run)]


def _at_its_hook(run: BaseRun) -> BaseRun:
    """Let an SAE beside transcoders train on the activations that they reconstruct, so that all are judged by the same."""
    if run.sae.is_transcoder or run.sae.is_crosscoder or run.hook_name_out is None:
        return run
    return run.model_copy(update={"hook_name": run.hook_name_out, "hook_name_out": None})


def cross_field_problems(run: BaseRun) -> list[tuple[str, str]]:
    """Return the mistakes between fields of a run, with the width resolved where d_in is stated."""
    sae = run.sae
    found = []
    if sae.d_sae is None and sae.expansion_factor is None:
        found.append(
            ("sae.d_sae", "missing; give the number of latents, or sae.expansion_factor as a multiple of d_in")
        )
    elif sae.d_sae is None and sae.d_in is not None:
        run = run.model_copy(update={"sae": sae.resolve_widths(sae.d_in)})
    return [*found, *run.problems()]


def _path(place: Place) -> str:
    # Only the field itself: a mistake inside a list or a mapping value is shown at the field.
    return ".".join(str(part) for part in (place[:2] if place and place[0] in NESTED else place[:1]))


def place_of(path: str, flat: Mapping[str, Setting]) -> Place:
    """Return where a field of a trial was written, or where it is missing."""
    return flat[path].place if path in flat else ("base", *parts_of(path))
