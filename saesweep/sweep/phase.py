"""One pass of training to its end: the search, or the confirmation of its finalists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from saesweep.errors import UserError
from saesweep.events import EventBus, Note, Row, RunStarted, doing
from saesweep.experiment import Experiment, streams_of
from saesweep.runs import CheckpointStore, RunDirectory
from saesweep.specs import ObjectiveSpec
from saesweep.sweep.by_stream import conclude, finish_stream, is_finished
from saesweep.sweep.finish import Outcome, finish
from saesweep.sweep.loaded_model import LoadedModel
from saesweep.sweep.loop import SweepLoop
from saesweep.sweep.memory import MeasuringMemoryError, is_out_of_memory, shrink
from saesweep.sweep.progress import Board, goal_texts, metric_columns
from saesweep.sweep.references import measure_references
from saesweep.sweep.search import open_search
from saesweep.sweep.segments import Segment, Segments
from saesweep.sweep.setup import Facts, Setup, prepare
from saesweep.sweep.stop import StopFlag


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


def train(experiment: Experiment, directory: RunDirectory, facts: Facts, bus: EventBus, stop: StopFlag) -> Phase:
    """Train until nothing is left to do: on one activation stream after the other.

    Raises:
        UserError: Something does not fit together, or memory holds not even one trial.
    """
    if any(stream.label for stream in streams_of(experiment)):
        return _train_streams(experiment, directory, facts, bus, stop)
    return _stay(experiment, directory, facts, bus, stop, None, LoadedModel())


def _train_streams(
    experiment: Experiment, directory: RunDirectory, facts: Facts, bus: EventBus, stop: StopFlag
) -> Phase:
    """Visit the streams, one segment after the other, from the one that the last checkpoint is of.

    A segment begins where a resumed run with a higher number of trials would: from the checkpoint at the end of the one
    before, with another stream open. So everything that holds for a resumed run (same trials, same bits) holds here.
    """
    streams = streams_of(experiment)
    segments, loaded = Segments(experiment, streams, directory), LoadedModel()
    index, first, counts, damaged = _where_to_go_on(directory, segments)
    spent_tokens, is_first = 0, True
    while True:
        segment = segments.segment(index, first, counts)
        name = f"{segment.stream.label}, trials {segment.first_trial} to {segment.n_trials - 1}"
        message = f"activation stream: {name} (segment {index + 1} of {len(segments)})"
        if not is_first:  # the first one's is part of what the run says when it starts
            bus.emit(Note(level="info", message=message))
        own = directory.of_stream(segment.stream.folder)
        phase = _stay(experiment, own, facts, bus, stop, segment, loaded, is_first, (*damaged, message))
        spent_tokens, is_first = spent_tokens + phase.trained_tokens, False
        phase = replace(phase, trained_tokens=spent_tokens)
        if not phase.is_complete:
            return phase
        counts = Counter(row.stream for row in phase.rows)
        index, is_last = index + 1, index + 1 == len(segments)
        if phase.stop_reason not in ("complete", "tokens_budget"):
            break
        if is_last and not (phase.stop_reason == "complete" and len(phase.rows) > first and segments.extend(counts)):
            break
        first = len(phase.rows)
        if stop.requested:  # the checkpoint at the end of the segment is what a resumed run needs
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


def _where_to_go_on(directory: RunDirectory, segments: Segments) -> tuple[int, int, Mapping[str, int], list[str]]:
    """Return the segment to open first, the trials before it, how many each stream has had, and what was damaged."""
    checkpoint, damaged = CheckpointStore(directory.checkpoints).load_latest()
    if checkpoint is None:
        return 0, 0, {}, damaged
    state = checkpoint.state
    index, first = int(state["segment"]), int(state["first_trial"])
    labels = [trial["stream"] for trial in state["trials"]]
    segment = segments.segment(index, first, Counter(labels[:first]))
    own = directory.of_stream(segment.stream.folder)
    is_over = (
        state["scheduler"]["stopped"] == "complete"
        and len(labels) >= segment.n_trials
        and is_finished(own, Counter(labels)[segment.stream.label])
    )
    if is_over and (index + 1 < len(segments) or segments.extend(Counter(labels))):
        return index + 1, len(labels), Counter(labels), damaged
    return index, first, Counter(labels[:first]), damaged


def _stay(
    experiment: Experiment,
    directory: RunDirectory,
    facts: Facts,
    bus: EventBus,
    stop: StopFlag,
    segment: Segment | None,
    loaded: LoadedModel,
    is_first: bool = True,
    messages: Sequence[str] = (),
) -> Phase:
    """Train on one stream; where memory runs out, go on with half the cohort."""
    spent_tokens = 0
    while True:
        setup = prepare(experiment, directory, facts, segment, loaded)
        loops: list[SweepLoop] = []
        try:
            return _train(setup, bus, stop, loops, spent_tokens, is_first, messages)
        except (MemoryError, RuntimeError, OSError) as error:
            if isinstance(error, UserError) or not is_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            is_measuring = isinstance(error, MeasuringMemoryError)
        finally:
            setup.source.close()
        spent_tokens += sum(loop.trained_tokens for loop in loops)
        is_first = False
        # The traceback is gone with the except block; these names are the last that hold the cohort and the model.
        del setup
        loops.clear()
        loaded.drop()
        said = shrink(directory, experiment.spec.search.replicates, reason, is_measuring=is_measuring)
        bus.emit(Note(level="warning", message=said))


def _train(
    setup: Setup,
    bus: EventBus,
    stop: StopFlag,
    loops: list[SweepLoop],
    spent_tokens: int,
    is_first: bool,
    messages: Sequence[str],
) -> Phase:
    """Run the loop once; `loops` receives it, so that its work is known where it fails."""
    experiment = setup.experiment
    setup.references = measure_references(setup)
    doing("opening the study")
    seed = experiment.base_run().seed
    search = open_search(experiment, setup.directory, setup.objective, setup.rules, seed, setup.segment)
    with search.study:
        loop = SweepLoop(setup, search, bus, stop)
        loops.append(loop)
        resumed_at, damaged = loop.restore()
        if is_first:
            bus.emit(
                RunStarted(
                    name=experiment.spec.name,
                    run_dir=str(setup.directory.path),
                    trials=search.policy.n_trials if setup.segment is None else experiment.n_trials,
                    slots=setup.n_slots,
                    total_tokens=setup.blocks.total_tokens,
                    goals=goal_texts(setup),
                    metrics=metric_columns(setup),
                    resumed_at_tokens=resumed_at,
                    notes=(*messages, *setup.notes, *search.notes),
                    details=tuple(setup.details),
                )
            )
        elif setup.segment is not None and spent_tokens == 0:
            for note in setup.notes:
                bus.emit(Note(level="info", message=f"{setup.segment.stream.label}: {note}"))
        for message in damaged:
            bus.emit(Note(level="warning", message=message))
        is_complete = loop.run()
        if setup.source.stream.unreadable_rows:
            # No note of the outcome: how many rows a process reads depends on where it was resumed.
            bus.emit(Note(level="warning", message=_unreadable(setup.source.stream.unreadable_rows)))
        rows = loop.rows()
        stream_tokens = setup.source.stream.tokens_served
        board = Board.of(setup)
        outcome = Outcome(None, None, notes=_notes(loop), matched=loop.matched(rows))
        if not is_complete:
            board.write(rows, status="interrupted", stream_tokens=stream_tokens, matched=loop.matched(rows))
        elif experiment.spec.search.confirm is None and setup.segment is not None:
            finish_stream(setup, rows, setup.segment.stream)
        elif experiment.spec.search.confirm is None:
            outcome = finish(setup, rows, stream_tokens, _notes(loop))
        trained_tokens = spent_tokens + loop.trained_tokens
        return Phase(
            is_complete=is_complete,
            rows=rows,
            outcome=outcome,
            notes=_notes(loop),
            objective=setup.objective,
            board=board,
            stream_tokens=stream_tokens,
            trained_tokens=trained_tokens,
            stop_reason=loop.stop_reason,
        )


def _notes(loop: SweepLoop) -> tuple[str, ...]:
    """Return what to say about how the phase ended."""
    notes = []
    if loop.stop_reason not in (None, "complete"):
        reason = str(loop.stop_reason).replace("tokens_budget", "search.tokens_budget is used up")
        notes.append(f"stopped before all trials were run: {reason}. With a higher limit the same command goes on")
    if loop.skipped_batches:
        notes.append(f"{loop.skipped_batches} batches with NaN or infinite activations were skipped")
    return tuple(notes)


def _unreadable(rows: int) -> str:
    return f"{rows} row{'s' * (rows > 1)} of the dataset could not be used and {'were' if rows > 1 else 'was'} left out"
