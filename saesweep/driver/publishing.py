"""What others see of a run while it trains: events for displays and trackers, and `leaderboard.json`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from saesweep.collection import paused_collection
from saesweep.driver.fleet import Fleet, Member
from saesweep.driver.matched import matched_entries
from saesweep.driver.progress import Pace, Progress
from saesweep.driver.ranking import best_so_far
from saesweep.driver.roster import Roster
from saesweep.driver.session import Session
from saesweep.engines.records import BlockReport, Saved
from saesweep.events import BlockDone, CheckpointSaved, EventBus, MatchedEntry, ReferenceRow, Row, WorkerNews
from saesweep.experiment import are_comparable

SHOWN_ROWS = 100
"""Trials that have ended in the events of a block: more than a screen shows."""


class Publisher:
    """Tells how far the run is.

    Args:
        session: What was opened and decided.
        roster: The trials.
        fleet: The workers.
        bus: Who wants to know.
        has_rows: There are several workers, each with a row of its own.
    """

    def __init__(self, session: Session, roster: Roster, fleet: Fleet, bus: EventBus, *, has_rows: bool) -> None:
        self._session = session
        self._roster = roster
        self._fleet = fleet
        self._bus = bus
        self._has_rows = has_rows
        self._progress = Progress()
        self._board_pace = Pace()
        self._arrived = time.monotonic()
        self._references: tuple[ReferenceRow, ...] = ()
        self._matched: tuple[MatchedEntry, ...] = ()

    def begin_block(self) -> None:
        """A block begins, after all that has been trained until now."""
        self._progress.begin_block(self._roster.sae_tokens(), self._roster.expected_sae_tokens())

    def within_block(self) -> None:
        """Say how far the blocks are that are trained now, if it is time to."""
        if not self._progress.is_due():
            return
        batch_tokens = self._session.experiment.base_run().train_batch_size_tokens
        steps = {member.number: member.steps for member in self._fleet}
        tokens = {
            trial.number: min(trial.tokens + steps.get(trial.worker, 0) * batch_tokens, trial.total_tokens)
            for trial in self._roster.live.values()
            if trial.status == "training"
        }
        more = sum(now - self._roster[number].tokens for number, now in tokens.items()) * self._session.replicates
        furthest = max(self._fleet, key=lambda member: member.stream_tokens + member.steps * batch_tokens)
        self._bus.emit(
            self._progress.within(
                tokens,
                self._roster.sae_tokens() + more,
                stream_tokens=furthest.stream_tokens + furthest.steps * batch_tokens,
                epoch=furthest.epoch,
            )
        )

    def block_done(self, member: Member, report: BlockReport, seconds: float, trained_tokens: int) -> None:
        """Say what a block came to.

        Args:
            member: The worker.
            report: Its report.
            seconds: What the block took, with what was decided on it; of several workers, the time since the report before.
            trained_tokens: Tokens trained on in it, over all trials and replicates.
        """
        done, expected = self._roster.sae_tokens(), self._roster.expected_sae_tokens()
        if self._board_pace.is_due():
            with self._board_pace.taking(), paused_collection():  # a row of each trial is made for it
                self._write_board()
        live = self._roster.live_rows()
        rows = self._roster.leaderboard.rows(live, SHOWN_ROWS)
        if self._has_rows:
            self.worker(member, tokens_per_second=trained_tokens / seconds if seconds > 0 else 0.0)
            seconds, self._arrived = time.monotonic() - self._arrived, time.monotonic()
        rate, eta_seconds = self._progress.update(seconds, trained_tokens, expected - done)
        comparable = are_comparable(self._session.streams)
        self._bus.emit(
            BlockDone(
                block=report.number,
                stream_tokens=report.stream_tokens,
                sae_tokens=done,
                expected_sae_tokens=expected,
                seconds=seconds,
                sae_tokens_per_second=rate,
                eta_seconds=eta_seconds,
                losses={number: one.loss for number, one in report.trials.items()},
                rows=rows,
                states=self._roster.leaderboard.states(live),
                best=best_so_far(rows, self._session.objective) if comparable else None,
                epoch=report.epoch,
                references=self._references,
                matched=self._matched,
            )
        )

    def worker(self, member: Member, *, tokens_per_second: float | None = None) -> None:
        """Say how a worker is, where there are several."""
        if not self._has_rows:
            return
        trials = sorted(
            t.number for t in self._roster.live.values() if t.status == "training" and t.worker == member.number
        )
        self._bus.emit(
            WorkerNews(
                worker=member.number,
                device=member.device,
                state="gone" if member.is_lost else "training" if trials else "idle",
                stream_tokens=member.stream_tokens,
                sae_tokens_per_second=tokens_per_second,
                trials=tuple(trials),
            )
        )

    def checkpoints(self, saved: Sequence[Saved]) -> None:
        """Say which checkpoints have reached the disk."""
        for one in saved:
            self._bus.emit(CheckpointSaved(block=one.block, stream_tokens=one.stream_tokens, seconds=one.seconds))

    def matched(self, rows: Sequence[Row]) -> tuple[MatchedEntry, ...]:
        """Return the best at each L0 so far, its ties judged by seeds alone; nothing without matched L0."""
        return () if self._session.objective.matched is None else matched_entries(rows, self._session.objective)

    def _write_board(self) -> None:
        """Write the whole leaderboard, and what takes all its rows to say."""
        rows, board = self._roster.rows(), self._session.board
        self._references, self._matched = board.references(rows), self.matched(rows)
        self._session.directory.check_is_held()  # writing would make a new folder in its place
        board.write(rows, status="running", stream_tokens=self._fleet.stream_tokens, matched=self._matched)
