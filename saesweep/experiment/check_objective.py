"""Static checks of `objective`; of `objective.matched`: who sets the sparsity, and whether there is time to steer it."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft
from saesweep.experiment.layers import layered, place_of
from saesweep.experiment.parameters import for_architecture
from saesweep.messages import did_you_mean
from saesweep.space import Parameter
from saesweep.specs import METRICS, BaseRun, Goal, MatchedSpec, ObjectiveSpec, SearchSpec, format_count
from saesweep.specs.architectures import JumpReLUSpec, spec_class
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
    """Return warnings about objectives that lead where nobody means to go."""
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


_MIN_FROZEN = 0.3
_LATEST_WARM_UP = 0.2
"""A coefficient must be at full strength by then, or there is no time to steer it."""
_SETTLED_STEPS = 2500
"""Below this many steps penalty-based architectures have not settled, and their L0 still falls fast at the freeze."""


def check_matched(draft: Draft, parameters: Sequence[Parameter], runs: Sequence[BaseRun]) -> None:
    """Note settings that contradict the targets, and runs that leave no time to reach them."""
    objective, document = draft.objective, draft.document
    if objective is None or objective.matched is None:
        return
    matched, place = objective.matched, ("objective", "matched")
    if objective.is_pareto:
        document.add(place, "needs one metric to compare at each L0: minimize or maximize instead of pareto")
    elif objective.goals[0].metric == "l0":
        document.add(place, "brings every architecture to the same l0, so that l0 cannot be what is compared")
    if "l0" in objective.subject_to:
        document.add(
            ("objective", "subject_to", "l0"), "contradicts objective.matched, which sets the l0 of every trial"
        )
    _check_search(draft)
    for name in draft.architectures:
        if spec_class(name).sparsity_field is None:
            document.add(place, f"{name} has no setting of its sparsity, so it cannot be brought to a target L0")
    _check_taken(draft, parameters)
    if not matched.steer:
        return
    annealed = next((run for run in runs if getattr(run.sae, "p_end", None) is not None), None)
    if annealed is not None:
        name = annealed.sae.architecture
        own = {p.path: p.place for p in for_architecture(parameters, name)}
        document.add(
            own.get("sae.p_end") or place_of("sae.p_end", layered(draft.tree, name, {})),
            "p-annealing adapts l1_coefficient, which objective.matched steers; leave p_end out, or set "
            "objective.matched.steer: false",
        )
    for run in runs:
        if run.total_steps - run.to_steps(matched.freeze) < 1 or run.to_steps(matched.freeze) < round(
            _MIN_FROZEN * run.total_steps
        ):
            document.add(
                (*place, "freeze") if "freeze" in draft.block(*place) else place,
                f"freeze: {matched.freeze} is {run.to_steps(matched.freeze)} of {run.total_steps} steps; "
                f"coefficients must stay as they are for at least the last {_MIN_FROZEN:.0%}, and less than all of it",
            )
            break
    _check_warm_up(draft, runs)


def _check_search(draft: Draft) -> None:
    search = draft.search or SearchSpec()
    for name in ("target", "patience"):
        if getattr(search, name) is not None:
            draft.document.add(
                ("search", name), "needs values that can be compared; with objective.matched each L0 has its own"
            )


def _check_taken(draft: Draft, parameters: Sequence[Parameter]) -> None:
    """Note values that the target takes the place of."""
    noted: set[Place] = set()
    for name in draft.architectures:
        own = {p.path: p for p in for_architecture(parameters, name)}
        taken = {"sae.k"} if spec_class(name).sparsity_field == "k" else set()
        flat = layered(draft.tree, name, {})
        mode = flat.get("sae.jumprelu_sparsity_loss_mode")
        if mode is not None and mode.value == "quadratic":
            taken.add("sae.target_l0")
        for path in taken:
            place = own[path].place if path in own else flat[path].place if path in flat else None
            if place is not None and place not in noted and place not in draft.filled:
                noted.add(place)
                draft.document.add(
                    place,
                    f"objective.matched sets {path[4:]} of {name}: each trial gets a target L0 there; leave it out",
                )


def _check_warm_up(draft: Draft, runs: Sequence[BaseRun]) -> None:
    noted: set[str] = set()
    for run in runs:
        name, field = run.sae.architecture, run.sae.sparsity_field
        if field is None or not field.endswith("_coefficient") or name in noted or _has_quadratic_loss(run):
            continue
        warm_up = f"sae.{field.replace('coefficient', 'warm_up_steps')}"
        steps = run.to_steps(getattr(run.sae, warm_up[4:]))
        if getattr(run.sae, field) <= 0:
            noted.add(name)
            place = place_of(f"sae.{field}", layered(draft.tree, name, {}))
            draft.document.add(place, f"{name}: {field} 0 cannot be steered to a target L0; start above 0")
        if steps > _LATEST_WARM_UP * run.total_steps:
            noted.add(name)
            place = place_of(warm_up, layered(draft.tree, name, {}))
            preset = f"; beside the preset, set {warm_up}: 5%" if place[-1] == "preset" else ""
            draft.document.add(
                place,
                f"{name}: {warm_up[4:]} {show(str(getattr(run.sae, warm_up[4:])))} leaves no time to steer the coefficient "
                f"to a target L0; it must end within {_LATEST_WARM_UP:.0%} of the run{preset}",
            )


def _has_quadratic_loss(run: BaseRun) -> bool:
    return isinstance(run.sae, JumpReLUSpec) and run.sae.jumprelu_sparsity_loss_mode == "quadratic"


def matched_warnings(
    matched: MatchedSpec, search: SearchSpec, n_trials: int, parameters: Sequence[Parameter], runs: Sequence[BaseRun]
) -> list[str]:
    """Return warnings about comparisons at the same L0 that cannot answer what they ask."""
    found = []
    names = dict.fromkeys(run.sae.architecture for run in runs)
    if len(matched.l0) < 3:
        found.append(
            f"objective.matched: {len(matched.l0)} target(s); interpolation on log L0 takes three, so values are compared as "
            "measured, with their misses"
        )
    cells = len(names) * len(matched.l0)
    if n_trials < cells:
        found.append(
            f"search.trials: {n_trials}, but {len(names)} architectures at {len(matched.l0)} targets are {cells}; "
            "some get no trial"
        )
    steered = [run for run in runs if _is_steered(run)] if matched.steer else []
    if steered and min(run.total_steps for run in steered) < _SETTLED_STEPS:
        run = min(steered, key=lambda r: r.total_steps)
        need = format_count(_SETTLED_STEPS * run.train_batch_size_tokens)
        found.append(
            f"objective.matched: {run.total_steps} steps are few for steered coefficients, whose L0 still falls at the end; "
            f"expect to miss targets by more than 5% below {_SETTLED_STEPS} steps (training_tokens: {need})"
        )
    if any(isinstance(r.sae, JumpReLUSpec) and r.sae.jumprelu_sparsity_loss_mode == "step" for r in steered):
        found.append(
            "objective.matched: jumprelu_sparsity_loss_mode: step hardly answers to its coefficient, so that targets may be "
            "missed; tanh does"
        )
    searched = {p.path for p in parameters if p.path in ("sae.l1_coefficient", "sae.l0_coefficient")}
    if searched and steered and search.sampler != "fixed":
        found.append(
            f"space.{sorted(searched)[0]}: objective.matched steers it, so that a trial's value is only where it starts; "
            "put one into by_architecture"
        )
    return found


def _is_steered(run: BaseRun) -> bool:
    field = run.sae.sparsity_field
    return field is not None and field.endswith("_coefficient") and not _has_quadratic_loss(run)
