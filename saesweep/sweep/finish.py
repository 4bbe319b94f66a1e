"""The end of a sweep: the winner is chosen, measured once on `test`, and exported."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from saesweep.evaluation import Densities, FiringCounter, PairedSums
from saesweep.events import MatchedEntry, Row, doing
from saesweep.runs import RunDirectory
from saesweep.saes import ExportedSAE, load_sae_folder
from saesweep.sweep.artifacts import copy_export, replicate_folder
from saesweep.sweep.matched import Weights, best_at_middle, curve_points, matched_entries, matched_notes
from saesweep.sweep.measure import mean_and_spread
from saesweep.sweep.memory import measuring
from saesweep.sweep.noise import noise_notes
from saesweep.sweep.progress import Board
from saesweep.sweep.ranking import winner
from saesweep.sweep.references import reference_notes
from saesweep.sweep.setup import Setup


@dataclass(frozen=True)
class Tested:
    """What a winner measured on the `test` part."""

    metrics: dict[str, float]
    """The mean over its replicates."""
    spread: dict[str, float]
    """Their sample standard deviation; empty for a single one."""
    densities: Densities
    """How often the latents of the exported replicate, the first, fire."""


@dataclass(frozen=True)
class Outcome:
    """The exported winner."""

    best: int | None
    best_dir: Path | None
    test_metrics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    matched: tuple[MatchedEntry, ...] = ()
    """With matched L0, the best at each."""


def finish(setup: Setup, rows: tuple[Row, ...], stream_tokens: int, notes: Sequence[str] = ()) -> Outcome:
    """Export the winner (and a Pareto front) and write the final leaderboard.

    Args:
        setup: The run.
        rows: Its leaderboard, best first.
        stream_tokens: Tokens that the stream has served.
        notes: What to say about the run before what is to be said about the winner.
    """
    directory = setup.directory
    entries = _matched(setup, rows)
    best, about_winner = winner(rows, setup.objective) if not entries else best_at_middle(entries, setup.objective)
    board = Board.of(setup)
    beaten = reference_notes(board.references(rows), rows, setup.objective, best)
    notes = (*notes, *matched_notes(entries), *about_winner, *noise_notes(rows, setup.objective), *beaten)
    outcome = Outcome(None, None, notes=notes)
    tested: dict[int, Tested] = {}
    if entries:
        entries = _export_matched(setup, rows, entries, notes, tested)
    if best is not None:
        row = next(row for row in rows if row.number == best)
        found = tested.get(best) or measure_on_test(setup, row)
        extra = {"test_metrics": found.metrics, "objective": setup.objective.model_dump(mode="json"), "notes": notes}
        if row.replicates > 1:
            extra["test_spread"] = found.spread
        if setup.objective.is_pareto and len(rows) > 1:
            export_front(directory, rows, directory.pareto)
        copy_export(directory.trial_sae(best), directory.best, extra, found.densities)
        outcome = Outcome(best, directory.best, found.metrics, notes, entries)
    board.write(
        rows,
        status="complete",
        stream_tokens=stream_tokens,
        best=outcome.best,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
        matched=outcome.matched,
    )
    return outcome


def measure_on_test(setup: Setup, row: Row) -> Tested:
    """Measure the replicates of a winner; the first of them is the one exported."""
    doing(f"measuring trial {row.number} on the test part")
    saes = _replicates(setup, row)
    counters = [FiringCounter() for _ in saes]
    with measuring():
        found = setup.test_evaluator().measure(saes, row.hook, with_model=True, spread=True, counters=counters)
    return Tested(*mean_and_spread(found), counters[0].densities("test"))


def _replicates(setup: Setup, row: Row) -> list[ExportedSAE]:
    return [
        load_sae_folder(replicate_folder(setup.directory, row.number, replicate)).to(setup.device)
        for replicate in range(row.replicates)
    ]


def _matched(setup: Setup, rows: tuple[Row, ...]) -> tuple[MatchedEntry, ...]:
    """Return the best at each L0, with intervals paired over the contexts of `select`; nothing without matched L0."""
    objective = setup.objective
    if objective.matched is None:
        return ()
    used = {number for point in curve_points(rows, objective).values() for number in point.weights}
    chosen = [row for row in rows if row.number in used]
    metric = objective.goals[0].metric
    numbers: dict[str, list[int]] = {}
    sums: dict[str, list[PairedSums]] = {}
    for row in chosen:  # one trial at a time: all SAEs of a comparison need not fit into memory
        found = setup.evaluator.paired(_replicates(setup, row), row.hook, metric)
        if found is not None:
            numbers.setdefault(row.hook, []).append(row.number)
            sums.setdefault(row.hook, []).append(found.mean())

    def stderr_of(weights: Weights) -> float | None:
        for hook, own in numbers.items():
            if set(weights) <= set(own):
                shares = torch.tensor([weights.get(number, 0.0) for number in own], dtype=torch.float64)
                return PairedSums.stacked(sums[hook]).stderr(shares)
        return None

    return matched_entries(rows, objective, stderr_of)


def _export_matched(
    setup: Setup,
    rows: tuple[Row, ...],
    entries: Sequence[MatchedEntry],
    notes: Sequence[str],
    tested: dict[int, Tested],
) -> tuple[MatchedEntry, ...]:
    """Write the winner of each L0 to a folder named by L0 and architecture, each measured once on `test`.

    Args:
        setup: The run.
        rows: Its leaderboard.
        entries: The best at each L0.
        notes: What to say about the run.
        tested: What each trial measured on `test`; those measured here are added.
    """
    directory, several_hooks = setup.directory, len({entry.hook for entry in entries}) > 1
    if directory.matched.exists():
        shutil.rmtree(directory.matched)
    by_number = {row.number: row for row in rows}
    found = []
    for entry in entries:
        if entry.is_winner:
            if entry.trial not in tested:  # it may win at several L0
                tested[entry.trial] = measure_on_test(setup, by_number[entry.trial])
            of_test = tested[entry.trial]
            entry = replace(entry, test_metrics=of_test.metrics, test_spread=of_test.spread)
            label = f"{entry.target_l0:g}-{entry.architecture}" + (f"-{_slug(entry.hook)}" if several_hooks else "")
            extra = {
                "test_metrics": of_test.metrics,
                "objective": setup.objective.model_dump(mode="json"),
                "matched": asdict(entry),
                "notes": list(notes),
            }
            copy_export(directory.trial_sae(entry.trial), directory.matched / label, extra, of_test.densities)
        found.append(entry)
    return tuple(found)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("λ", "lambda")).strip("-")


def export_front(directory: RunDirectory, rows: Sequence[Row], target: Path) -> None:
    """Write one folder per point of the front, named by trial, architecture and sparsity."""
    if target.exists():
        shutil.rmtree(target)
    for row in rows:
        if row.on_front:
            label = _slug(f"{row.number:04d}-{row.architecture}-{row.sparsity}")
            copy_export(directory.trial_sae(row.number), target / label, {})
