"""One pass of training to its end: the search, or the confirmation of its finalists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from saesweep.activity import doing
from saesweep.driver.by_stream import conclude, finish_stream, is_finished
from saesweep.driver.finish import Outcome, finish
from saesweep.driver.fleet import Fleet, Member, folder_of
from saesweep.driver.history import History, held_by_checkpoint, last_saved
from saesweep.driver.loop import SweepLoop
from saesweep.driver.opening import Opener, taken_over
from saesweep.driver.outside import rewind
from saesweep.driver.progress import Board
from saesweep.driver.replacing import halve, shrink, tokens_at
from saesweep.driver.search import open_search
from saesweep.driver.session import Facts, Session, saved_attempts, worker_plan
from saesweep.driver.stopping import StopFlag
from saesweep.driver.visits import Attempt, next_stream, suggested_per_stream, trials_per_stream
from saesweep.engines.protocol import Engine, OutOfMemory
from saesweep.events import EventBus, Note, Row, RunStarted
from saesweep.experiment import Experiment, Stream, streams_of
from saesweep.runs import RunDirectory
from saesweep.specs import ObjectiveSpec


@dataclass(frozen=True)
class Phase:
    """What a phase came to; holds no tensors."""

    is_complete: bool
    """False where someone asked to stop before its end."""
    rows: tuple[Row, ...]
    """The leaderboard, best first."""
    outcome: Outcome
    notes: tuple[str, ...]
    """How it ended, apart from its winner."""
    objective: ObjectiveSpec
    board: Board
    stream_tokens: int
    trained_tokens: int
    """Tokens trained on by this process."""
    stop_reason: str | None = None
    """Why no further trial is asked; `complete` where all have been."""
    has_progressed: bool = False
    """Trials were asked in it."""


def train(
    experiment: Experiment, directory: RunDirectory, facts: Facts, engine: Engine, bus: EventBus, stop: StopFlag
) -> Phase:
    """Train until nothing is left to do: the worker opens another stream when its own has no trials left.

    Another stream begins where a resumed run with a higher number of trials would: from the last checkpoint of the one
    before. So everything that holds for a resumed run (same trials, same bits) holds here.

    Raises:
        UserError: Something does not fit together, or memory holds not even one trial.
    """
    streams = streams_of(experiment)
    stream = _stream_to_open(experiment, directory, streams)
    spent_tokens, is_first, has_progressed = 0, True, False
    while True:
        message = _opening(stream, streams)
        if not is_first:  # the first one's is part of what the run says when it starts
            for text in message:
                bus.emit(Note(level="info", message=text))
        own = directory.of_stream(stream.folder) if stream.label else directory
        phase = _StreamTraining(experiment, own, facts, engine, bus, stop, stream, message, is_first).train()
        spent_tokens, is_first = spent_tokens + phase.trained_tokens, False
        phase = replace(phase, trained_tokens=spent_tokens)
        if not phase.is_complete or not stream.label:
            return phase
        has_progressed = has_progressed or phase.has_progressed
        if phase.stop_reason not in ("complete", "tokens_budget"):
            break
        later, first = next_stream(experiment, streams, stream, _attempts(phase.rows))
        if later is None and phase.stop_reason == "complete" and has_progressed:
            later, has_progressed = first, False
        if later is None:
            break
        stream = later
        if stop.requested:  # the last checkpoint is what a resumed run needs
            phase.board.write(phase.rows, status="interrupted", stream_tokens=phase.stream_tokens)
            return replace(phase, is_complete=False)
    if experiment.spec.search.confirm is not None:
        return phase
    outcome = conclude(directory, phase.rows, phase.objective, streams, phase.notes)
    phase.board.write(
        phase.rows,
        status="complete",
        stream_tokens=phase.stream_tokens,
        best=outcome.best,
        test_metrics=outcome.test_metrics,
        notes=outcome.notes,
    )
    return replace(phase, outcome=outcome)


def _opening(stream: Stream, streams: Sequence[Stream]) -> tuple[str, ...]:
    if not stream.label:
        return ()
    return (f"activation stream: {stream.label} ({streams.index(stream) + 1} of {len(streams)})",)


def _stream_to_open(experiment: Experiment, directory: RunDirectory, streams: Sequence[Stream]) -> Stream:
    """Return the stream of the last checkpoint, or the next one where that has all its trials and its winner."""
    saved = last_saved(directory) if len(streams) > 1 else None
    if saved is None:
        return streams[0]
    trials = saved_attempts(saved)
    current = next(stream for stream in streams if stream.label == saved["stream"])
    later, first = next_stream(experiment, streams, current, trials)
    own = sum(trial.stream == current.label for trial in trials)
    is_over = (
        saved["scheduler"]["stopped"] == "complete"
        and suggested_per_stream(trials)[current.label] >= trials_per_stream(experiment, streams)[current.label]
        and is_finished(directory.of_stream(current.folder), own)
    )
    return (later or first or current) if is_over else current


@dataclass
class _StreamTraining:
    """Training on one stream, from its workers' opening to its end."""

    experiment: Experiment
    directory: RunDirectory
    """The run directory, as the stream sees it."""
    facts: Facts
    engine: Engine
    bus: EventBus
    stop: StopFlag
    stream: Stream
    messages: Sequence[str]
    """What is said of the stream."""
    is_first: bool
    """The run begins with it, and nothing has been said of the run yet."""
    spent_tokens: int = 0
    """Tokens that earlier openings have trained on."""
    loop: SweepLoop | None = None
    """The last opening's, so that its work is known where it fails."""

    def train(self) -> Phase:
        """Train; where memory runs out, resume with half the cohort."""
        while True:
            try:
                return self._opened()
            except OutOfMemory as error:
                reason, is_measuring = error.reason, error.is_measuring
            used = 0
            if self.loop is not None:
                self.spent_tokens += self.loop.trained_tokens
                used = next((member.number for member in self.loop.fleet if not member.is_lost), 0)
            # The traceback is gone with the except block; the loop is the last that holds the worker.
            self.is_first, self.loop = False, None
            self.engine.release()
            self._shrink(used, reason, is_measuring)

    def _shrink(self, used: int, reason: str, is_measuring: bool) -> None:
        """Halve the cohort of the worker that was used."""
        if History(self.directory).exists:  # while a winner was measured, or with a single worker left, in this process
            where, replicates = self.directory.of_worker(folder_of(used)), self.experiment.spec.search.replicates
            before, after = halve(where, replicates, reason, is_measuring=is_measuring)
            text = f"out of memory with {before} SAEs at once; the run continues with {after}"
        else:
            text = shrink(self.experiment, self.directory, reason, is_measuring=is_measuring)
        self.bus.emit(Note(level="warning", message=text))

    def _opened(self) -> Phase:
        """Train with workers that are open for that long."""
        experiment, directory, history = self.experiment, self.directory, History(self.directory)
        devices = self.engine.devices(experiment)
        known = None
        if len(devices) == 1 and not history.exists:
            only = Member(number=0, requested_device=devices[0])
            fleet = Fleet.of(self.engine.open(worker_plan(experiment, directory, self.stream, only), experiment))
            first = fleet[0]
        else:
            known = history
            fleet = Opener(experiment, directory, self.engine, self.bus, self.stream, devices).open(history)
            first = next(iter(fleet.opened.values()))
        assert first.worker is not None
        try:
            if known is None:
                saved = held_by_checkpoint(directory, first.worker.opened.driver)
            else:
                saved = history.saved() if history.exists else taken_over(experiment, directory, first)
            session = Session.of(experiment, directory, self.facts, self.stream, first.worker.opened, saved)
            return self._run(session, fleet, known)
        finally:
            fleet.close()

    def _run(self, session: Session, fleet: Fleet, history: History | None) -> Phase:
        """Run the loop once."""
        experiment = self.experiment
        doing("opening the study")
        _forget_other_decisions(session, history)
        seed = experiment.base_run().seed
        search = open_search(
            experiment, session.directory, session.objective, session.rules, seed, session.visit, self._warn
        )
        with search.study:
            self.loop = loop = SweepLoop(session, search, self.engine, fleet, self.bus, self.stop, history)
            resumed_at = loop.restore()
            self._say_start(session, fleet, search.notes, resumed_at)
            is_complete = loop.run()
            if fleet.unreadable_rows:
                # No note of the outcome: how many rows a process reads depends on where it was resumed.
                self.bus.emit(Note(level="warning", message=_unreadable(fleet.unreadable_rows)))
            if loop.stop_reason != "complete":  # what a limit left untried may be tried once it is raised
                session = replace(session, board=replace(session.board, retry_failed=0))
            rows, notes, board = loop.roster.rows(), _notes(loop), session.board
            outcome = Outcome(None, None, notes=notes, matched=loop.publisher.matched(rows))
            if not is_complete:
                board.write(rows, status="interrupted", stream_tokens=loop.stream_tokens, matched=outcome.matched)
            elif experiment.spec.search.confirm is None and session.label:
                finish_stream(session, fleet.any_worker(), rows, session.visit.stream)
            elif experiment.spec.search.confirm is None:
                outcome = finish(session, fleet.any_worker(), rows, loop.stream_tokens, notes)
            return Phase(
                is_complete=is_complete,
                rows=rows,
                outcome=outcome,
                notes=notes,
                objective=session.objective,
                board=board,
                stream_tokens=loop.stream_tokens,
                trained_tokens=self.spent_tokens + loop.trained_tokens,
                stop_reason=loop.stop_reason,
                has_progressed=len(rows) > (0 if session.saved is None else len(session.saved["trials"])),
            )

    def _warn(self, message: str) -> None:
        self.bus.emit(Note(level="warning", message=message))

    def _say_start(self, session: Session, fleet: Fleet, notes: Sequence[str], resumed_at: int | None) -> None:
        """Say with what the run starts, or of a later stream what is new about it."""
        if self.is_first:
            self.bus.emit(
                RunStarted(
                    name=self.experiment.spec.name,
                    run_dir=str(session.directory.path),
                    trials=self.experiment.n_trials,
                    slots=fleet.n_slots,
                    total_tokens=session.blocks.total_tokens,
                    goals=session.board.goals,
                    metrics=session.board.metrics,
                    resumed_at_tokens=resumed_at,
                    notes=(*self.messages, *session.notes, *notes),
                    details=fleet.details(),
                )
            )
        elif session.label and self.spent_tokens == 0:
            for note in session.notes:
                self.bus.emit(Note(level="info", message=f"{session.label}: {note}"))
        for message in fleet.damaged():
            self.bus.emit(Note(level="warning", message=message))


def _forget_other_decisions(session: Session, history: History | None) -> None:
    """Take the study back to the checkpoint where what follows that cannot be repeated; not with a log, which can.

    That is where fewer trials fit at once than did then, and where the run has continued with another space and has no
    checkpoint on this stream yet that says by which rules it went.
    """
    saved = session.saved
    if history is not None:
        return
    if saved is None or saved["stream"] != session.label:
        if session.directory.fingerprints():
            rewind(session.experiment, session.directory, {} if saved is None else tokens_at(saved))
    elif dict(saved["scheduler"]["workers"]) != {0: session.rules.policy.n_slots}:
        rewind(session.experiment, session.directory, tokens_at(saved))


def _attempts(rows: Sequence[Row]) -> list[Attempt]:
    return [Attempt(row.number, row.retry_of, row.status, row.stream) for row in rows]


def _notes(loop: SweepLoop) -> tuple[str, ...]:
    """Return what to say about how the phase ended."""
    notes = []
    if loop.stop_reason not in (None, "complete"):
        reason = str(loop.stop_reason).replace("tokens_budget", "search.tokens_budget is used up")
        notes.append(f"stopped before all trials were run: {reason}. With a higher limit the same command continues")
    if loop.fleet.skipped_batches:
        notes.append(f"{loop.fleet.skipped_batches} batches with NaN or infinite activations were skipped")
    return tuple(notes)


def _unreadable(rows: int) -> str:
    return f"{rows} row{'s' * (rows > 1)} of the dataset could not be used and {'were' if rows > 1 else 'was'} left out"
