"""What an experiment would run: sampled settings, memory, tokens, time. Loads no weights and asks no network, unless told to."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from saesweep.cohort import ControlPlan
from saesweep.errors import UserError
from saesweep.experiment import Experiment, Stream, are_comparable, streams_of
from saesweep.models import resolve_device
from saesweep.runs import RunDirectory
from saesweep.scheduler import Policy
from saesweep.specs import BaseRun, ObjectiveSpec, SearchSpec, format_count
from saesweep.sweep.calibrate import calibrate
from saesweep.sweep.confirm import confirm_training_tokens
from saesweep.sweep.corners import largest_run
from saesweep.sweep.estimate import Work, seconds_of
from saesweep.sweep.loaded_model import LoadedModel
from saesweep.sweep.measuring_memory import measuring_bytes
from saesweep.sweep.planned import Calibration, Plan, PlannedStream, PlannedTrial, Seconds, shared_loads
from saesweep.sweep.search import open_search
from saesweep.sweep.segments import Segment, Segments, shares
from saesweep.sweep.setup import check, free_bytes
from saesweep.sweep.simulate import simulate
from saesweep.sweep.sizing import BlockPlan, SlotPlan, first_peers, plan_blocks, plan_slots
from saesweep.sweep.trials import sparsity_label

_SAMPLES = 5
_SPARSE_PASSES, _DENSE_PASSES = 1, 5
"""Encoder-sized matrix products per step: one forward where only active latents are computed, five where all are."""


@dataclass(frozen=True)
class _Part:
    """What is known of one stream."""

    stream: Stream
    trials: int
    runs: list[BaseRun]
    blocks: BlockPlan
    slots: SlotPlan

    @property
    def widest(self) -> int:
        """Weights of the widest encoder."""
        return max((r.sae.d_in or 0) * (r.sae.d_sae or 0) for r in self.runs)

    @property
    def planned(self) -> PlannedStream:
        """For people."""
        return PlannedStream(
            label=self.stream.label,
            model_name=self.runs[0].model_name if self.stream.experiment.reads_language_model() else None,
            trials=self.trials,
            hooks=self.stream.experiment.hook_names(),
            slots=self.slots.slots,
            slots_reason=self.slots.reason,
            total_tokens=self.blocks.total_tokens,
            block_tokens=self.blocks.block_steps * self.blocks.batch_tokens,
            rungs_tokens=self.blocks.rungs_tokens,
            slot_bytes=self.slots.slot_bytes,
            shared_bytes=self.slots.shared_bytes,
            measuring_bytes=self.slots.measuring_bytes,
        )

    def work(self, search: SearchSpec, objective: ObjectiveSpec, *, prunes: bool) -> Work:
        """Return what the stream's trials do."""
        if self.trials == 0:
            return Work(0, 0, 0, 0)
        names = tuple(run.sae.architecture for run in self.runs)
        policy = Policy(
            n_trials=self.trials,
            n_slots=max(1, self.slots.slots // search.replicates),
            total_tokens=self.blocks.total_tokens,
            rungs_tokens=self.blocks.rungs_tokens,
            eta=search.eta,
            quota=search.min_per_architecture,
            strata=names if search.stratify == "sae.architecture" else ("all",),
            pruner=search.pruner if prunes else "none",
            min_peers=search.least_peers,
        )
        corners = [self.stream.experiment.corner_runs(name) for name in names]
        block_tokens = self.blocks.block_steps * self.blocks.batch_tokens
        return simulate(policy, corners, objective, block_tokens=block_tokens).times(search.replicates)


def plan(experiment: Experiment, *, with_calibration: bool = False) -> Plan:
    """Return what an experiment would run.

    Args:
        experiment: The experiment.
        with_calibration: Load the model and time a few seconds of each stream, so that the plan can say how long the
            search takes, the language model included.

    Raises:
        UserError: `base.sae.d_in` is missing, so that widths are unknown without opening the model; or, to calibrate,
            the model or the data cannot be had.
    """
    search, streams = experiment.spec.search, streams_of(experiment)
    device = resolve_device(experiment.base_run().device)
    counts = shares(experiment.n_trials, [stream.most_trials for stream in streams])
    if not streams[0].label:
        counts = [experiment.n_trials]
    calibrations, widths = _calibrate(experiment) if with_calibration else ((), {})
    parts = [
        _part(experiment, stream, count, widths.get(stream.label, {}), device)
        for stream, count in zip(streams, counts, strict=True)
    ]
    first = parts[0].planned
    objective = experiment.objective(experiment.reads_language_model())
    full = [part.work(search, objective, prunes=False) for part in parts]
    pruned = [part.work(search, objective, prunes=True) for part in parts]
    confirm = _confirm_work(experiment)
    gflops = _measure_gflops(device)
    low, high = (
        sum(
            2 * passes * part.widest * (work.sae_tokens + confirm.sae_tokens / len(parts)) / (gflops * 1e9)
            for part, work in zip(parts, works, strict=True)
        )
        for passes, works in ((_SPARSE_PASSES, pruned), (_DENSE_PASSES, full))
    )
    return Plan(
        name=experiment.spec.name,
        trials=experiment.n_trials,
        samples=_samples(experiment, parts[0]),
        streams=tuple(part.planned for part in parts),
        model_loads=shared_loads([part.planned.model_name for part in parts]),
        hooks=first.hooks,
        device=str(device),
        slots=first.slots,
        slots_reason=first.slots_reason,
        total_tokens=first.total_tokens,
        block_tokens=first.block_tokens,
        rungs_tokens=first.rungs_tokens,
        slot_bytes=first.slot_bytes,
        shared_bytes=first.shared_bytes,
        measuring_bytes=first.measuring_bytes,
        sae_tokens_full=round(sum(work.sae_tokens for work in full)),
        sae_tokens_pruned=int(sum(work.sae_tokens for work in pruned)),
        confirm_sae_tokens=round(confirm.sae_tokens),
        gflops=gflops,
        sae_seconds=(low, high),
        matched=_matched_text(experiment, parts[0].runs),
        calibrations=calibrations,
        seconds_full=_seconds(experiment, parts, full, confirm, calibrations),
        seconds_pruned=_seconds(experiment, parts, pruned, confirm, calibrations),
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


def _part(experiment: Experiment, stream: Stream, trials: int, widths: dict[str, int], device: torch.device) -> _Part:
    runs = [largest_run(stream.experiment, name) for name in experiment.architectures]
    if not widths and any(run.sae.d_in is None for run in runs):
        raise UserError(
            "base.sae.d_in: missing; `plan` opens no model, so state the width of the activations, or use --calibrate"
        )
    runs = [run.model_copy(update={"sae": run.sae.resolve_widths(_width(run, widths))}) for run in runs]
    search, cohort = experiment.spec.search, experiment.spec.cohort
    hooks = len(stream.experiment.hook_names())
    evaluation = experiment.spec.evaluation
    slots = plan_slots(
        cohort,
        n_trials=max(1, trials),
        runs=runs,
        hooks=hooks,
        weight_bytes=0,
        free_bytes=free_bytes(device),
        replicates=search.replicates,
        peers=first_peers(search, experiment.spec.objective),
        measuring_bytes=max(measuring_bytes(run, evaluation, hooks, device) for run in runs),
    )
    return _Part(stream, trials, runs, plan_blocks(runs[0], search, cohort), slots)


def _width(run: BaseRun, widths: dict[str, int]) -> int:
    return widths[run.hook_name] if widths else run.sae.d_in or 0


def _calibrate(experiment: Experiment) -> tuple[tuple[Calibration, ...], dict[str, dict[str, int]]]:
    """Time every stream, streams of one model with one load of it."""
    streams, loaded = streams_of(experiment), LoadedModel()
    facts = check(experiment)
    found, widths = [], {}
    for index, stream in enumerate(streams):
        segment = None
        if stream.label:
            segment = Segment(
                index=index, stream=stream, first_trial=0, n_trials=1, given=(), tokens_budget=None, stratum={}
            )
        measured, widths[stream.label] = calibrate(experiment, facts, segment, loaded)
        found.append(measured)
    return tuple(found), widths


def _confirm_work(experiment: Experiment) -> Work:
    search, streams = experiment.spec.search, streams_of(experiment)
    if search.confirm is None:
        return Work(0, 0, 0, 0)
    groups = 1 if are_comparable(streams) else len(streams)
    stated = experiment.spec.objective
    if stated is not None and stated.matched is not None:
        groups *= len(stated.matched.l0)
    saes = min(groups * search.confirm.top, experiment.n_trials) * search.confirm.replicates
    tokens = confirm_training_tokens(experiment, search.confirm)
    return Work(saes * tokens, 0, saes, groups * tokens)  # side by side


def _seconds(
    experiment: Experiment, parts: list[_Part], works: list[Work], confirm: Work, found: tuple[Calibration, ...]
) -> Seconds | None:
    """Return where the time goes; None without a calibration."""
    if not found:
        return None
    total = Seconds(0, 0, 0, 0)
    for work, calibration in zip(works, found, strict=True):
        total += seconds_of(experiment, work, calibration)
        if confirm.sae_tokens:
            n = len(parts)
            share = Work(confirm.sae_tokens / n, 0, confirm.at_end / n, confirm.streamed_tokens / n)
            total += seconds_of(experiment, share, calibration)
    return total


def _samples(experiment: Experiment, part: _Part) -> tuple[PlannedTrial, ...]:
    """Ask a throw-away study for the first settings: the same ones that the run will try."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        segment = None
        if part.stream.label:
            segment = Segments(experiment, streams_of(experiment), directory).segment(0, 0, {})
        search = open_search(
            experiment,
            directory,
            experiment.objective(experiment.reads_language_model()),
            part.blocks,
            part.slots.slots,
            experiment.base_run().seed,
            segment,
        )
        asked: Counter[str] = Counter()
        names = list(search.strata)
        with search.study:
            for number in range(min(_SAMPLES, part.trials)):
                # As the scheduler does: baselines first, then the stratum with the fewest trials.
                given = search.policy.baseline_strata
                name = given[number] if number < len(given) else min(names, key=lambda n: (asked[n], names.index(n)))
                asked[name] += 1
                params = search.ask(number, name)
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
