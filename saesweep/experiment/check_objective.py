"""Static checks of `objective`, and of `evaluation.probes`, which measures some of its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from pydantic import ValidationError

from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft
from saesweep.messages import did_you_mean
from saesweep.specs import METRICS, BaseRun, Goal, ObjectiveSpec, ProbesSpec
from saesweep.specs.synthetic import SYNTHETIC


def check_objective(draft: Draft, runs: Sequence[BaseRun]) -> None:
    """Note unknown metrics, goals that are none or two, empty bounds, metrics that the source cannot give.

    Args:
        draft: The experiment as far as it is read.
        runs: The runs at the edges of its space.
    """
    objective, document = draft.objective, draft.document
    if objective is None:
        return
    written = draft.block("objective")  # a goal that is wrong is a goal all the same
    given = [name for name in ("minimize", "maximize", "pareto") if written.get(name) is not None]
    if len(given) != 1:
        what = "none of them" if not given else " and ".join(given)
        document.add(("objective",), f"needs exactly one of minimize, maximize, pareto; has {what}")
    if objective.minimize is not None:
        _check_metric(draft, runs, objective.minimize, ("objective", "minimize"))
    if objective.maximize is not None:
        _check_metric(draft, runs, objective.maximize, ("objective", "maximize"))
    for index, goal in enumerate(objective.pareto):
        _check_goal(draft, runs, goal, ("objective", "pareto", index))
    if given == ["pareto"] and "pareto" in objective.model_fields_set and len(objective.pareto) < 2:
        document.add(("objective", "pareto"), f"has {len(objective.pareto)} goal(s); a front needs two or more")
    metrics = [goal.metric for goal in objective.pareto]
    for index, metric in enumerate(metrics):
        if metric in metrics[:index]:
            document.add(("objective", "pareto", index), f"{metric} is a goal already")
    for metric, bound in objective.subject_to.items():
        place: Place = ("objective", "subject_to", metric)
        _check_metric(draft, runs, metric, place, at_key=True)
        if bound.min is None and bound.max is None:
            document.add(place, "has no limit; give min, max or both")
        elif bound.min is not None and bound.max is not None and bound.min > bound.max:
            document.add(place, f"min {show(bound.min)} is above max {show(bound.max)}: no trial can meet it")


def _check_goal(draft: Draft, runs: Sequence[BaseRun], goal: Goal, place: Place) -> None:
    if (goal.minimize is None) == (goal.maximize is None):
        draft.document.add(place, "takes one metric: {minimize: NAME} or {maximize: NAME}")
        return
    _check_metric(draft, runs, goal.metric, (*place, "minimize" if goal.minimize is not None else "maximize"))


def _check_metric(draft: Draft, runs: Sequence[BaseRun], name: str, place: Place, *, at_key: bool = False) -> None:
    if name not in METRICS:
        hint = did_you_mean(name, METRICS) or f"; known: {', '.join(METRICS)}"
        draft.document.add(place, f"unknown metric {name!r}{hint}", at_key=at_key)
    elif METRICS[name].needs_lm_head and draft.block("base").get("dataset_path") == SYNTHETIC:
        draft.document.add(
            place,
            f"{name} needs a language model, and {SYNTHETIC} has none; use explained_variance or mse",
            at_key=at_key,
        )
    elif METRICS[name].needs_true_features and draft.block("base").get("dataset_path") != SYNTHETIC:
        draft.document.add(
            place,
            f"{name} compares with true features, which only dataset_path: {SYNTHETIC} has; use explained_variance or mse",
            at_key=at_key,
        )
    elif METRICS[name].needs_replicates and (why := _no_seeds(draft)):
        draft.document.add(place, f"{name} compares the seeds of a trial, {why}", at_key=at_key)
    elif METRICS[name].needs_probes and not draft.block("evaluation", "probes"):
        message = (
            f"{name} is measured on labelled texts; name some under evaluation.probes, or use explained_variance or mse"
        )
        draft.document.add(place, message, at_key=at_key)
    elif METRICS[name].needs_next_token:
        last_only = next((run for run in runs if not run.has_next_tokens), None)
        if last_only is not None:
            draft.document.add(
                place,
                f"{name} compares with next tokens, and base.seqpos_slice {list(last_only.seqpos_slice)} selects the last "
                "position alone, which has none; use kl_div or explained_variance, or select more positions",
                at_key=at_key,
            )


def _no_seeds(draft: Draft) -> str:
    """Return why replicates of a trial do not differ by their seeds; empty where they do."""
    replicates = draft.block("search").get("replicates", 1)
    if isinstance(replicates, int) and replicates < 2:
        return f"and search.replicates is {replicates}; set it to 2 or more, or use explained_variance or mse"
    if draft.block("base").get("from_pretrained_path") is not None:
        return (
            "and with base.from_pretrained_path all of them begin with the same weights; leave it out, or use "
            "explained_variance or mse"
        )
    return ""


def objective_warnings(objective: ObjectiveSpec | None, searches_sparsity: bool) -> list[str]:
    """Return warnings about objectives that hardly mean what they say."""
    if objective is None:
        return []
    found = []
    for goal in objective.goals:
        better = METRICS[goal.metric].better
        if goal.direction != better:
            found.append(f"objective: {goal.direction} {goal.metric} looks reversed; more usual is {better}")
    only = objective.goals[0].metric
    if objective.matched is not None:
        return found
    if not objective.is_pareto and searches_sparsity and only != "l0" and "l0" not in objective.subject_to:
        found.append(
            f"objective: {only} alone, with sparsity searched and no limit on l0, drifts to the densest SAE; "
            "add subject_to: {l0: {max: ...}}, or use pareto"
        )
    return found


PROBES: Place = ("evaluation", "probes")
NO_SKLEARN = "takes scikit-learn, which is not installed; pip install 'saesweep[probes]', or leave probes out"


def has_sklearn() -> bool:
    """Return whether scikit-learn is installed, without importing it."""
    try:
        return find_spec("sklearn") is not None
    except ValueError:  # it is among the loaded modules, and blocked there
        return False


def check_probes(draft: Draft, runs: Sequence[BaseRun]) -> None:
    """Note a source without text, fields that exclude each other, and more latents than SAEs have.

    Args:
        draft: The experiment as far as it is read.
        runs: The runs at the edges of its space.
    """
    written = draft.block("evaluation", "probes")
    if not written:
        return
    try:
        probes = ProbesSpec.model_validate(written)
    except ValidationError:  # noted where its fields are read
        return
    if draft.block("base").get("dataset_path") == SYNTHETIC:
        message = f"reads texts through a language model, and {SYNTHETIC} has none; leave it out"
        draft.document.add(PROBES, message)
    if probes.main_k not in probes.ks:
        draft.document.add((*PROBES, "k"), f"{probes.k} is none of ks ({', '.join(map(str, probes.ks))}); add it there")
    for index, task in enumerate(probes.tasks):
        if task.test_split is not None and task.test_fraction is not None:
            message = "is given beside test_split, which probes are tested on as a whole; leave one of them out"
            draft.document.add((*PROBES, "tasks", index, "test_fraction"), message)
    narrowest = min((run.sae.d_sae for run in runs if run.sae.d_sae is not None), default=None)
    if narrowest is not None and probes.ks[-1] > narrowest:
        place: Place = (*PROBES, "ks") if "ks" in written else PROBES
        draft.document.add(
            place, f"probes take up to {probes.ks[-1]} latents, and an SAE of this space has {narrowest}"
        )
