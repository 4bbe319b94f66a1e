"""`saesweep.run`: one experiment from file to exported SAE; the same call resumes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from saesweep.errors import UserError
from saesweep.events import EventBus, Listener, Note, Row, RunEnded, RunStarted, TrialTrained
from saesweep.experiment import Experiment, describe_changes, dump_yaml, load_experiment
from saesweep.runs import JsonLines, RunDirectory
from saesweep.sweep.finish import Outcome, finish
from saesweep.sweep.loop import SweepLoop
from saesweep.sweep.progress import goal_texts, metric_columns, write_leaderboard
from saesweep.sweep.search import open_search
from saesweep.sweep.setup import Setup, check, prepare
from saesweep.sweep.stop import StopFlag
from saesweep.sweep.tracker import make_tracker


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    status: Literal["complete", "interrupted", "already complete"]
    run_dir: Path
    rows: tuple[Row, ...]
    """The leaderboard, best first."""
    best: int | None = None
    """Number of the exported trial."""
    best_dir: Path | None = None
    test_metrics: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    exit_code: int = 0
    """What the command exits with: 0 done, 1 too many failed trials or none finished, 130 interrupted."""

    @property
    def failed(self) -> int:
        """Number of trials that failed."""
        return sum(row.status == "failed" for row in self.rows)


def run(
    experiment: str | Path | Mapping[str, Any] | Experiment,
    *,
    run_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
) -> Result:
    """Run an experiment, or go on with it.

    Args:
        experiment: A YAML file, the same as a mapping, or a loaded experiment.
        run_dir: Where everything goes; `runs/<name>` when left out.
        overrides: `path=value` pairs over the file, as `--set` takes them.
        listeners: Called with every event, such as a display.

    Returns:
        The result, also where the run was interrupted by Ctrl-C.

    Raises:
        UserError: The experiment, the model, the data or the run directory has a mistake; nothing was trained.
        KeyboardInterrupt: Ctrl-C was pressed twice.
    """
    loaded = experiment if isinstance(experiment, Experiment) else load_experiment(experiment, overrides=overrides)
    directory = RunDirectory(Path(run_dir) if run_dir is not None else Path("runs") / loaded.spec.name)
    with directory:
        _same_experiment(directory, loaded)
        finished = _already_complete(directory, loaded)
        bus = EventBus(JsonLogListener(directory), *listeners)
        if finished is not None:
            bus.emit(
                RunEnded(
                    status="already complete",
                    rows=finished.rows,
                    best=finished.best,
                    best_dir=None if finished.best_dir is None else str(finished.best_dir),
                    test_metrics=finished.test_metrics,
                    notes=finished.notes,
                )
            )
            return finished
        facts = check(loaded)
        directory.save_experiment(dump_yaml(loaded.tree))
        tracker = make_tracker(loaded, directory, bus)
        if tracker is not None:
            bus.subscribe(tracker)
        with StopFlag() as stop:
            return _train(
                loaded, prepare(loaded, directory, facts), bus, stop, _resume_command(experiment, overrides, directory)
            )


class JsonLogListener:
    """Appends events to `events.jsonl`, with the wall-clock time; training metrics have their own files."""

    def __init__(self, directory: RunDirectory) -> None:
        self._log = JsonLines(directory.events_file)

    def __call__(self, event: Any) -> None:
        """Write one event; of a block only the numbers, the rows are in `leaderboard.json`."""
        if isinstance(event, TrialTrained):
            return
        data = event.to_json()
        data.pop("rows", None)
        self._log.append({"time_seconds": round(time.time(), 3), **data})


def _train(experiment: Experiment, setup: Setup, bus: EventBus, stop: StopFlag, resume_command: str) -> Result:
    started = time.monotonic()
    search = open_search(experiment, setup.directory, setup.objective, setup.blocks, setup.n_slots, setup.base.seed)
    with search.study:
        loop = SweepLoop(setup, search, bus, stop)
        resumed_at, damaged = loop.restore()
        bus.emit(
            RunStarted(
                name=experiment.spec.name,
                run_dir=str(setup.directory.path),
                trials=search.policy.n_trials,
                slots=setup.n_slots,
                total_tokens=setup.blocks.total_tokens,
                goals=goal_texts(setup),
                metrics=metric_columns(setup),
                resumed_at_tokens=resumed_at,
                notes=tuple(setup.notes),
            )
        )
        for message in damaged:
            bus.emit(Note(level="warning", message=message))
        is_complete = loop.run()
        rows = loop.rows()
        stream_tokens = setup.source.stream.tokens_served
        if is_complete:
            outcome = finish(setup, rows, stream_tokens)
        else:
            outcome = Outcome(None, None)
            write_leaderboard(setup, rows, status="interrupted", stream_tokens=stream_tokens)
        setup.source.close()
    result = Result(
        status="complete" if is_complete else "interrupted",
        run_dir=setup.directory.path,
        rows=rows,
        best=outcome.best,
        best_dir=outcome.best_dir,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
        exit_code=_exit_code(experiment, rows, outcome) if is_complete else 130,
    )
    bus.emit(
        RunEnded(
            status=result.status,
            rows=rows,
            best=result.best,
            best_dir=None if result.best_dir is None else str(result.best_dir),
            test_metrics=result.test_metrics,
            trained_tokens=loop.trained_tokens,
            seconds=time.monotonic() - started,
            notes=result.notes,
            resume_command=None if is_complete else resume_command,
        )
    )
    return result


def _exit_code(experiment: Experiment, rows: Sequence[Row], outcome: Outcome) -> int:
    limit = experiment.spec.search.max_failed
    failed = sum(row.status == "failed" for row in rows)
    return int(outcome.best is None or (limit is not None and failed > limit))


def _resume_command(source: object, overrides: Sequence[str], directory: RunDirectory) -> str:
    """Return the command that goes on: the same one, or the run's own copy where the experiment came from Python."""
    words = ["saesweep", "run", str(source if isinstance(source, (str, Path)) else directory.experiment_file)]
    if isinstance(source, (str, Path)):
        for override in overrides:
            words += ["--set", override]
    return shlex.join([*words, "--run-dir", str(directory.path)])


def _same_experiment(directory: RunDirectory, experiment: Experiment) -> None:
    if not directory.experiment_file.exists():
        return
    stored = load_experiment(directory.experiment_file)
    if stored.fingerprint() != experiment.fingerprint():
        changes = describe_changes(stored.tree, experiment.tree)
        raise UserError(
            f"{directory.path}: holds the run of another experiment; what differs:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nundo the changes to resume it, or give this one its own folder with --run-dir (or another `name`)"
        )


def _already_complete(directory: RunDirectory, experiment: Experiment) -> Result | None:
    if not directory.leaderboard_file.exists():
        return None
    board = json.loads(directory.leaderboard_file.read_text())
    if board["status"] != "complete" or len(board["rows"]) < experiment.n_trials:
        return None
    rows = tuple(Row(**row) for row in board["rows"])
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
        exit_code=_exit_code(experiment, rows, outcome),
    )
