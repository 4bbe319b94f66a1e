"""Static checks of `search` and `cohort`."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from saesweep.experiment.devices import devices_problem
from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft, known_path_hint
from saesweep.experiment.fields import ARCHITECTURE, STREAM_PATHS, TARGET_L0, known_paths, searchable_paths
from saesweep.experiment.foreign import SAMPLERS_ELSEWHERE
from saesweep.messages import did_you_mean
from saesweep.space import Parameter, space_size
from saesweep.specs import BaseRun, SearchSpec
from saesweep.specs.units import LARGEST, TOO_LARGE

SAMPLERS = ("tpe", "random", "grid", "fixed")
_CONFIRM_TOKENS = ("search", "confirm", "training_tokens")
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_CLOSE_RUNGS = 1.25
_SAMPLER_NAMES = "tpe, random, grid, fixed, or a class path such as optuna.samplers.GPSampler"
_SAMPLER_ADVICE = f"write one of {_SAMPLER_NAMES}"


def check_search(draft: Draft, parameters: Sequence[Parameter], run: BaseRun | None) -> None:
    """Note an unknown sampler, rungs out of order, baselines outside the space, a `stratify` that is no choice."""
    search = draft.search or SearchSpec()
    document = draft.document
    if search.sampler not in SAMPLERS and not _CLASS_PATH.fullmatch(search.sampler):
        hint = did_you_mean(SAMPLERS_ELSEWHERE.get(search.sampler.lower(), search.sampler), SAMPLERS)
        document.add(
            ("search", "sampler"),
            f"unknown sampler {search.sampler!r}{hint} ({_SAMPLER_NAMES})",
        )
    elif search.sampler not in SAMPLERS and (message := _import_problem(search.sampler)):
        document.add(("search", "sampler"), f"{search.sampler} cannot be imported: {message}; {_SAMPLER_ADVICE}")
    if search.sampler == "grid":
        for parameter in parameters:
            if parameter.spec.kind != "choice" and not parameter.spec.grid:
                document.add(parameter.place, "search.sampler: grid needs the points to visit; add grid: [...]")
    if search.stratify is not None:
        _check_stratify(draft, search.stratify, parameters)
    _check_fixed(draft, search, parameters)
    _check_streams(draft, search, parameters)
    is_pareto = draft.objective.is_pareto if draft.objective is not None else not draft.block("objective")
    if search.target is not None and is_pareto:
        document.add(("search", "target"), "needs an objective of one metric; on a Pareto front, use patience")
    size = draft.cohort.size if draft.cohort is not None else "auto"
    if size != "auto" and size < search.replicates:
        document.add(("cohort", "size"), f"{size} slots cannot hold the {search.replicates} replicates of one trial")
    _check_count(draft, search)
    for index in range(len(search.baselines)):
        _check_baseline(draft, parameters, search.baselines[index], ("search", "baselines", index))
    if run is not None and "rungs" in draft.block("search"):
        _check_rungs(draft, search, run)
    if search.storage is not None and (problem := _storage_problem(draft, search.storage)):
        document.add(("search", "storage"), problem)
    if draft.cohort is not None:
        base_device = "auto" if run is None else run.device
        if problem := devices_problem(draft.cohort.devices, base_device):
            document.add(("cohort", "devices"), problem)


def check_confirm(draft: Draft, runs: Sequence[BaseRun]) -> None:
    """Note what keeps finalists from training for as long as `search.confirm` says: it would come to light after the search."""
    confirm = draft.search.confirm if draft.search is not None else None
    if confirm is None:
        return
    for run in runs:
        tokens = confirm.tokens_of(run.training_tokens)
        if tokens > LARGEST:
            draft.document.add(_CONFIRM_TOKENS, f"{tokens:.6g} tokens {TOO_LARGE}")
            return
        known = run.problems()
        for path, message in run.model_copy(update={"training_tokens": tokens}).problems():
            if (path, message) not in known:
                said = "" if path == "training_tokens" else f"with {tokens} tokens, base.{path}: "
                draft.document.add(_CONFIRM_TOKENS, f"{said}{message}")


def _storage_problem(draft: Draft, storage: str) -> str:
    """Return what is wrong with the URL of a database; nothing where a connection can be tried."""
    if "://" not in storage:
        return "takes a URL such as postgresql://user:${env:PASSWORD}@host/optuna; leave it out for a file in the run directory"
    try:
        has_password = bool(urlsplit(storage).password)
    except ValueError as error:
        return f"is no URL: {error}"
    if has_password and ("search", "storage") not in draft.document.references:
        return "holds a password, which would be written to the run directory; write ${env:NAME} in its place"
    return ""


def _import_problem(class_path: str) -> str:
    """Return why a class cannot be had; only a class path is worth the import."""
    module, _, name = class_path.rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        return str(error)
    return ""


def _check_count(draft: Draft, search: SearchSpec) -> None:
    """Note settings that are listed and would never be tried."""
    for name, listed in (("baselines", search.baselines), ("fixed", search.fixed)):
        if search.trials is not None and len(listed) > search.trials:
            draft.document.add(
                ("search", "trials"),
                f"{search.trials}, but search.{name} lists {len(listed)} trials: the last {len(listed) - search.trials} "
                f"would never run; raise trials to at least {len(listed)}, or list fewer",
            )


def _check_fixed(draft: Draft, search: SearchSpec, parameters: Sequence[Parameter]) -> None:
    """Note a list without its sampler or the reverse, and settings that are not complete."""
    document = draft.document
    if (search.sampler == "fixed") != bool(search.fixed):
        lacking = "search.sampler: fixed" if search.fixed else "search.fixed, the list of trials,"
        document.add(("search", "fixed" if search.fixed else "sampler"), f"needs {lacking} beside it")
    if search.fixed and search.baselines:
        document.add(("search", "baselines"), "a fixed list has no baselines; put them into search.fixed")
    for index, settings in enumerate(search.fixed):
        place: Place = ("search", "fixed", index)
        _check_baseline(draft, parameters, settings, place)
        active = [p for p in parameters if p.is_active(settings)]
        missing = [p.path for p in active if p.path not in settings]
        if missing and not draft.broken:
            document.add(place, f"lacks {', '.join(dict.fromkeys(missing))}; a fixed list states every parameter")


def _check_streams(draft: Draft, search: SearchSpec, parameters: Sequence[Parameter]) -> None:
    """Note options that look at all trials together, where they belong to several activation streams."""
    searched = [p.path for p in parameters if p.path in STREAM_PATHS]
    if not searched:
        return
    references = draft.block("evaluation").get("references")
    if references:
        draft.document.add(
            ("evaluation", "references"),
            f"are measured on one activation stream, and space searches {searched[0]}; use `saesweep eval` instead",
        )
    if draft.objective is not None and draft.objective.matched is not None:
        draft.document.add(
            ("objective", "matched"),
            f"compares trials of one activation stream, and space searches {searched[0]}; run one experiment for each",
        )
    incomparable = [path for path in searched if not STREAM_PATHS[path]]
    for option in ("target", "patience"):
        if incomparable and getattr(search, option) is not None:
            draft.document.add(
                ("search", option),
                f"compares all trials, and those of another {incomparable[0]} are on another scale; leave it out",
            )


def _check_stratify(draft: Draft, path: str, parameters: Sequence[Parameter]) -> None:
    place: Place = ("search", "stratify")
    if path == TARGET_L0 and draft.objective is not None and draft.objective.matched is not None:
        draft.document.add(
            place, "is not needed: with objective.matched every target and architecture has its own share"
        )
        return
    if path in STREAM_PATHS:
        draft.document.add(place, f"{path} decides the activation stream, whose trials are in equal shares already")
        return
    if path not in draft.block("space"):
        hint = did_you_mean(path, draft.block("space"))
        draft.document.add(place, f"{path!r} is not in space{hint}")
        return
    for parameter in parameters:
        if parameter.path == path and parameter.spec.kind != "choice":
            draft.document.add(place, f"{path} is a range; only a choice has values to stratify by")
        elif parameter.path == path and parameter.when:
            draft.document.add(place, f"{path} is sampled only under a condition; stratify by one that all trials have")


def _check_baseline(draft: Draft, parameters: Sequence[Parameter], baseline: dict[str, Any], place: Place) -> None:
    document = draft.document
    for path, value in baseline.items():
        where = (*place, path)
        if path in draft.broken:
            continue
        ranges = [p for p in parameters if p.path == path]
        if path == TARGET_L0 and not ranges:
            document.add(where, "needs objective: {matched: {l0: [...]}}", at_key=True)
        elif path not in known_paths() and path != TARGET_L0:
            document.add(where, f"no field of a base run is called {path!r}{known_path_hint(path)}", at_key=True)
        elif not ranges:
            advice = "add it to space" if path in searchable_paths() else "set it under base"
            document.add(where, f"{path} is not in space; {advice}, or leave it out here", at_key=True)
        elif not [p for p in ranges if p.can_be_active(baseline)]:
            given = ", ".join(f"{name} {show(baseline[name])}" for p in ranges for name in p.when if name in baseline)
            document.add(where, f"{path} is not sampled with {given}; leave it out", at_key=True)
        elif not [p for p in ranges if p.can_be_active(baseline) and p.spec.contains(value)]:
            allowed = " or ".join(p.spec.range_text for p in ranges if p.can_be_active(baseline))
            document.add(where, f"{show(value)} is outside the space: {allowed}; take a value of it, or widen it")


def _check_rungs(draft: Draft, search: SearchSpec, run: BaseRun) -> None:
    before = 0
    for index, rung in enumerate(search.rungs):
        steps = run.to_steps(rung)
        place: Place = ("search", "rungs", index)
        if steps < 1:
            message = f"{rung} is less than one step of a run of {run.total_steps} steps"
            draft.document.add(place, message)
        elif steps >= run.total_steps:
            draft.document.add(place, f"{rung} is at or after the end of the run ({run.total_steps} steps)")
        elif steps <= before:
            draft.document.add(place, f"{rung} is at step {steps}, not after the rung before it, at step {before}")
        before = max(before, steps)


def search_warnings(search: SearchSpec, parameters: Sequence[Parameter], run: BaseRun) -> list[str]:
    """Return warnings about searches that waste their budget."""
    found = []
    size = space_size(parameters) if parameters and search.sampler not in ("grid", "fixed") else None
    if size is not None and search.trials is not None and search.trials > size:
        found.append(
            f"search.trials: {search.trials}, but the space has {size} points; each is tried once, so that {size} trials "
            "run (search.replicates trains each with several seeds)"
        )
    steps = rung_steps(search, run)
    for first, second in itertools.pairwise(steps):
        if search.pruner == "rung" and second < _CLOSE_RUNGS * first:
            found.append(
                f"search.rungs: steps {first} and {second} are close; the second measures again what the first did"
            )
    if not parameters and (search.trials or 1) > 1:
        found.append(f"search.trials: {search.trials}, but space is empty; one trial runs")
    strata = {v for p in parameters if p.path == ARCHITECTURE for v in p.spec.choice or ()}
    if search.trials is not None and search.trials < len(strata):
        found.append(f"search.trials: {search.trials} is less than the {len(strata)} architectures; some get no trial")
    return found


def rung_steps(search: SearchSpec, run: BaseRun) -> tuple[int, ...]:
    """Return the steps at which trials are judged, ascending.

    Rungs before the learning rate has warmed up, or before `search.min_rung_steps`, would judge no trial and are left out; in
    short runs, rungs that coincide count once.
    """
    if search.pruner == "none":
        return ()
    first = max(1, search.min_rung_steps, run.to_steps(run.lr_warm_up_steps))
    steps = {run.to_steps(rung) for rung in search.rungs}
    return tuple(sorted(s for s in steps if first <= s < run.total_steps))
