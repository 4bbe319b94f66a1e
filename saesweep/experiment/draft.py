"""What can be read of an experiment's sections, each by itself: a mistake in one does not hide those in the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from saesweep.experiment.document import Document, Place, block, flow
from saesweep.experiment.explain import explain
from saesweep.experiment.fields import ARCHITECTURE, known_paths, run_fields, sae_fields
from saesweep.experiment.parameters import base_architecture
from saesweep.messages import did_you_mean, nearest
from saesweep.specs import (
    Bound,
    CohortSpec,
    EngineSpec,
    EvaluationSpec,
    ExperimentSpec,
    Goal,
    MatchedSpec,
    ObjectiveSpec,
    ParameterSpec,
    ProbesSpec,
    ProbeTaskSpec,
    RaySpec,
    SearchSpec,
)
from saesweep.specs.architectures import all_listed, architectures
from saesweep.specs.model import Spec

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass
class Draft:
    """An experiment file under examination."""

    document: Document
    filled: frozenset[Place]
    """Places that `from_cfg` filled: their author did not write them for this experiment."""
    architectures: tuple[str, ...] = ()
    """In play: the choices of `sae.architecture`, else the base run's."""
    space: dict[str, tuple[ParameterSpec, ...]] = field(default_factory=dict)
    """The ranges that are well formed."""
    broken: set[str] = field(default_factory=set)
    """Paths of the space with a mistake; nothing that depends on their values is reported."""
    objective: ObjectiveSpec | None = None
    search: SearchSpec | None = None
    cohort: CohortSpec | None = None

    @property
    def tree(self) -> dict[str, Any]:
        """The experiment's data."""
        return self.document.tree

    def block(self, *place: str) -> dict[str, Any]:
        """Return the mapping at a place, empty where there is none."""
        return block(self.tree, *place)


def read_draft(document: Document, filled: frozenset[Place]) -> Draft:
    """Check keys, types and limits of every section; return what is usable of each."""
    draft = Draft(document, filled)
    try:
        ExperimentSpec.model_validate(document.tree)
    except ValidationError as error:
        for place, message in explain(error, document.tree, _known_keys):
            if message.startswith("unknown key"):
                document.add_unknown_key(place, *_meant(place, document.tree, message))
            else:
                document.add(place, message)
    draft.objective = _section(draft, "objective", ObjectiveSpec)
    draft.search = _section(draft, "search", SearchSpec)
    draft.cohort = _section(draft, "cohort", CohortSpec)
    for path, entry in draft.block("space").items():
        try:
            draft.space[path] = ExperimentSpec.model_validate({"name": "x", "base": {}, "space": {path: entry}}).space[
                path
            ]
        except ValidationError:
            draft.broken.add(path)
    draft.architectures = _in_play(draft)
    return draft


def _section(draft: Draft, name: str, model: type[SpecT]) -> SpecT | None:
    """Return the section without those of its keys that are wrong, so that the others are checked further."""
    values = draft.block(name)
    while name in draft.tree:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            wrong = {details["loc"][0] for details in error.errors() if details["loc"]}.intersection(values)
            if not wrong:
                return None
            values = {key: value for key, value in values.items() if key not in wrong}
    return None


def _known_keys(place: Place) -> tuple[str, ...]:
    models: dict[Place, type[Spec]] = {
        (): ExperimentSpec,
        ("objective",): ObjectiveSpec,
        ("objective", "matched"): MatchedSpec,
        ("evaluation",): EvaluationSpec,
        ("evaluation", "probes"): ProbesSpec,
        ("search",): SearchSpec,
        ("cohort",): CohortSpec,
        ("engine",): EngineSpec,
        ("engine", "ray"): RaySpec,
    }
    model: type[Spec] | None = models.get(place)
    if place[:1] == ("space",) and len(place) in (2, 3):
        model = ParameterSpec
    elif place[:3] == ("evaluation", "probes", "tasks"):
        model = ProbeTaskSpec
    elif place[:2] == ("objective", "pareto"):
        model = Goal
    elif place[:2] == ("objective", "subject_to"):
        model = Bound
    if model is None:
        return ()
    return tuple(info.alias or name for name, info in model.model_fields.items())


_SECTIONS: dict[str, type[Spec]] = {
    "search": SearchSpec,
    "cohort": CohortSpec,
    "evaluation": EvaluationSpec,
    "objective": ObjectiveSpec,
}
_ELSEWHERE = {
    "parameters": "write what is in it under space",
    "metric": "write objective: {minimize: ...} or {maximize: ...}",
    "method": "write search: {sampler: ...}",
    **dict.fromkeys(("program", "command"), "saesweep trains by itself; leave it out"),
    "early_terminate": "search.pruner stops trials by a forecast of their ends; leave it out",
}
"""Sections of W&B's sweep files, and what to do with them."""


def _meant(place: Place, tree: Mapping[str, Any], message: str) -> tuple[str, Place | None]:
    """Return the message for an unknown key, and the place that its value was meant for: nearby, or one level down."""
    key = str(place[-1])
    if len(place) == 1:
        found = _meant_below(key, tree[key])
        if found is not None:
            return f"unknown key {key!r}; {found[0]}", found[1]
    near = nearest(key, _known_keys(place[:-1]))
    if near is not None:
        return message, (*place[:-1], near)
    if len(place) == 1 and key.split(".")[0] in run_fields():
        return f"unknown key {key!r}; did you mean 'base.{key}'?", ("base", *key.split("."))
    return message, None


def _meant_below(key: str, value: Any) -> tuple[str, Place | None] | None:
    """Return the hint for a key of the file that belongs into one of its sections, or into the file of another tool."""
    first, _, rest = key.partition(".")
    if key in _ELSEWHERE:
        return _ELSEWHERE[key], None
    if first == "sae" or key in sae_fields():
        inner = value if key == "sae" else {rest or key: value}
        return f"write it under base: {flow({'sae': inner})}", ("base", "sae", *([] if key == "sae" else [rest or key]))
    for section, model in _SECTIONS.items():
        if key in model.model_fields and key not in run_fields():
            return f"write it under {section}: {flow({key: value})}", (section, key)
    return None


def _in_play(draft: Draft) -> tuple[str, ...]:
    """Return the architectures of the experiment; an unknown one counts as the one it was probably meant to be."""
    entry = draft.block("space").get(ARCHITECTURE)
    if entry is None and "from_cfg" in draft.block("base") and "architecture" not in draft.block("base", "sae"):
        return architectures()  # it could not be read, so any of them may be in play
    if entry is None:
        name, place = base_architecture(draft.tree), ("base", "sae", "architecture")
        return _known(draft, [(name, place)])
    if ARCHITECTURE in draft.broken:
        return architectures()
    ranges = draft.space[ARCHITECTURE]
    if len(ranges) != 1 or ranges[0].choice is None:
        draft.document.add(("space", ARCHITECTURE), "takes one choice, such as {choice: [topk, jumprelu]}")
        draft.broken.add(ARCHITECTURE)
        return architectures()
    if ranges[0].when:
        draft.document.add(
            ("space", ARCHITECTURE, "when"), "the architecture is drawn first; it cannot have a condition"
        )
        draft.broken.add(ARCHITECTURE)
    named: list[tuple[Any, Place]] = [
        (name, ("space", ARCHITECTURE, "choice", i)) for i, name in enumerate(ranges[0].choice)
    ]
    return _known(draft, named) or architectures()


def _known(draft: Draft, named: list[tuple[Any, Place]]) -> tuple[str, ...]:
    found: list[str] = []
    for name, place in named:
        if name in architectures():
            found.append(name)
            continue
        hint = did_you_mean(str(name), architectures())
        draft.document.add(place, f"unknown architecture {name!r}{hint} (known: {all_listed()})")
        draft.broken.add(ARCHITECTURE)
        guess = nearest(str(name), architectures())
        found += [guess] if guess else architectures()
    return tuple(dict.fromkeys(found))


def note(draft: Draft, place: Place, path: str, message: str) -> None:
    """Note a mistake of a field where its value was written: by the author, by a preset, or by `from_cfg`."""
    if place[0] == "by_architecture" and place[-1] == "preset":
        draft.document.add(place, f"with this preset, {path}: {message}")
    elif place in draft.filled:
        draft.document.add(("base", "from_cfg"), f"sets {path}, which is not possible here: {message}")
    else:
        draft.document.add(place, message)


def known_path_hint(path: str) -> str:
    """Return `; did you mean ...?` for a dotted path that no base run has."""
    return did_you_mean(path, known_paths())
