"""What the sweep knows of each trial, and its row on the leaderboard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from saesweep.events import Row, TrialStarted
from saesweep.experiment import TrialSettings, control_plan
from saesweep.forecast import Course
from saesweep.runs import RunDirectory, write_json
from saesweep.scheduler import Ask, Policy, Suggested
from saesweep.specs import BaseRun, ObjectiveSpec
from saesweep.status import TrialStatus, is_live


@dataclass(kw_only=True)
class Trial(TrialSettings):
    """One trial: its settings and what has been measured. The scheduler holds its status; this is for people."""

    is_baseline: bool = False
    status: TrialStatus = "waiting"
    slot: int | None = None
    tokens: int = 0
    joined_at_tokens: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    measured_at_tokens: int | None = None
    dead_window_tokens: int | None = None
    reason: str = ""
    spread: dict[str, float] = field(default_factory=dict)
    """Standard deviation of each metric over the replicates; empty where there is one."""
    trend: list[list[float]] = field(default_factory=list)
    """(tokens, goal) at both ends of the stretch that tells whether it is still improving."""
    expected: dict[str, float] = field(default_factory=dict)
    """The metrics that a pruned trial was expected to end with."""
    rungs: list[tuple[int, list[float]]] = field(default_factory=list)
    """What was reported to the study: (training tokens, objective values in their own directions)."""
    retry_of: int | None = None
    """The first trial with its settings, which failed; None for a trial that repeats none."""
    stream: str = ""
    """Label of its activation stream; empty where all trials share one."""
    worker: int = 0
    """Where it trains, or has trained last."""
    source: str | None = None
    """Folder of the worker whose last checkpoint holds it, since it has gone back to that one."""
    is_unsure: bool = False
    """It has gone back, and what it has trained on since is not known yet."""
    moves: list[dict[str, int]] = field(default_factory=list)
    """Where it resumed after its worker was lost: the `worker`, its own `tokens` and the new `stream_tokens`."""

    def go_back(self, tokens: int | None, folder: str) -> None:
        """Be what a checkpoint of its worker holds; what was measured and reported stays.

        Args:
            tokens: That it had trained on then; None where the checkpoint does not hold it.
            folder: The worker's.
        """
        self.is_unsure = True
        if tokens is not None:
            self.tokens, self.source = tokens, folder
        elif self.source is not None and self.source != folder and self.moves:  # it has not reached a checkpoint there
            self.tokens = self.moves[-1]["tokens"]
        else:
            self.tokens, self.source, self.joined_at_tokens = 0, None, None

    def state(self) -> dict[str, Any]:
        """Return the JSON part of a checkpoint: settings and results, which the study must hold as well."""
        names = ("status", "slot", "tokens", "joined_at_tokens", "metrics", "measured_at_tokens", "dead_window_tokens")
        data = {"number": self.number, "reason": self.reason, **{name: getattr(self, name) for name in names}}
        # Which trials of an earlier stream were baselines, their numbers do not tell.
        data |= {"spread": self.spread, "is_baseline": self.is_baseline, "stream": self.stream}
        data |= {"retry_of": self.retry_of, "frozen": self.frozen, "trend": self.trend, "expected": self.expected}
        if self.source is not None or self.is_unsure or self.moves:
            data |= {"source": self.source, "is_unsure": self.is_unsure, "moves": self.moves}
        return {**data, "params": self.params, "rungs": self.rungs}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        for name, value in state.items():
            if name != "params":  # the study gives them as the space has them, JSON as lists
                setattr(self, name, value)
        self.metrics = {name: math.nan if value is None else value for name, value in state["metrics"].items()}

    @property
    def is_live(self) -> bool:
        """Whether it has not ended."""
        return is_live(self.status)

    @property
    def sparsity(self) -> str:
        """The sparsity setting as text: `k 32`, `λ 2.5`, `λ 0.3 tanh`; of a steered one what it ended with, or L0."""
        if self.control is not None and not self.frozen:
            return f"steered to L0 {self.target_l0:g}"
        return sparsity_label(self.exported_run(0))


def new_trial(
    number: int,
    params: dict[str, Any],
    run: BaseRun,
    *,
    objective: ObjectiveSpec,
    target_l0: float | None = None,
    is_baseline: bool = False,
    replicates: int = 1,
    stream: str = "",
) -> Trial:
    """Return a trial that has not begun; with a target L0 it says how it is steered there, if it is."""
    return Trial(
        number=number,
        params=params,
        run=run,
        is_baseline=is_baseline,
        replicates=replicates,
        stream=stream,
        target_l0=target_l0,
        control=control_plan(run, target_l0, objective),
    )


def sparsity_label(run: BaseRun) -> str:
    """Return a run's sparsity setting as text: `k 32`; `λ 2.5` and `λ 0.3 tanh` for the weight of a penalty.

    A coefficient is never named after what it penalises: `l0 0.3` beside a column of L0 reads as a target.
    """
    field_name = run.sae.sparsity_field
    if field_name is None:
        return ""
    name = "λ" if field_name.endswith("_coefficient") else field_name
    label = f"{name} {getattr(run.sae, field_name):.3g}"
    mode = getattr(run.sae, "jumprelu_sparsity_loss_mode", None)
    return f"{label} {mode}" if mode else label


def started(trial: Trial, slot: int) -> TrialStarted:
    """Return the event of a trial that has just been placed in a slot of its worker."""
    return TrialStarted(
        number=trial.number,
        slot=slot,
        architecture=trial.run.sae.architecture,
        sparsity=trial.sparsity,
        params=trial.params,
        joined_at_tokens=trial.joined_at_tokens or 0,
        worker=trial.worker,
    )


def row_of(trial: Trial) -> Row:
    """Return a trial's row, not ranked yet."""
    return Row(
        number=trial.number,
        architecture=trial.run.sae.architecture,
        sparsity=trial.sparsity,
        target_l0=trial.target_l0,
        coefficient=trial.coefficient,
        trend=[list(point) for point in trial.trend],
        params=trial.params,
        lr=trial.run.lr,
        hook=trial.run.target_hook,
        status=trial.status,
        tokens=trial.tokens,
        total_tokens=trial.total_tokens,
        joined_at_tokens=trial.joined_at_tokens,
        slot=trial.slot,
        is_baseline=trial.is_baseline,
        metrics=dict(trial.metrics),
        measured_at_tokens=trial.measured_at_tokens,
        dead_window_tokens=trial.dead_window_tokens,
        reason=trial.reason,
        replicates=trial.replicates,
        spread=dict(trial.spread),
        stream=trial.stream,
        retry_of=trial.retry_of,
    )


def save_trial_record(directory: RunDirectory, trial: Trial) -> None:
    """Write `trials/NNNN/trial.json`: settings and result."""
    write_json(
        directory.trial(trial.number) / "trial.json",
        {
            **trial.state(),
            "slot": None,
            "params": trial.params,
            "architecture": trial.run.sae.architecture,
            "target_l0": trial.target_l0,
            "coefficient": trial.coefficient,
        },
    )


def answer(ask: Ask, trial: Trial, policy: Policy) -> Suggested:
    """Return what the scheduler needs to know of the trial that answers an ask."""
    place = f"{trial.stream} / " if trial.stream else ""  # rivals and quotas are of one stream
    scope = place + trial.run.target_hook
    return Suggested(
        number=ask.number,
        stratum=ask.stratum,
        retry_of=ask.retry_of,
        group=scope if trial.target_l0 is None else f"{scope} / L0 {trial.target_l0:g}",
        architecture=place + trial.run.sae.architecture,
        course=Course.of(
            trial.run,
            [tokens // trial.run.train_batch_size_tokens for tokens in policy.stops_tokens],
            target_l0=trial.target_l0,
            steered=trial.control is not None,
            scope=scope,
        ),
    )
