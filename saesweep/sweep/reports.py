"""What is measured after a block, and who is told: the study, the trial's log and the scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from saesweep.cohort import Cohort, Slot
from saesweep.evaluation import needs_language_model
from saesweep.numbers import short_count
from saesweep.scheduler import BlockDone, State
from saesweep.specs import ObjectiveSpec
from saesweep.sweep.artifacts import save_trial_sae
from saesweep.sweep.batches import check_held_out
from saesweep.sweep.matched import trend_points
from saesweep.sweep.measure import Measured, mean_and_spread, measure_slots
from saesweep.sweep.ranking import costs, natural_values
from saesweep.sweep.search import Search
from saesweep.sweep.setup import Setup
from saesweep.sweep.trial_log import TrialLog
from saesweep.sweep.trials import Trial


class Reports:
    """Measures the trials that reached a rung or their end, and turns a block into the scheduler's event.

    Args:
        setup: What was opened and decided.
        search: The study and the scheduler's rules.
        log: The trials' logs.
        trials: All trials by number; those measured are updated.
        replicates: Seeds that each trial trains with.
    """

    def __init__(
        self, setup: Setup, search: Search, log: TrialLog, trials: Mapping[int, Trial], *, replicates: int
    ) -> None:
        self._setup = setup
        self._search = search
        self._log = log
        self._trials = trials
        self._replicates = replicates
        self._objective = setup.objective
        self._aim = search.policy.aim
        self._rungs_need_model = needs_language_model(self._aim.metrics)

    def of_block(
        self,
        state: State,
        cohort: Cohort,
        slots: Mapping[int, list[Slot]],
        losses: Mapping[int, dict[str, float]],
    ) -> BlockDone:
        """Measure what is due and return the scheduler's event.

        Args:
            state: The scheduler's, which knows the rungs that are due.
            cohort: Where the slots are.
            slots: The replicates of each trial in it.
            losses: The block's mean losses of each trial.
        """
        failed: dict[int, str] = {}
        due: dict[int, tuple[int, ...]] = {}
        for number, mine in slots.items():
            if not all(bool(slot.is_finite) for slot in mine):
                failed[number] = f"the training loss was NaN or infinite before {short_count(mine[0].tokens)} tokens"
            else:
                due[number] = state.due_rungs(number, mine[0].tokens)
        wanted = [n for n in due if due[n] or slots[n][0].is_done or _trend_due(self._trials[n])]
        measured = measure_slots(
            cohort,
            [slot for number in wanted for slot in slots[number]],
            self._setup.evaluator,
            with_model={n: slots[n][0].is_done or self._rungs_need_model for n in wanted},
            with_spread={n: slots[n][0].is_done for n in wanted},
        )
        values: dict[int, dict[int, tuple[float, ...]]] = {}
        for index, number in enumerate(wanted):
            slot, results = slots[number][0], measured[index * self._replicates : (index + 1) * self._replicates]
            mean, spread = mean_and_spread([result.metrics for result in results])
            cost = costs(mean, self._objective)
            if any(c - c != 0 for c in cost):  # NaN or infinite
                check_held_out(self._setup.source.select, slot.run.hook_name)
                failed[number] = _undefined(mean, self._objective, slot)
                continue
            found = natural_values(cost, self._objective)
            reported = tuple(mean.get(metric, math.nan) for metric in self._aim.metrics)
            if _trend_due(self._trials[number]):
                self._trials[number].trend.append([slot.tokens, found[0]])
            values[number] = {rung: reported for rung in due[number]}
            self._record(slots[number], results, mean, spread)
            for rung in due[number]:
                if rung < self._search.policy.end_rung:  # what the end is worth is told, not reported
                    tokens = self._search.policy.rungs_tokens[rung]
                    self._search.study.report(number, tokens, found)
                    self._trials[number].rungs.append((tokens, list(found)))
        for number, mine in slots.items():
            self._log.steered(mine)
            self._log.trained(mine, losses[number])
        return BlockDone(tokens_seen={n: mine[0].tokens for n, mine in slots.items()}, values=values, failed=failed)

    def _record(
        self, slots: Sequence[Slot], results: Sequence[Measured], mean: dict[str, float], spread: dict[str, float]
    ) -> None:
        slot, controls = slots[0], [one.control for one in slots if one.control is not None]
        trial = self._trials[slot.trial]
        trial.metrics, trial.spread, trial.measured_at_tokens = mean, spread, slot.tokens
        trial.dead_window_tokens = slot.dead_window_tokens
        if slot.is_done:
            trial.frozen = [control.coefficient for control in controls]
            for replicate, result in enumerate(results):
                save_trial_sae(self._setup.directory, self._setup.experiment, trial, result, replicate)
        self._log.measured(slot, results, mean)


def _undefined(metrics: Mapping[str, float], objective: ObjectiveSpec, slot: Slot) -> str:
    """Return why a trial whose objective has no value fails; it alone does, and the others go on."""
    values = {goal.metric: metrics.get(goal.metric, math.nan) for goal in objective.goals}
    names = [name for name, value in values.items() if not math.isfinite(value)]
    why = ""
    if {"ce_loss_score", "kl_div_score"}.intersection(names):
        why = f": zeros in place of the activations of {slot.run.hook_name} do not change the model's predictions"
    return f"the objective's {' and '.join(names)} was NaN or infinite at {short_count(slot.tokens)} tokens{why}"


def _trend_due(trial: Trial) -> bool:
    """Return whether to measure a trial now to tell later whether it was still improving."""
    if trial.target_l0 is None or len(trial.trend) == 2:
        return False
    return trial.tokens >= trend_points(trial.run)[len(trial.trend)]
