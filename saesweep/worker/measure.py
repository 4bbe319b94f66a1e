"""Exports SAEs as they are now and measures them on held-out activations."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from saesweep.cohort import Cohort, Slot
from saesweep.costs import Stopwatch
from saesweep.evaluation import (
    ByContext,
    Densities,
    FiringCounter,
    HeldOutEvaluator,
    PairedSums,
    Probes,
    decoder_cosine,
    seed_stability,
)
from saesweep.saes import ExportedSAE
from saesweep.specs import METRICS
from saesweep.worker.device import measuring


@dataclass(frozen=True)
class Measured:
    """One SAE in its exported form, and what it scored."""

    sae: ExportedSAE
    metrics: dict[str, float]
    dead: int
    densities: Densities
    """How often its latents fire on the `select` part."""
    by_context: PairedSums | None = None
    """The metric that finished trials are compared by, by context; None where nothing asks for it or it has none."""


def measure_slots(
    cohort: Cohort,
    slots: Sequence[Slot],
    evaluator: HeldOutEvaluator,
    *,
    with_model: Mapping[int, bool],
    with_spread: Mapping[int, bool],
    metrics_needed: Collection[str] = (),
    compared: str | None = None,
    probes: Probes | None = None,
    watch: Stopwatch,
) -> list[Measured]:
    """Return each slot's exported SAE and metrics, in the order of the slots; SAEs of one hook are measured together.

    Args:
        cohort: Where the slots train.
        slots: Which of them to measure.
        evaluator: The held-out part to measure on.
        with_model: By trial number, whether to run the language model's head too.
        with_spread: By trial number, whether to take standard errors over contexts too.
        metrics_needed: Metrics that rungs need, besides those that cost little.
        compared: A metric to take by context too, where standard errors are taken.
        probes: Measures what standard errors are taken of, and others where a rung needs it; None without.
        watch: Counts the time.
    """
    groups: dict[tuple[str, str, bool, bool], list[int]] = defaultdict(list)
    for index, slot in enumerate(slots):
        run = slot.run
        groups[run.target_hook, run.hook_name, with_model[slot.trial], with_spread[slot.trial]].append(index)
    found: dict[int, Measured] = {}
    for (hook, hook_in, use_model, spread), members in groups.items():
        with watch.spending("measuring_ends" if spread else "measuring_rungs"), measuring():
            saes = [cohort.export(slots[index], at_rung=not spread) for index in members]
            counters = [FiringCounter() for _ in saes]
            by_context = ByContext(compared) if spread and compared is not None else None
            results = evaluator.measure(
                saes,
                hook,
                with_model=use_model,
                spread=spread,
                at_rung=not spread,
                counters=counters,
                by_context=by_context,
                hook_in=hook_in,
            )
            if not spread and "decoder_cosine" in metrics_needed:
                for sae, values in zip(saes, results, strict=True):
                    values["decoder_cosine"] = decoder_cosine(sae.tensors["W_dec"])
            if probes is not None and (spread or any(METRICS[m].needs_probes for m in metrics_needed if m in METRICS)):
                for sae, values in zip(saes, results, strict=True):
                    values |= probes.measure(sae, hook_in)
        for place, (index, sae, metrics) in enumerate(zip(members, saes, results, strict=True)):
            slot = slots[index]
            dead = int(slot.dead_F().sum())
            found[index] = Measured(
                sae=sae,
                metrics={**metrics, "dead_fraction": dead / sae.d_sae},
                dead=dead,
                densities=counters[place].densities("select"),
                by_context=None if by_context is None or by_context.sums is None else by_context.sums[place],
            )
    return [found[index] for index in range(len(slots))]


def over_replicates(results: Sequence[Measured]) -> dict[str, float]:
    """Return what only several replicates of a trial have: how many of their latents are the same."""
    live_F = [result.densities.share_F > 0 for result in results]
    with measuring():
        return seed_stability([result.sae for result in results], live_F)


def mean_and_spread(samples: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean of each metric over replicates and its sample standard deviation; no spread of a single one."""
    if len(samples) == 1:
        return dict(samples[0]), {}
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    # Sums of floats keep NaN and infinities, which `statistics.stdev` refuses.
    mean = {name: sum(column) / len(column) for name, column in columns.items()}
    spread = {
        name: statistics.stdev(column) if abs(mean[name]) < float("inf") else float("nan")
        for name, column in columns.items()
        if not name.endswith("_stderr")
    }
    return mean, spread
