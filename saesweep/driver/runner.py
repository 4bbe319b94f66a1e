"""`saesweep.run`: one experiment from file to exported SAE; the same call resumes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from saesweep.activity import doing
from saesweep.at_hand import check_here
from saesweep.costs import Kind
from saesweep.driver.changed_space import change_of_space
from saesweep.driver.confirm import confirm
from saesweep.driver.costs import CostBook, TimedEngine
from saesweep.driver.finish import Outcome
from saesweep.driver.log import JsonLogListener, ProgressListener
from saesweep.driver.outside import claim_checkpoint_path, make_tracker
from saesweep.driver.phase import Phase, train
from saesweep.driver.session import preflight
from saesweep.driver.stopping import StopFlag
from saesweep.engines.choose import open_engine
from saesweep.engines.protocol import Engine
from saesweep.errors import UserError, fault_of
from saesweep.events import EventBus, Listener, MatchedEntry, Note, ReferenceRow, Row, RunEnded, reporting_activity
from saesweep.experiment import Experiment, dump_yaml, load_experiment
from saesweep.messages import keep_readable
from saesweep.plugins import named_plugins
from saesweep.result import Result
from saesweep.runs import RunDirectory, read_costs, read_json, write_json
from saesweep.status import is_live
from saesweep.tracking import registered_trackers


def run(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    *,
    run_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    engine: Engine | None = None,
) -> Result:
    """Run an experiment, or resume it.

    Args:
        experiment: A YAML file, the same as a mapping, or a loaded experiment.
        run_dir: Where everything goes; `runs/<name>` when left out.
        overrides: `path=value` pairs over the file, as `--set` takes them.
        listeners: Called with every event, such as a display.
        engine: Where workers run; the file says it when left out.

    Returns:
        The result, also where the run was interrupted by Ctrl-C.

    Raises:
        UserError: The experiment, the model, the data or the run directory has a mistake; nothing was trained.
        KeyboardInterrupt: Ctrl-C was pressed twice, or before or after training; its text is the command that resumes.
    """
    loaded = experiment
    if not isinstance(loaded, Experiment):
        loaded = load_experiment(loaded, overrides=overrides, also=(check_here,))
    directory = RunDirectory(Path(run_dir) if run_dir is not None else Path("runs") / loaded.spec.name)
    command = _resume_command(experiment, overrides, directory)
    keep_readable(str(directory.path))
    with _surroundings_reported(directory, command), directory:
        change = change_of_space(directory, loaded)
        finished = _already_complete(directory, loaded)
        bus = EventBus(JsonLogListener(directory), ProgressListener(directory, command), *listeners)
        if finished is not None:
            if change is not None:
                finished = replace(finished, notes=(*finished.notes, change.untried(loaded.n_trials)))
            bus.emit(
                RunEnded(
                    status="already complete",
                    rows=finished.rows,
                    best=finished.best,
                    best_dir=None if finished.best_dir is None else str(finished.best_dir),
                    metrics=finished.metrics,
                    test_metrics=finished.test_metrics,
                    notes=finished.notes,
                    references=finished.references,
                    matched=finished.matched,
                    costs=finished.costs,
                )
            )
            return finished
        started, book = time.monotonic(), CostBook(directory)
        with book.kept(), StopFlag() as stop, _marked_interrupted(directory, command), reporting_activity(bus.emit):
            doing("checking the model, the hooks and the dataset")
            with book.spending("set_up"):
                timed = TimedEngine(engine or open_engine(loaded, bus), book)
            facts = preflight(loaded, timed)
            if change is not None:
                directory.add_fingerprints(change.fingerprints)
                bus.emit(Note(level="info", message=change.message))
            claim_checkpoint_path(loaded, directory)
            directory.save_experiment(dump_yaml(loaded.written))
            tracker = make_tracker(loaded, directory, bus)
            if tracker is not None:
                bus.subscribe(tracker)
            for listener in registered_trackers(loaded, directory.path, bus.emit):
                bus.subscribe(listener)
            phase = train(loaded, directory, facts, timed, bus, stop)
            if phase.is_complete and loaded.spec.search.confirm is not None:
                phase = confirm(loaded, loaded.spec.search.confirm, directory, phase, timed, bus, stop)
        return _ended(loaded, directory, phase, bus, started, command, book.kept_costs)


def _ended(
    experiment: Experiment,
    directory: RunDirectory,
    phase: Phase,
    bus: EventBus,
    started: float,
    resume_command: str,
    costs: Mapping[Kind, float],
) -> Result:
    """Return the result of a run and tell everybody."""
    outcome, is_complete = phase.outcome, phase.is_complete
    result = Result(
        status="complete" if is_complete else "interrupted",
        run_dir=directory.path,
        rows=phase.rows,
        best=outcome.best,
        best_dir=outcome.best_dir,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
        metrics=phase.board.metrics,
        references=phase.board.references(phase.rows),
        matched=outcome.matched,
        resume_command=None if is_complete else resume_command,
        exit_code=_exit_code(experiment, phase.rows, outcome) if is_complete else 130,
        costs=costs,
    )
    bus.emit(
        RunEnded(
            status=result.status,
            rows=result.rows,
            best=result.best,
            best_dir=None if result.best_dir is None else str(result.best_dir),
            metrics=result.metrics,
            test_metrics=result.test_metrics,
            trained_tokens=phase.trained_tokens,
            seconds=time.monotonic() - started,
            notes=result.notes,
            resume_command=result.resume_command,
            references=result.references,
            matched=outcome.matched,
            costs=costs,
        )
    )
    return result


@contextmanager
def _surroundings_reported(directory: RunDirectory, resume_command: str) -> Iterator[None]:
    """Turn a fault of the surroundings (a full disk, a lock, a folder that is gone) into one message."""
    try:
        yield
    except Exception as error:
        fault = None if isinstance(error, UserError) else fault_of(error)
        if fault is None:
            raise
        safe = "Everything up to the last checkpoint is safe; " if any(directory.checkpoints.glob("*")) else ""
        place = "" if fault.startswith(str(directory.path)) else f"{directory.path}: "
        resume = f". {safe}resume with: {resume_command}" if directory.path.exists() else ""
        raise UserError(f"{place}{fault}{resume}") from error


@contextmanager
def _marked_interrupted(directory: RunDirectory, resume_command: str) -> Iterator[None]:
    """Mark a run that an error or a signal ends as interrupted, and say how to resume it."""
    try:
        yield
    except KeyboardInterrupt:
        _mark_interrupted(directory)
        raise KeyboardInterrupt(f"interrupted; resume with: {resume_command}") from None
    except Exception as error:
        _mark_interrupted(directory)
        if type(error) is UserError and "resume with: " not in str(error) and any(directory.checkpoints.glob("*")):
            raise UserError(
                f"{error}\nwhat was trained is safe; once that is put right, resume with: {resume_command}"
            ) from error
        raise


def _mark_interrupted(directory: RunDirectory) -> None:
    """Say in the status file of a run that no process trains there any more."""
    with suppress(OSError, UserError):  # the disk may be full, or the folder gone
        directory.check_is_held()
        board = _board(directory)
        if board is not None and board.get("status") == "running":
            write_json(directory.leaderboard_file, {**board, "status": "interrupted"})


def _exit_code(experiment: Experiment, rows: Sequence[Row], outcome: Outcome) -> int:
    """Return 1 where nothing answers the question: no trial finished, none is feasible, or too many failed."""
    limit = experiment.spec.search.max_failed
    failed = len(attempts_that_failed([{"number": r.number, "status": r.status, "retry_of": r.retry_of} for r in rows]))
    answered = outcome.best is not None and any(row.rank is not None for row in rows)
    return int(not answered or (limit is not None and failed > limit))


def _resume_command(source: object, overrides: Sequence[str], directory: RunDirectory) -> str:
    """Return the command that resumes: the same one, or the run's own copy where the experiment came from Python."""
    words = ["saesweep", "run", str(source if isinstance(source, (str, Path)) else directory.experiment_file)]
    if isinstance(source, (str, Path)):
        for override in overrides:
            words += ["--set", override]
    for plugin in named_plugins():
        words += ["--plugin", plugin]
    return shlex.join([*words, "--run-dir", str(directory.path)])


def _board(directory: RunDirectory) -> dict[str, Any] | None:
    """Return `leaderboard.json`; None where there is none or it is damaged: checkpoints and study are the truth."""
    try:
        found = read_json(directory.leaderboard_file)
    except UserError:
        return None
    return found if isinstance(found, dict) else None


def attempts_that_failed(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how often settings were tried of which every attempt failed, one number for each such settings."""
    attempts: dict[int, list[str]] = {}
    for row in rows:
        first = row["number"] if row.get("retry_of") is None else row["retry_of"]
        attempts.setdefault(first, []).append(row["status"])
    return [len(states) for states in attempts.values() if set(states) == {"failed"}]


def _already_complete(directory: RunDirectory, experiment: Experiment) -> Result | None:
    board = _board(directory)
    try:
        return None if board is None else _read_complete(board, directory, experiment)
    except (KeyError, TypeError, ValueError, AttributeError):  # damaged: it is written again from the last checkpoint
        return None


def _read_complete(board: dict[str, Any], directory: RunDirectory, experiment: Experiment) -> Result | None:
    originals = sum(row.get("retry_of") is None for row in board["rows"])
    if board["status"] != "complete" or originals < experiment.n_trials:
        return None
    allowed = experiment.spec.search.retry_failed
    if allowed > board["retry_failed"] and any(n <= allowed for n in attempts_that_failed(board["rows"])):
        return None  # more attempts are allowed by now
    if any(is_live(row["status"]) for row in board["rows"]):
        return None  # a limit stopped it, perhaps since raised
    confirm_spec = experiment.spec.search.confirm
    if board.get("confirm", {}).get("settings") != (
        None if confirm_spec is None else confirm_spec.model_dump(mode="json")
    ):
        return None
    references = tuple(map(ReferenceRow.from_json, board.get("references", ())))
    if tuple(row.source for row in references) != experiment.written_references:
        return None
    rows = tuple(map(Row.from_json, board["rows"]))
    best = board["best"]
    outcome = Outcome(best, directory.best if best is not None else None)
    return Result(
        status="already complete",
        run_dir=directory.path,
        rows=rows,
        best=best,
        best_dir=outcome.best_dir,
        test_metrics=board["test_metrics"],
        notes=tuple(board["notes"]),
        metrics=tuple(board["metrics"]),
        references=references,
        matched=tuple(MatchedEntry(**entry) for entry in board.get("matched", ())),
        exit_code=_exit_code(experiment, rows, outcome),
        costs=read_costs(directory.costs_file),
    )
