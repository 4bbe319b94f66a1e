"""What an experiment would run: sampled settings, memory, tokens, time. Loads no weights and asks no network."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from saesweep.cohort import ControlPlan
from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.models import resolve_device
from saesweep.runs import RunDirectory
from saesweep.specs import BaseRun, format_count
from saesweep.sweep.confirm import confirm_training_tokens
from saesweep.sweep.corners import largest_run
from saesweep.sweep.search import open_search
from saesweep.sweep.setup import free_bytes
from saesweep.sweep.sizing import plan_blocks, plan_slots
from saesweep.sweep.trials import sparsity_label

_SAMPLES = 5
_GIB = 1 << 30
_SPARSE_PASSES, _DENSE_PASSES = 1, 5
"""Encoder-sized matrix products per step: one forward where only active latents are computed, five where all are."""


@dataclass(frozen=True)
class PlannedTrial:
    """One setting that the sampler would suggest first."""

    number: int
    architecture: str
    sparsity: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment."""

    name: str
    trials: int
    samples: tuple[PlannedTrial, ...]
    hooks: tuple[str, ...]
    device: str
    slots: int
    slots_reason: str
    total_tokens: int
    block_tokens: int
    rungs_tokens: tuple[int, ...]
    slot_bytes: int
    shared_bytes: int
    sae_tokens_full: int
    """SAE-tokens of all trials if none is pruned."""
    sae_tokens_pruned: int
    """An estimate with pruning: one in eta goes on at every rung."""
    confirm_sae_tokens: int
    """SAE-tokens of the confirmation of the finalists; 0 without one."""
    gflops: float
    """Speed of a matrix product measured now on the device, GFLOP/s."""
    sae_seconds: tuple[float, float]
    """Least and most time of the SAEs at that speed, without the language model."""
    matched: str = ""
    """How trials are shared between targets, with `objective.matched`."""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the plan as text."""
        rungs = ", ".join(format_count(t) for t in self.rungs_tokens) or "none"
        low, high = (_duration(s) for s in self.sae_seconds)
        return [
            f"{self.name}: {self.trials} trials of {format_count(self.total_tokens)} tokens, hooks {', '.join(self.hooks)}",
            *([f"  {self.matched}"] if self.matched else []),
            f"  blocks of {format_count(self.block_tokens)} tokens, rungs at {rungs}",
            f"  cohort of {self.slots} on {self.device} ({self.slots_reason})",
            f"  memory: {self.slot_bytes / _GIB:.2f} GiB per SAE + {self.shared_bytes / _GIB:.2f} GiB shared"
            f" = {(self.slots * self.slot_bytes + self.shared_bytes) / _GIB:.2f} GiB, language model not counted",
            f"  SAE-tokens: {format_count(self.sae_tokens_full)} if every trial runs to its end,"
            f" about {format_count(self.sae_tokens_pruned)} with pruning"
            + (f"; {format_count(self.confirm_sae_tokens)} more to confirm" if self.confirm_sae_tokens else ""),
            f"  SAE time: {low} to {high} at {self.gflops:.0f} GFLOP/s measured now, language model not counted",
            "  first settings the sampler would try:",
            *(f"    {s.number}: {s.architecture} {s.sparsity}  {_settings(s.params)}" for s in self.samples),
            *(f"  warning: {warning}" for warning in self.warnings),
        ]


def plan(experiment: Experiment) -> Plan:
    """Return what an experiment would run.

    Raises:
        UserError: `base.sae.d_in` is missing, so that widths are unknown without opening the model.
    """
    runs = [largest_run(experiment, name) for name in experiment.architectures]
    run = runs[0]
    if any(r.sae.d_in is None for r in runs):
        raise UserError("base.sae.d_in: missing; `plan` opens no model, so state the width of the activations")
    runs = [r.model_copy(update={"sae": r.sae.resolve_widths(r.sae.d_in or 0)}) for r in runs]
    device = resolve_device(run.device)
    search = experiment.spec.search
    blocks = plan_blocks(run, search, experiment.spec.cohort)
    hooks = experiment.hook_names()
    slots = plan_slots(
        experiment.spec.cohort,
        n_trials=experiment.n_trials,
        runs=runs,
        hooks=len(hooks),
        weight_bytes=0,
        free_bytes=free_bytes(device),
        replicates=search.replicates,
    )
    gflops = _measure_gflops(device)
    kept, spent, before = 1.0, 0.0, 0
    for rung in blocks.rungs_tokens:
        spent += kept * (rung - before)
        kept, before = kept / search.eta, rung
    spent += kept * (blocks.total_tokens - before)
    n_saes = experiment.n_trials * search.replicates
    confirm_tokens = 0
    if search.confirm is not None:
        stated = experiment.spec.objective
        targets = 1 if stated is None or stated.matched is None else len(stated.matched.l0)
        finalists = min(search.confirm.top * targets, experiment.n_trials)
        confirm_tokens = finalists * search.confirm.replicates * confirm_training_tokens(experiment, search.confirm)
    widest = max((r.sae.d_in or 0) * (r.sae.d_sae or 0) for r in runs)
    seconds = [
        2 * passes * widest * tokens / (gflops * 1e9)
        for passes, tokens in (
            (_SPARSE_PASSES, n_saes * spent + confirm_tokens),
            (_DENSE_PASSES, n_saes * blocks.total_tokens + confirm_tokens),
        )
    ]
    return Plan(
        name=experiment.spec.name,
        trials=experiment.n_trials,
        samples=_samples(experiment, run, slots.slots),
        hooks=hooks,
        device=str(device),
        slots=slots.slots,
        slots_reason=slots.reason,
        total_tokens=blocks.total_tokens,
        block_tokens=blocks.block_steps * blocks.batch_tokens,
        rungs_tokens=blocks.rungs_tokens,
        slot_bytes=slots.slot_bytes,
        shared_bytes=slots.shared_bytes,
        sae_tokens_full=n_saes * blocks.total_tokens,
        sae_tokens_pruned=int(n_saes * spent),
        confirm_sae_tokens=confirm_tokens,
        gflops=gflops,
        sae_seconds=(seconds[0], seconds[1]),
        matched=_matched_text(experiment, runs),
        warnings=experiment.warnings,
    )


def _matched_text(experiment: Experiment, runs: Sequence[BaseRun]) -> str:
    """Return the targets, the trials of each architecture at each, and when coefficients are frozen."""
    matched = None if experiment.spec.objective is None else experiment.spec.objective.matched
    if matched is None:
        return ""
    targets = ", ".join(f"{target:g}" for target in matched.l0)
    least, more = divmod(experiment.n_trials, len(runs) * len(matched.l0))
    share = f"{least} to {least + 1} trials" if more else "1 trial" if least == 1 else f"{least} trials"
    text = f"at L0 {targets}: {share} for each of {len(runs)} architectures"
    plans = [plan for run in runs if (plan := ControlPlan.of(run, matched.l0[0], matched)) is not None]
    if plans:
        frozen = format_count(plans[0].freeze_step * runs[0].train_batch_size_tokens)
        names = [run.sae.architecture for run in runs if ControlPlan.of(run, matched.l0[0], matched) is not None]
        text += f"; the coefficient of {', '.join(names)} is steered there and frozen at {frozen} tokens"
    return text


def _samples(experiment: Experiment, run: BaseRun, n_slots: int) -> tuple[PlannedTrial, ...]:
    """Ask a throw-away study for the first settings: the same ones that the run will try."""
    blocks = plan_blocks(run, experiment.spec.search, experiment.spec.cohort)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        search = open_search(
            experiment,
            RunDirectory(Path(folder)),
            experiment.objective(experiment.reads_language_model()),
            blocks,
            n_slots,
            run.seed,
        )
        asked: Counter[str] = Counter()
        names = list(search.strata)
        with search.study:
            for number in range(min(_SAMPLES, experiment.n_trials)):
                # As the scheduler does: baselines first, then the stratum with the fewest trials.
                given = search.policy.baseline_strata
                name = given[number] if number < len(given) else min(names, key=lambda n: (asked[n], names.index(n)))
                asked[name] += 1
                params = search.study.ask(number, search.strata[name] or None)
                trial = experiment.resolve(params)
                found.append(PlannedTrial(number, trial.sae.architecture, sparsity_label(trial), params))
    return tuple(found)


def _measure_gflops(device: torch.device, seconds: float = 0.3) -> float:
    """Return the speed of fp32 matrix products of an SAE's shape on a device."""
    a, b = torch.randn(1024, 512, device=device), torch.randn(512, 2048, device=device)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        done += 1
    return 2 * 1024 * 512 * 2048 * done / (time.perf_counter() - started) / 1e9


def _settings(params: dict[str, Any]) -> str:
    shown = {k: v for k, v in params.items() if k != "sae.architecture"}
    return ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in shown.items())


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
