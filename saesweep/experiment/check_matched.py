"""Static checks of `objective.matched`: who sets the sparsity, and whether there is time to steer it."""

from __future__ import annotations

from collections.abc import Sequence

from saesweep.experiment.document import Place, show
from saesweep.experiment.draft import Draft
from saesweep.experiment.parameters import for_architecture, layered, place_of
from saesweep.space import Parameter
from saesweep.specs import BaseRun, MatchedSpec, SearchSpec, format_count
from saesweep.specs.architectures import JumpReLUSpec, spec_class

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
