"""The end of a sweep: the winner is chosen, measured once on `test`, and exported."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from saesweep.evaluation import HeldOutEvaluator
from saesweep.events import Row
from saesweep.runs import RunDirectory
from saesweep.saes import load_sae_folder
from saesweep.sweep.artifacts import copy_export, replicate_folder
from saesweep.sweep.measure import mean_and_spread
from saesweep.sweep.noise import noise_notes
from saesweep.sweep.progress import Board
from saesweep.sweep.ranking import winner
from saesweep.sweep.references import measure_references
from saesweep.sweep.setup import Setup


@dataclass(frozen=True)
class Outcome:
    """The exported winner."""

    best: int | None
    best_dir: Path | None
    test_metrics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def finish(setup: Setup, rows: tuple[Row, ...], stream_tokens: int, notes: Sequence[str] = ()) -> Outcome:
    """Export the winner (and a Pareto front) and write the final leaderboard.

    Args:
        setup: The run.
        rows: Its leaderboard, best first.
        stream_tokens: Tokens that the stream has served.
        notes: What to say about the run before what is to be said about the winner.
    """
    directory = setup.directory
    best, about_winner = winner(rows, setup.objective)
    notes = (*notes, *about_winner, *noise_notes(rows, setup.objective), *measure_references(setup))
    outcome = Outcome(None, None, notes=notes)
    if best is not None:
        row = next(row for row in rows if row.number == best)
        test_metrics, test_spread = measure_on_test(setup, row)
        extra = {"test_metrics": test_metrics, "objective": setup.objective.model_dump(mode="json"), "notes": notes}
        if row.replicates > 1:
            extra["test_spread"] = test_spread
        if setup.objective.is_pareto:
            export_front(directory, rows, directory.pareto)
        copy_export(directory.trial_sae(best), directory.best, extra)
        outcome = Outcome(best, directory.best, test_metrics, notes)
    Board.of(setup).write(
        rows,
        status="complete",
        stream_tokens=stream_tokens,
        best=outcome.best,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
    )
    return outcome


def measure_on_test(setup: Setup, row: Row) -> tuple[dict[str, float], dict[str, float]]:
    """Return mean and spread over the winner's replicates; the first of them is the one exported."""
    evaluator = HeldOutEvaluator(
        setup.source.test,
        setup.source.model,
        ce_tokens=setup.experiment.spec.evaluation.ce_tokens,
        head_index=setup.base.hook_head_index,
        contexts_per_forward=setup.base.eval_batch_size_prompts or setup.base.store_batch_size_prompts,
    )
    saes = [
        load_sae_folder(replicate_folder(setup.directory, row.number, replicate)).to(setup.device)
        for replicate in range(row.replicates)
    ]
    return mean_and_spread(evaluator.measure(saes, row.hook, with_model=True))


def export_front(directory: RunDirectory, rows: Sequence[Row], target: Path) -> None:
    """Write one folder per point of the front, named by trial, architecture and sparsity."""
    if target.exists():
        shutil.rmtree(target)
    for row in rows:
        if row.on_front:
            label = re.sub(r"[^A-Za-z0-9.]+", "-", f"{row.number:04d}-{row.architecture}-{row.sparsity}").strip("-")
            copy_export(directory.trial_sae(row.number), target / label, {})
