"""Results of a search over several activation streams: one winner where they can be compared, else one for each."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from saesweep.driver.finish import Outcome, copy_front, export_front, measure_on_test
from saesweep.driver.noise import noise_notes
from saesweep.driver.ranking import winner
from saesweep.driver.session import Session
from saesweep.driver.standings import rank
from saesweep.engines.protocol import Worker
from saesweep.engines.records import Export
from saesweep.errors import UserError
from saesweep.events import Row
from saesweep.experiment import Stream, are_comparable
from saesweep.runs import RunDirectory, read_json, replace_folder, write_json
from saesweep.specs import ObjectiveSpec

_FILE = "winner.json"


@dataclass(frozen=True)
class _Winner:
    """The best trial of one stream, measured on that stream's `test` part."""

    best: int | None
    notes: tuple[str, ...]
    test_metrics: Mapping[str, float]


def finish_stream(session: Session, worker: Worker, rows: Sequence[Row], stream: Stream) -> None:
    """Export the best trial of the open stream and measure it on `test`, while the stream's model is loaded.

    Args:
        session: The run.
        worker: Has that stream open.
        rows: The leaderboard.
        stream: The stream.
    """
    directory, objective = session.directory, session.objective
    own = rank([row for row in rows if row.stream == stream.label], objective)
    if not own:  # its share was taken back
        return
    best, notes = winner(own, objective)
    notes = [*_in_folder(notes, stream), *noise_notes(own, objective)]
    test_metrics: dict[str, float] = {}
    if objective.is_pareto:
        export_front(worker, own, directory.stream_path / "pareto")
    if best is not None:
        row = next(row for row in own if row.number == best)
        found = measure_on_test(worker, row)
        test_metrics = dict(found.metrics)
        extra = {
            "test_metrics": test_metrics,
            "objective": objective.model_dump(mode="json"),
            "notes": notes,
            "stream": stream.label,
            **({"test_spread": found.spread} if row.replicates > 1 else {}),
        }
        target = str(directory.stream_path / "best")
        worker.export(Export(number=best, target=target, extra=extra, is_tested=True))
    write_json(
        directory.stream_path / _FILE,
        {"trials": len(own), "best": best, "notes": notes, "test_metrics": test_metrics},
    )


def is_finished(directory: RunDirectory, trials: int) -> bool:
    """Return whether a stream's winner has been found among this number of trials."""
    file = directory.stream_path / _FILE
    return file.exists() and bool(_winner_of(file)["trials"] == trials)


def conclude(
    directory: RunDirectory,
    rows: Sequence[Row],
    objective: ObjectiveSpec,
    streams: Sequence[Stream],
    notes: Sequence[str],
) -> Outcome:
    """Choose among the winners of the streams and export the chosen one as `best/`.

    Where streams are on other scales nothing decides between them: `best/` holds the first stream's winner, and says so.

    Args:
        directory: The run directory.
        rows: The leaderboard, best first.
        objective: What is optimised.
        streams: All streams.
        notes: What to say about the run before what is to be said about its winners.
    """
    found = {stream.label: _read(directory, stream) for stream in streams}
    all_notes = [*notes]
    for label, own in found.items():
        all_notes += [f"{label}: {note}" for note in own.notes] if own is not None else [f"{label}: no trial ran there"]
    winners = {own.best: (stream, own) for stream in streams if (own := found[stream.label]) and own.best is not None}
    for number, (stream, _) in winners.items():
        all_notes.append(f"{stream.label}: the best trial is {number}, in streams/{stream.folder}/best")
    best: int | None = None
    if are_comparable(streams):
        candidates = rank([row for row in rows if row.number in winners], objective)
        best = winner(candidates, objective)[0]
        if objective.is_pareto:
            copy_front(directory, rows, directory.pareto)
    elif winners:
        best = next(iter(winners))
        assert best is not None
        all_notes.append(
            "values of different streams are not comparable (another model, dataset or choice of positions): ranks are "
            f"within a stream, and best/ holds the winner of the first, {winners[best][0].label}"
        )
    if best is None:
        return Outcome(None, None, notes=tuple(all_notes))
    stream, chosen = winners[best]
    source = directory.of_stream(stream.folder).stream_path
    _copy(source / "best", directory.best)
    if objective.is_pareto and not are_comparable(streams):
        _copy(source / "pareto", directory.pareto)
    return Outcome(best, directory.best, dict(chosen.test_metrics), tuple(all_notes))


def copy_stream_exports(source: RunDirectory, target: RunDirectory, streams: Sequence[Stream]) -> None:
    """Copy what each stream exported from one run directory to another: from a confirmation to its search."""
    for stream in streams:
        for name in ("best", "pareto"):
            folder = source.of_stream(stream.folder).stream_path / name
            if stream.label and folder.exists():
                _copy(folder, target.of_stream(stream.folder).stream_path / name)


def _copy(source: Path, target: Path) -> None:
    def fill(folder: Path) -> None:
        shutil.copytree(source, folder, dirs_exist_ok=True)

    replace_folder(target, fill)


def _read(directory: RunDirectory, stream: Stream) -> _Winner | None:
    file = directory.of_stream(stream.folder).stream_path / _FILE
    if not file.exists():
        return None
    data = _winner_of(file)
    return _Winner(data["best"], tuple(data["notes"]), data["test_metrics"])


def _winner_of(file: Path) -> dict[str, Any]:
    data = read_json(file)
    if (
        not isinstance(data, dict)
        or not {"trials", "best", "notes", "test_metrics"} <= data.keys()
        or not isinstance(data["best"], (int, NoneType))
        or not isinstance(data["notes"], list)
        or not isinstance(data["test_metrics"], dict)
    ):
        raise UserError(f"{file}: damaged; delete it, and the same command finds the winner again")
    return data


def _in_folder(notes: Sequence[str], stream: Stream) -> list[str]:
    """Return notes about exports with the stream's folder."""
    place = f"streams/{stream.folder}/"
    return [note.replace("best/", f"{place}best/").replace("pareto/", f"{place}pareto/") for note in notes]
