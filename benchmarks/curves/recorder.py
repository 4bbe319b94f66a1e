"""Trains the trials of one seed side by side to their end, and measures them all along.

Every trial has a cohort of its own, so that its steps can be timed apart; all cohorts get the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.curves.curves import Curve, CurveSet, Point
from benchmarks.curves.grid import FIELDS, TrialPlan
from saesweep.cohort import Cohort, Slot
from saesweep.experiment import load_experiment, streams_of, with_widths
from saesweep.runs import RunDirectory
from saesweep.saes import Normalizer
from saesweep.specs import ControlPlan, Duration, MatchedSpec
from saesweep.worker.preflight import preflight
from saesweep.worker.setup import LoadedModel, Setup, derive, prepare

# fmt: off
SHARES = (1, 2, 3, 5, 7, 10, 12.5, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100)
# fmt: on
"""When trials are measured, in percent of their steps."""
SHORT_SHARES = (10, 25, 50, 75, 100)
"""The same for complete short runs, which are judged by their ends."""
_AT_ONCE = 32
"""SAEs measured together: they share the language model's passes."""


@dataclass(frozen=True)
class Recording:
    """What to record of a source with one seed."""

    source: str
    seed: int
    tree: dict[str, Any]
    """The experiment file as data: stream, sizes and everything that all trials share."""
    plans: tuple[TrialPlan, ...]
    targets: tuple[float, ...]
    """All L0 that trials of the source are steered to."""
    ce_shares: tuple[float, ...] = SHARES
    """Where in the run delta_ce is measured too, in percent."""


@dataclass
class _Trial:
    """A trial while it trains."""

    plan: TrialPlan
    slot: Slot
    cohort: Cohort
    due: dict[int, float]
    """Step -> share at which it is measured."""
    points: list[Point] = field(default_factory=list)
    changes: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    fired: int = 0
    tokens: int = 0
    failed_at: int | None = None

    def train(self, batch: dict[str, torch.Tensor]) -> None:
        """Train one step; its CPU time is this thread's alone."""
        before = time.thread_time()
        self.cohort.train_step(batch)
        self.seconds += time.thread_time() - before
        control = self.slot.control
        if control is not None and self.slot.step in control.plan.change_steps:
            self.changes.append((self.slot.step, control.coefficient))

    def train_l0(self) -> float:
        """Return the mean L0 of the steps since the last call. The firing window is the whole run."""
        fired, tokens = int(self.slot.firing.counts_2F.sum()), sum(self.slot.firing.tokens)
        mean = (fired - self.fired) / (tokens - self.tokens)
        self.fired, self.tokens = fired, tokens
        return mean

    def coefficient(self) -> float | None:
        """Return the coefficient of the step just made."""
        name = FIELDS[self.plan.architecture]
        return None if name == "k" else float(getattr(self.slot.knobs_at(self.slot.step - 1), name))


def record(recording: Recording, say: Callable[[str], None]) -> CurveSet:
    """Train all trials to their end and return their curves."""
    started, cpu_started = time.monotonic(), time.process_time()
    tree = {**recording.tree, "base": {**recording.tree["base"], "seed": recording.seed}}
    experiment = load_experiment(tree)
    with TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        preflight(experiment)
        (stream,) = streams_of(experiment)
        setup = prepare(experiment, stream, directory, experiment.n_trials, LoadedModel())
        try:
            found = list(_trials(recording, setup))
            costs = _train(recording, setup, found, say)
        finally:
            setup.source.close()
        kernels = directory.choices().get("kernels")
    about = {
        "seed": recording.seed,
        "experiment": tree,
        "trials": len(found),
        **{name: round(value, 1) for name, value in costs.items()},
        "sae_seconds": round(sum(trial.seconds for trial in found), 1),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
        "wall_seconds": round(time.monotonic() - started, 1),
        "kernels": kernels,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    return CurveSet(recording.source, about, tuple(_curve(trial, recording) for trial in found))


def _trials(recording: Recording, setup: Setup) -> Iterator[_Trial]:
    window = setup.source.stream.first_window()
    (hook,) = setup.d_in
    normalizer = Normalizer.fit("expected_average_only_in", (piece[hook] for piece in window), setup.d_in[hook])
    matched = MatchedSpec(l0=recording.targets)
    total = setup.base.training_tokens
    for number, plan in enumerate(recording.plans):
        run = with_widths(setup.experiment.resolve(plan.params(total)), setup.d_in)
        slot = Slot(
            trial=number,
            run=run,
            joined_at_tokens=0,
            init_seed=derive(recording.seed, "init", 0),
            device=setup.device,
            control=None if plan.target_l0 is None else ControlPlan.of(run, plan.target_l0, matched),
        )
        cohort = Cohort(
            1,
            normalizers={(hook, run.sae.normalize_activations): normalizer},
            device=setup.device,
            engine=setup.cohort.engine_for(slot.architecture),
        )
        cohort.place(0, slot)
        cohort.begin_block()
        shares = SHARES if plan.length == 1.0 else SHORT_SHARES
        due = {max(1, round(share / 100 * slot.total_steps)): share for share in shares}
        yield _Trial(plan, slot, cohort, due)


def _train(
    recording: Recording, setup: Setup, trials: Sequence[_Trial], say: Callable[[str], None]
) -> dict[str, float]:
    steps = max(trial.slot.total_steps for trial in trials)
    stream_seconds = measuring_seconds = 0.0
    started = time.monotonic()
    for step in range(1, steps + 1):
        before = time.process_time()
        batch = setup.source.stream.next_batch()
        stream_seconds += time.process_time() - before
        training = [t for t in trials if t.failed_at is None and not t.slot.is_done]
        for trial in training:
            trial.train(batch)
        due = [trial for trial in training if step in trial.due]
        before = time.process_time()
        for share in {trial.due[step] in recording.ce_shares for trial in due}:
            some = [trial for trial in due if (trial.due[step] in recording.ce_shares) == share]
            for first in range(0, len(some), _AT_ONCE):
                _measure(setup, some[first : first + _AT_ONCE], with_model=share)
        measuring_seconds += time.process_time() - before
        if step % max(1, steps // 10) == 0:
            say(f"step {step} of {steps}, {time.monotonic() - started:.0f} s")
    return {"stream_seconds": stream_seconds, "measuring_seconds": measuring_seconds}


def _measure(setup: Setup, trials: Sequence[_Trial], *, with_model: bool) -> None:
    for trial in trials:
        if not bool(trial.slot.is_finite):
            trial.failed_at = trial.slot.step
    alive = [trial for trial in trials if trial.failed_at is None]
    if not alive:
        return
    saes = [trial.cohort.export(trial.slot) for trial in alive]
    results = setup.evaluator.measure(saes, alive[0].slot.run.hook_name, with_model=with_model)
    for trial, metrics in zip(alive, results, strict=True):
        trial.points.append(
            Point(
                step=trial.slot.step,
                tokens=trial.slot.tokens,
                sae_seconds=trial.seconds,
                train_l0=trial.train_l0(),
                coefficient=trial.coefficient(),
                l0=metrics["l0"],
                explained_variance=metrics["explained_variance"],
                mse=metrics["mse"],
                delta_ce=metrics.get("delta_ce"),
                dead_fraction=float(trial.slot.dead_F().double().mean()),
            )
        )


def _curve(trial: _Trial, recording: Recording) -> Curve:
    run, plan = trial.slot.run, trial.plan
    name = FIELDS[plan.architecture]
    warm_up = getattr(run.sae, name.replace("coefficient", "warm_up_steps"), Duration(0))
    assert run.sae.d_in is not None
    assert run.sae.d_sae is not None
    return Curve(
        source=recording.source,
        seed=recording.seed,
        architecture=plan.architecture,
        lr=plan.lr,
        setting=plan.setting,
        setting_field=name,
        loss_mode=getattr(run.sae, "jumprelu_sparsity_loss_mode", None),
        target_l0=plan.target_l0,
        length=plan.length,
        d_in=run.sae.d_in,
        d_sae=run.sae.d_sae,
        total_steps=trial.slot.total_steps,
        batch_tokens=run.train_batch_size_tokens,
        lr_warm_up_steps=run.to_steps(run.lr_warm_up_steps),
        lr_decay_steps=run.to_steps(run.lr_decay_steps),
        coefficient_warm_up_steps=0 if name == "k" else run.to_steps(warm_up),
        changes=tuple(trial.changes),
        failed_at=trial.failed_at,
        points=tuple(trial.points),
    )
