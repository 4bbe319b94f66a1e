"""What is due after a block, and how a worker's report reaches the study, the trial's log and the scheduler."""

from __future__ import annotations

import math
from collections.abc import Mapping

from saesweep.driver.blocks import BlockPlan
from saesweep.driver.fleet import Member
from saesweep.driver.log import TrialLog
from saesweep.driver.matched import trend_points
from saesweep.driver.ranking import costs, natural_values
from saesweep.driver.search import Search
from saesweep.driver.trials import Trial
from saesweep.engines.records import BlockReport, BlockRequest, Scores, TrialReport
from saesweep.messages import short_count
from saesweep.scheduler import BlockDone, State
from saesweep.specs import ObjectiveSpec


class Reports:
    """Says which trials to measure, and turns a worker's report into the scheduler's event.

    Args:
        search: The study and the scheduler's rules.
        objective: What is optimised.
        log: The trials' logs.
        trials: All trials by number; those reported on are updated.
    """

    def __init__(self, search: Search, objective: ObjectiveSpec, log: TrialLog, trials: Mapping[int, Trial]) -> None:
        self._search = search
        self._objective = objective
        self._log = log
        self._trials = trials
        self._aim = search.policy.aim

    def due(self, state: State, block_tokens: int, worker: int) -> tuple[int, ...]:
        """Return the trials to measure after the next block of a worker.

        Args:
            state: The scheduler's, which knows the rungs.
            block_tokens: Tokens of the block.
            worker: Where they train.
        """
        found = []
        for one in state.training_on(worker):
            trial = self._trials[one.number]
            tokens = min(trial.tokens + block_tokens, trial.total_tokens)
            if trial.is_unsure or state.due_rungs(one.number, tokens) or _is_trend_due(trial, tokens):
                found.append(one.number)
        return tuple(found)

    def request(self, state: State, member: Member, blocks: BlockPlan) -> BlockRequest:
        """Return a worker's next block; the commands that wait for it are taken.

        Args:
            state: The scheduler's.
            member: The worker.
            blocks: How long a block is.
        """
        measure = self.due(state, blocks.block_tokens, member.number)
        member.taken = member.todo.taken()
        return BlockRequest(
            number=member.block + 1,
            steps=blocks.block_steps,
            commands=member.taken,
            measure=measure,
            metrics=self._aim.metrics,
            required=tuple(goal.metric for goal in self._objective.goals),
        )

    def record(self, state: State, report: BlockReport, worker: int) -> BlockDone:
        """Take a report in and return the scheduler's event.

        Args:
            state: The scheduler's, which knows the rungs that are due.
            report: The worker's.
            worker: Its number.
        """
        failed: dict[int, str] = {}
        values: dict[int, dict[int, tuple[float, ...]]] = {}
        for number, found in report.trials.items():
            trial = self._trials[number]
            trial.tokens, trial.joined_at_tokens, trial.is_unsure = found.tokens, found.joined_at_tokens, False
            if not found.is_finite:
                failed[number] = f"the training loss was NaN or infinite before {short_count(found.tokens)} tokens"
            elif found.scores is not None:
                due = state.due_rungs(number, found.tokens)
                cost = costs(found.scores.metrics, self._objective)
                if not all(map(math.isfinite, cost)):
                    failed[number] = _undefined(found.scores, self._objective, trial)
                    continue
                natural = natural_values(cost, self._objective)
                if _is_trend_due(trial, found.tokens):
                    trial.trend.append([found.tokens, natural[0]])
                values[number] = dict.fromkeys(due, self._decided_by(found.scores))
                self._take(trial, found, found.scores)
                for rung in due:
                    if rung < self._search.policy.end_rung:  # the end is no rung: `Study.tell` has its values
                        tokens = self._search.policy.rungs_tokens[rung]
                        self._search.study.report(number, tokens, natural)
                        trial.rungs.append((tokens, list(natural)))
        for number, found in report.trials.items():
            self._log.steered(number, found.readings)
            self._log.trained(number, found)
        return BlockDone(
            tokens_seen={number: found.tokens for number, found in report.trials.items()},
            values=values,
            failed=failed,
            worker=worker,
        )

    def _decided_by(self, scores: Scores) -> tuple[float, ...]:
        return tuple(scores.metrics.get(metric, math.nan) for metric in self._aim.metrics)

    def _take(self, trial: Trial, report: TrialReport, scores: Scores) -> None:
        trial.metrics, trial.spread, trial.measured_at_tokens = dict(scores.metrics), dict(scores.spread), report.tokens
        trial.dead_window_tokens = scores.dead_window_tokens
        if report.frozen:
            trial.frozen = list(report.frozen)
        self._log.measured(trial.number, report.tokens, scores)


def _undefined(scores: Scores, objective: ObjectiveSpec, trial: Trial) -> str:
    """Return why a trial whose objective has no value fails; it alone does."""
    values = {goal.metric: scores.metrics.get(goal.metric, math.nan) for goal in objective.goals}
    names = [name for name, value in values.items() if not math.isfinite(value)]
    why = ""
    if scores.cause:
        why = f": {scores.cause}"
    elif {"ce_loss_score", "kl_div_score"}.intersection(names):
        why = f": zeros in place of the activations of {trial.run.target_hook} do not change the model's predictions"
    elif "explained_variance" in names:
        why = f": the activations of {trial.run.target_hook} do not vary"
    return f"the objective's {' and '.join(names)} was NaN or infinite at {short_count(trial.tokens)} tokens{why}"


def _is_trend_due(trial: Trial, tokens: int) -> bool:
    """Return whether to measure a trial at these tokens, to say later whether it was still improving."""
    if trial.target_l0 is None or len(trial.trend) == 2:
        return False
    return tokens >= trend_points(trial.run)[len(trial.trend)]
