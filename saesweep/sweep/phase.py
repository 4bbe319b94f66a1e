"""One pass of training to its end: the search, or the confirmation of its finalists."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import torch

from saesweep.activations import SourceFacts
from saesweep.errors import UserError
from saesweep.events import EventBus, Note, Row, RunStarted
from saesweep.experiment import Experiment
from saesweep.runs import RunDirectory
from saesweep.specs import ObjectiveSpec
from saesweep.sweep.finish import Outcome, finish
from saesweep.sweep.loop import SweepLoop
from saesweep.sweep.memory import is_out_of_memory, shrink
from saesweep.sweep.progress import Board, goal_texts, metric_columns
from saesweep.sweep.references import measure_references
from saesweep.sweep.search import open_search
from saesweep.sweep.setup import Setup, prepare
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


def train(experiment: Experiment, directory: RunDirectory, facts: SourceFacts, bus: EventBus, stop: StopFlag) -> Phase:
    """Train until nothing is left to do; where memory runs out, go on with half the cohort.

    Raises:
        UserError: Something does not fit together, or memory holds not even one trial.
    """
    spent_tokens, is_first = 0, True
    while True:
        setup = prepare(experiment, directory, facts)
        loops: list[SweepLoop] = []
        try:
            return _train(setup, bus, stop, loops, spent_tokens, is_first)
        except (MemoryError, RuntimeError, OSError) as error:
            if isinstance(error, UserError) or not is_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
        finally:
            setup.source.close()
        spent_tokens += sum(loop.trained_tokens for loop in loops)
        is_first = False
        # The traceback is gone with the except block; these names are the last that hold the cohort and the model.
        del setup
        loops.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        bus.emit(Note(level="warning", message=shrink(directory, experiment.spec.search.replicates, reason)))


def _train(
    setup: Setup, bus: EventBus, stop: StopFlag, loops: list[SweepLoop], spent_tokens: int, is_first: bool
) -> Phase:
    """Run the loop once; `loops` receives it, so that its work is known where it fails."""
    experiment = setup.experiment
    setup.references = measure_references(setup)
    search = open_search(experiment, setup.directory, setup.objective, setup.blocks, setup.n_slots, setup.base.seed)
    with search.study:
        loop = SweepLoop(setup, search, bus, stop)
        loops.append(loop)
        resumed_at, damaged = loop.restore()
        if is_first:
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
                    notes=(*setup.notes, *search.notes),
                )
            )
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
        elif experiment.spec.search.confirm is None:
            outcome = finish(setup, rows, stream_tokens, _notes(loop))
        trained_tokens = spent_tokens + loop.trained_tokens
        return Phase(is_complete, rows, outcome, _notes(loop), setup.objective, board, stream_tokens, trained_tokens)


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
