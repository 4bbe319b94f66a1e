"""What a worker measures after a block and says about each trial; a trial that has finished is exported."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from saesweep.cohort import Slot
from saesweep.costs import Stopwatch
from saesweep.engines.records import ControlReading, Scores, TrialReport
from saesweep.evaluation import needs_language_model
from saesweep.evaluation.overflow import overflow_of
from saesweep.experiment import TrialSettings
from saesweep.specs import METRICS
from saesweep.worker.artifacts import Ending, save_trial_sae
from saesweep.worker.batches import check_held_out
from saesweep.worker.compared import save_by_context
from saesweep.worker.measure import Measured, mean_and_spread, measure_slots, over_replicates
from saesweep.worker.setup import Setup


def report_trials(
    setup: Setup,
    slots: Mapping[int, Sequence[Slot]],
    trials: Mapping[int, TrialSettings],
    *,
    measure: Collection[int],
    metrics: Collection[str],
    required: Collection[str],
    watch: Stopwatch,
) -> dict[int, TrialReport]:
    """Measure what is asked for and what has finished, export what has finished, and report on every trial.

    Args:
        setup: What is open.
        slots: The replicates of each trial in the cohort, by trial number.
        trials: Settings of each trial.
        measure: Trials to measure beside those that have finished.
        metrics: What is decided by.
        required: A trial is not exported where one of these has no finite value.
        watch: Counts the time of measuring and of exports.

    Raises:
        UserError: The held-out activations hold NaN or infinities.
    """
    finite = {number: all(bool(slot.is_finite) for slot in replicates) for number, replicates in slots.items()}
    to_measure = [n for n, replicates in slots.items() if finite[n] and (n in measure or replicates[0].is_done)]
    measured = measure_slots(
        setup.cohort,
        [slot for number in to_measure for slot in slots[number]],
        setup.evaluator,
        with_model={n: slots[n][0].is_done or needs_language_model(metrics) for n in to_measure},
        with_spread={n: slots[n][0].is_done for n in to_measure},
        metrics_needed=metrics,
        compared=None if setup.objective.matched is None else setup.objective.goals[0].metric,
        probes=setup.probes,
        watch=watch,
    )
    scores: dict[int, Scores] = {}
    for number in to_measure:
        count = len(slots[number])
        results, measured = measured[:count], measured[count:]
        scores[number] = _scores(slots[number][0], results)
        if count > 1 and (
            slots[number][0].is_done or any(METRICS[m].needs_replicates for m in metrics if m in METRICS)
        ):
            scores[number] = _with_stability(slots[number][0], results, scores[number], watch)
        if not all(math.isfinite(scores[number].metrics.get(name, math.nan)) for name in required):
            hook = slots[number][0].run.target_hook
            check_held_out(setup.source.select, hook)
            scores[number] = replace(scores[number], cause=_overflow(setup, results, hook))
        elif slots[number][0].is_done:
            with watch.spending("saving"):
                _export(setup, trials[number], slots[number], results, scores[number])
    return {
        number: TrialReport(
            tokens=replicates[0].tokens,
            step=replicates[0].step,
            joined_at_tokens=replicates[0].joined_at_tokens,
            is_finite=finite[number],
            values=_values(replicates),
            readings=tuple(_readings(replicates)),
            scores=scores.get(number),
            frozen=_frozen(replicates) if replicates[0].is_done else (),
        )
        for number, replicates in slots.items()
    }


def _scores(slot: Slot, results: Sequence[Measured]) -> Scores:
    mean, spread = mean_and_spread([result.metrics for result in results])
    return Scores(
        metrics=mean,
        spread=spread,
        replicates=tuple(result.metrics for result in results),
        dead_window_tokens=slot.dead_window_tokens,
        densities=results[0].densities.histogram(),
    )


def _with_stability(slot: Slot, results: Sequence[Measured], scores: Scores, watch: Stopwatch) -> Scores:
    """Add what compares the replicates, unless they are copies: with the same first weights they see the same batches."""
    if slot.run.from_pretrained_path is not None:
        return scores
    with watch.spending("measuring_ends" if slot.is_done else "measuring_rungs"):
        return replace(scores, metrics={**scores.metrics, **over_replicates(results)})


def _overflow(setup: Setup, results: Sequence[Measured], hook: str) -> str:
    """Return why an SAE in half precision has no finite score; nothing where its type is not the reason."""
    causes = (overflow_of(result.sae, setup.source.select, hook) for result in results)
    return next((cause for cause in causes if cause is not None), "")


def _export(
    setup: Setup, trial: TrialSettings, slots: Sequence[Slot], results: Sequence[Measured], scores: Scores
) -> None:
    trial.frozen = list(_frozen(slots))
    ending = Ending(slots[0].tokens, slots[0].joined_at_tokens, scores.spread, scores.dead_window_tokens)
    compared = [result.by_context for result in results if result.by_context is not None]
    if compared:
        save_by_context(setup.directory, trial.number, setup.objective.goals[0].metric, compared)
    for replicate, result in enumerate(results):
        save_trial_sae(setup.directory, setup.experiment, trial, ending, result, replicate)


def _frozen(slots: Sequence[Slot]) -> tuple[float, ...]:
    return tuple(slot.control.coefficient for slot in slots if slot.control is not None)


def _values(slots: Sequence[Slot]) -> dict[str, float]:
    """Return the losses of a trial's replicates over the block, and the schedules at its last step."""
    losses, _ = mean_and_spread([slot.mean_losses() for slot in slots])
    slot = slots[0]
    step = max(0, slot.step - 1)
    knobs = slot.knobs_at(step)
    dead = [int(one.dead_F().sum()) for one in slots]
    return {
        **{f"losses/{name}": value for name, value in losses.items()},
        "details/current_learning_rate": slot.lr.at(step),
        "details/l1_coefficient": knobs.l1_coefficient,
        "details/l0_coefficient": knobs.l0_coefficient,
        **({} if knobs.lp_norm is None else {"details/lp_norm": knobs.lp_norm}),
        "sparsity/dead_features": dead[0] if len(dead) == 1 else sum(dead) / len(dead),
    }


def _readings(slots: Sequence[Slot]) -> list[ControlReading]:
    """Return the controllers' readings of the block: the trajectory of each replicate's coefficient."""
    return [
        ControlReading(
            replicate=replicate,
            tokens=point.step * slot.run.train_batch_size_tokens,
            field=slot.control.plan.field,
            coefficient=point.coefficient,
            l0=point.l0,
        )
        for replicate, slot in enumerate(slots)
        if slot.control is not None
        for point in slot.control.block_points
    ]
