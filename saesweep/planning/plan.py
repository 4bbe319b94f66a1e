"""What an experiment would run: sampled settings, memory, tokens, time. Loads no weights and asks no network, unless told to."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from saesweep.driver.blocks import BlockPlan, plan_blocks
from saesweep.driver.search import Rules, open_search, rules_of
from saesweep.driver.trials import sparsity_label
from saesweep.driver.visits import Visit, planned_visits
from saesweep.errors import UserError
from saesweep.experiment import Experiment, Stream, are_comparable, streams_of, with_widths
from saesweep.experiment.devices import device_names
from saesweep.messages import short_count
from saesweep.models import ModelFacts, resolve_device
from saesweep.planning.calibrate import calibrate
from saesweep.planning.estimate import Work, estimated, facts_at_hand, process_peak, seconds_of
from saesweep.planning.planned import Calibration, Plan, PlannedStream, PlannedTrial, Seconds, shared_loads
from saesweep.planning.probing import probes_line
from saesweep.planning.simulate import simulate
from saesweep.runs import RunDirectory
from saesweep.specs import (
    RAMP_FIELDS,
    BaseRun,
    ControlPlan,
    LearningRate,
    ObjectiveSpec,
    PAnnealingPlan,
    SearchSpec,
    ramps_of,
)
from saesweep.worker.preflight import preflight
from saesweep.worker.setup import LoadedModel
from saesweep.worker.sizing import StreamSizes, size_stream

_SAMPLES = 5
_SPARSE_PASSES, _DENSE_PASSES = 1, 5
"""Encoder-sized matrix products per step: one forward where only active latents are computed, five where all are."""


@dataclass(frozen=True)
class _Part:
    """What is known of one stream."""

    stream: Stream
    visit: Visit
    trials: int
    sizes: StreamSizes
    blocks: BlockPlan
    rules: Rules | None
    """None where the stream has no trials."""

    @property
    def widest(self) -> int:
        """Weights of the widest encoder."""
        return max((r.sae.d_in or 0) * (r.sae.d_sae or 0) for r in self.sizes.runs)

    @property
    def planned(self) -> PlannedStream:
        """For people."""
        blocks, slots = self.blocks, self.sizes.slots
        return PlannedStream(
            label=self.stream.label,
            model_name=self.sizes.runs[0].model_name if self.stream.experiment.reads_language_model() else None,
            trials=self.trials,
            hooks=self.stream.experiment.hook_names(),
            slots=slots.slots,
            slots_reason=slots.reason,
            total_tokens=blocks.total_tokens,
            block_tokens=blocks.block_tokens,
            rungs_tokens=blocks.rungs_tokens,
            slot_bytes=slots.slot_bytes,
            shared_bytes=slots.shared_bytes,
            measuring_bytes=slots.measuring_bytes,
            policy=None if self.rules is None else self.rules.policy,
        )

    def work(self, search: SearchSpec, objective: ObjectiveSpec, spent_tokens: float, *, prunes: bool) -> Work:
        """Return what the stream's trials do.

        Args:
            search: How the space is searched.
            objective: What is optimised.
            spent_tokens: SAE-tokens of the streams before: the budget is that of all together.
            prunes: Whether the rungs prune as the file says, or not at all.
        """
        if self.rules is None:
            return Work(0, 0, 0, 0)
        policy, first = self.rules.policy, self.visit.n_suggested
        budget = policy.tokens_budget
        policy = replace(
            policy,
            n_trials=self.trials,
            baseline_strata=policy.baseline_strata[first:],
            tokens_budget=None if budget is None else max(0, budget - round(spent_tokens / search.replicates)),
            pruner=policy.pruner if prunes else "none",
        )
        return simulate(
            self.rules,
            policy,
            self.stream.experiment,
            objective,
            block_tokens=self.blocks.block_tokens,
            stream=self.stream.label,
        ).times(search.replicates)


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
    objective = experiment.objective(experiment.reads_language_model())
    calibrations, widths = _calibrate(experiment) if with_calibration else ((), {})
    visits = planned_visits(experiment, streams)
    facts = {visit.stream.label: facts_at_hand(visit.stream.experiment) for visit in visits}
    parts = [
        _part(
            experiment, objective, visit, widths.get(visit.stream.label) or _widths(facts[visit.stream.label]), device
        )
        for visit in visits
    ]
    first = parts[0].planned
    full, pruned = (_works(parts, search, objective, prunes=prunes) for prunes in (False, True))
    confirm = _confirm_work(experiment)
    gflops = _measure_gflops(device)
    seconds_full, seconds_pruned = (
        _seconds(experiment, parts, works, confirm, calibrations) for works in (full, pruned)
    )
    expected = seconds_pruned or _estimated(experiment, parts, pruned, confirm, facts, gflops)
    known = facts[parts[0].stream.label]
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
        samples=_samples(experiment, next(part for part in parts if part.rules is not None)),
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
        finished_pruned=round(sum(work.at_end for work in pruned) / search.replicates),
        first_judged_step=parts[0].blocks.rung_steps[0] if parts[0].blocks.rung_steps else None,
        confirm_sae_tokens=round(confirm.sae_tokens),
        gflops=gflops,
        sae_seconds=(low, high),
        mixture=experiment.base_run().dataset_label if experiment.base_run().datasets else "",
        schedules=_schedules(parts[0].stream.experiment, parts[0].sizes.runs),
        matched=_matched_text(experiment, parts[0].sizes.runs),
        probes="" if calibrations else probes_line(experiment.spec.evaluation.probes, parts[0].sizes.runs, gflops),
        calibrations=calibrations,
        seconds_full=seconds_full,
        seconds_pruned=seconds_pruned,
        measuring_share=None if expected is None else expected.measuring_share,
        model_bytes=None if known is None else known.weight_bytes,
        peak_bytes=None
        if known is None or device.type != "cpu"
        else process_peak(parts[0].stream.experiment, parts[0].sizes, known),
        warnings=(
            *experiment.warnings,
            *_devices_warning(experiment),
            *(text for each in calibrations for text in each.warnings),
        ),
    )


def _matched_text(experiment: Experiment, runs: Sequence[BaseRun]) -> str:
    """Return the targets, the trials of each architecture at each, and when coefficients are frozen."""
    matched = None if experiment.spec.objective is None else experiment.spec.objective.matched
    if matched is None:
        return ""
    targets = ", ".join(f"{target:g}" for target in matched.l0)
    lowest, more = divmod(experiment.n_trials, len(runs) * len(matched.l0))
    share = f"{lowest} to {lowest + 1} trials" if more else "1 trial" if lowest == 1 else f"{lowest} trials"
    text = f"at L0 {targets}: {share} for each of {len(runs)} architectures"
    plans = [plan for run in runs if (plan := ControlPlan.of(run, matched.l0[0], matched)) is not None]
    if plans:
        frozen = short_count(plans[0].freeze_step * runs[0].train_batch_size_tokens)
        names = [run.sae.architecture for run in runs if ControlPlan.of(run, matched.l0[0], matched) is not None]
        text += f"; the coefficient of {', '.join(names)} is steered there and frozen at {frozen} tokens"
    return text


def _works(parts: Sequence[_Part], search: SearchSpec, objective: ObjectiveSpec, *, prunes: bool) -> list[Work]:
    """Return what the trials of each stream do, one stream after the other."""
    works: list[Work] = []
    for part in parts:
        spent_tokens = sum(work.sae_tokens for work in works)
        works.append(part.work(search, objective, spent_tokens, prunes=prunes))
    return works


def _part(
    experiment: Experiment,
    objective: ObjectiveSpec,
    visit: Visit,
    widths: dict[str, int],
    device: torch.device,
) -> _Part:
    own, trials = visit.stream.experiment, visit.share
    runs = [run for name in own.architectures for run in own.corner_runs(name)]
    d_in = widths or {run.hook_name: run.sae.d_in for run in runs if run.sae.d_in is not None}
    if any(run.hook_name not in d_in for run in runs):
        raise UserError(
            "base.sae.d_in: missing; the model's configuration is not on this machine, and `plan` downloads nothing: state the "
            "width of the activations, or use --calibrate"
        )
    sizes = size_stream(own, trials, d_in, device)
    blocks = plan_blocks(own.base_run(), own.spec.search, own.spec.cohort)
    rules = rules_of(experiment, objective, blocks, sizes.slots.slots, visit) if trials else None
    return _Part(visit.stream, visit, trials, sizes, blocks, rules)


def _calibrate(experiment: Experiment) -> tuple[tuple[Calibration, ...], dict[str, dict[str, int]]]:
    """Time every stream, streams of one model with one load of it."""
    streams, loaded = streams_of(experiment), LoadedModel()
    preflight(experiment)
    found, widths = [], {}
    for visit in planned_visits(experiment, streams):
        measured, widths[visit.stream.label] = calibrate(experiment, visit.stream, visit.share, loaded)
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
    tokens = search.confirm.tokens_of(experiment.base_run().training_tokens)
    return Work(saes * tokens, 0, saes, groups * tokens)  # side by side


def _devices_warning(experiment: Experiment) -> list[str]:
    """Return what `plan` does not know of several workers."""
    devices = experiment.spec.cohort.devices
    count = devices if isinstance(devices, int) else len(device_names(devices) or [""])
    if count == 1:
        return []
    return [
        f"cohort.devices: slots, memory and time are those of one worker; {count} share the trials, and each needs this memory"
    ]


def _schedules(own: Experiment, runs: Sequence[BaseRun]) -> tuple[str, ...]:
    """Return what changes over a run, a line per architecture and field where a coefficient or k does.

    Args:
        own: The experiment as a stream sees it.
        runs: Runs of the stream whose widths are known.
    """
    rate, d_in = LearningRate.of(runs[0]), {run.hook_name: run.sae.d_in for run in runs if run.sae.d_in is not None}
    found = [f"{rate.name} learning rate, {rate.warm_up_steps} steps of warm-up, {rate.decay_steps} of decay"]
    for name in own.architectures:
        corners = [with_widths(run, d_in) for run in own.corner_runs(name) if run.hook_name in d_in]
        for field in RAMP_FIELDS:
            ramps = [ramps[field] for run in corners if field in (ramps := ramps_of(run))]
            different = list(dict.fromkeys(str(ramp) for ramp in ramps if not ramp.is_constant))
            if different:
                more = _others(len(different) - 1)
                found.append(f"{name} {field} {different[0]}{more}")
        plans = dict.fromkeys(str(plan) for run in corners if (plan := PAnnealingPlan.of(run)) is not None)
        if plans:
            more = _others(len(plans) - 1)
            found.append(f"{name} p {next(iter(plans))}{more}")
    return tuple(found)


def _others(count: int) -> str:
    return f", and {count} other{'s' * (count != 1)} at the edges of the space" if count else ""


def _widths(facts: ModelFacts | None) -> dict[str, int]:
    return {} if facts is None else dict(facts.hooks)


def _estimated(
    experiment: Experiment,
    parts: list[_Part],
    works: list[Work],
    confirm: Work,
    facts: Mapping[str, ModelFacts | None],
    gflops: float,
) -> Seconds | None:
    """Return where the time goes by the number of operations; None where a language model is not known."""
    found = []
    for part in parts:
        own, label = part.stream.experiment, part.stream.label
        one = estimated(own, part.sizes.runs, facts[label], gflops, label)
        if one is None:
            return None
        found.append(one)
    return _seconds(experiment, parts, works, confirm, tuple(found))


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
    found: list[PlannedTrial] = []
    assert part.rules is not None
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        objective = experiment.objective(experiment.reads_language_model())
        search = open_search(experiment, directory, objective, part.rules, experiment.base_run().seed, part.visit)
        counts: Counter[str] = Counter()
        names = list(part.rules.strata)
        with search.study:
            for number in range(min(_SAMPLES, part.trials)):
                # As the scheduler does: baselines first, then the stratum with the fewest trials.
                given = search.policy.baseline_strata
                name = given[number] if number < len(given) else min(names, key=lambda n: (counts[n], names.index(n)))
                counts[name] += 1
                params = search.ask(number, name, number)
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
