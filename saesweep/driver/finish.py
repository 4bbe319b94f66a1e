"""The end of a sweep: the winner is chosen, measured once on `test`, and exported."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from saesweep.driver.matched import best_at_middle, curve_points, matched_entries, matched_notes
from saesweep.driver.noise import noise_notes
from saesweep.driver.ranking import winner
from saesweep.driver.references import reference_notes
from saesweep.driver.session import Session
from saesweep.engines.protocol import Worker
from saesweep.engines.records import Export, Finished, Tested
from saesweep.events import MatchedEntry, Row
from saesweep.runs import RunDirectory, copy_export


@dataclass(frozen=True)
class Outcome:
    """The exported winner."""

    best: int | None
    best_dir: Path | None
    test_metrics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    matched: tuple[MatchedEntry, ...] = ()
    """With matched L0, the best at each."""


def finish(
    session: Session, worker: Worker, rows: tuple[Row, ...], stream_tokens: int, notes: Sequence[str] = ()
) -> Outcome:
    """Export the winner (and a Pareto front) and write the final leaderboard.

    Args:
        session: The run.
        worker: Measures and exports.
        rows: Its leaderboard, best first.
        stream_tokens: Tokens that the stream has served.
        notes: What to say about the run before what is to be said about the winner.
    """
    directory = session.directory
    entries = _matched(session, worker, rows)
    best, about_winner = winner(rows, session.objective) if not entries else best_at_middle(entries, session.objective)
    board = session.board
    beaten = reference_notes(board.references(rows), rows, session.objective, best)
    notes = (*notes, *matched_notes(entries), *about_winner, *noise_notes(rows, session.objective), *beaten)
    outcome = Outcome(None, None, notes=notes)
    tested: dict[int, Tested] = {}
    if entries:
        entries = _export_matched(session, worker, rows, entries, notes, tested)
    if best is not None:
        row = next(row for row in rows if row.number == best)
        found = tested.get(best) or measure_on_test(worker, row)
        extra: dict[str, Any] = {
            "test_metrics": found.metrics,
            "objective": session.objective.model_dump(mode="json"),
            "notes": notes,
        }
        if row.replicates > 1:
            extra["test_spread"] = found.spread
        if session.objective.is_pareto and len(rows) > 1:
            export_front(worker, rows, directory.pareto)
        worker.export(Export(number=best, target=str(directory.best), extra=extra, is_tested=True))
        outcome = Outcome(best, directory.best, dict(found.metrics), notes, entries)
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


def measure_on_test(worker: Worker, row: Row) -> Tested:
    """Measure the replicates of a winner; the first of them is the one exported."""
    return worker.test(_finished(row))


def _finished(row: Row) -> Finished:
    return Finished(number=row.number, hook=row.hook, replicates=row.replicates)


def _matched(session: Session, worker: Worker, rows: tuple[Row, ...]) -> tuple[MatchedEntry, ...]:
    """Return the best at each L0, with intervals paired over the contexts of `select`; nothing without matched L0."""
    objective = session.objective
    if objective.matched is None:
        return ()
    used = {number for point in curve_points(rows, objective).values() for number in point.weights}
    worker.compare([_finished(row) for row in rows if row.number in used], objective.goals[0].metric)
    return matched_entries(rows, objective, worker.stderr)


def _export_matched(
    session: Session,
    worker: Worker,
    rows: tuple[Row, ...],
    entries: Sequence[MatchedEntry],
    notes: Sequence[str],
    tested: dict[int, Tested],
) -> tuple[MatchedEntry, ...]:
    """Write the winner of each L0 to a folder named by L0 and architecture, each measured once on `test`.

    Args:
        session: The run.
        worker: Measures and exports.
        rows: Its leaderboard.
        entries: The best at each L0.
        notes: What to say about the run.
        tested: What each trial measured on `test`; those measured here are added.
    """
    directory, several_hooks = session.directory, len({entry.hook for entry in entries}) > 1
    if directory.matched.exists():
        shutil.rmtree(directory.matched)
    by_number = {row.number: row for row in rows}
    found = []
    for entry in entries:
        if entry.is_winner:
            if entry.trial not in tested:  # it may win at several L0
                tested[entry.trial] = measure_on_test(worker, by_number[entry.trial])
            of_test = tested[entry.trial]
            entry = replace(entry, test_metrics=dict(of_test.metrics), test_spread=dict(of_test.spread))
            label = f"{entry.target_l0:g}-{entry.architecture}" + (f"-{_slug(entry.hook)}" if several_hooks else "")
            extra = {
                "test_metrics": of_test.metrics,
                "objective": session.objective.model_dump(mode="json"),
                "matched": asdict(entry),
                "notes": list(notes),
            }
            target = str(directory.matched / label)
            worker.export(Export(number=entry.trial, target=target, extra=extra, is_tested=True))
        found.append(entry)
    return tuple(found)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("λ", "lambda")).strip("-")


def export_front(worker: Worker, rows: Sequence[Row], target: Path) -> None:
    """Write one folder per point of the front, named by trial, architecture and sparsity."""
    if target.exists():
        shutil.rmtree(target)
    for row in rows:
        if row.on_front:
            worker.export(Export(number=row.number, target=str(target / _label(row))))


def copy_front(directory: RunDirectory, rows: Sequence[Row], target: Path) -> None:
    """Do the same where no worker is open: exports lie in the run directory."""
    if target.exists():
        shutil.rmtree(target)
    for row in rows:
        if row.on_front:
            copy_export(directory.trial_sae(row.number), target / _label(row), {})


def _label(row: Row) -> str:
    return _slug(f"{row.number:04d}-{row.architecture}-{row.sparsity}")
