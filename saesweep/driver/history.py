"""What the driver of several workers keeps: a snapshot of all that it knows, and a log of what was reported since.

Decisions are a function of the reports in the order of their arrival. So a driver that starts again repeats the log on top
of the snapshot and knows what it knew when it was killed; each worker then repeats its own requests up to there. With one
worker there is neither file: what the driver knows is part of the worker's checkpoint.

Between two blocks it has every worker write a checkpoint: the last ones, and those before other rules hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from saesweep.driver.fleet import Fleet, SlotsLine
from saesweep.driver.publishing import Publisher
from saesweep.engines.protocol import WorkerFault
from saesweep.engines.records import BlockReport, SaveRequest
from saesweep.errors import UserError
from saesweep.files import read_json_object
from saesweep.runs import CheckpointStore, RunDirectory, SealedLines, sealed, unsealed, write_json


class History:
    """The two files of a run directory.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._file = directory.driver_file
        self._log = SealedLines(directory.reports_file)
        self._last = self._saved_at = 0

    @property
    def exists(self) -> bool:
        """Whether the run has had several workers."""
        return self._file.exists()

    def saved(self) -> dict[str, Any] | None:
        """Return the snapshot; None where there is none.

        Raises:
            UserError: It is damaged.
        """
        if not self.exists:
            return None
        try:
            found = unsealed(read_json_object(self._file))
        except ValueError as error:
            raise UserError(f"{self._file}: damaged, {error}; start a new run with --run-dir") from None
        self._saved_at = self._last = int(found["line"])
        driver: dict[str, Any] = found["driver"]
        return driver

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield what was noted since the snapshot, in order.

        Raises:
            UserError: A line is damaged, or missing.
        """
        self._last = self._saved_at
        for line in self._log:
            if line["line"] <= self._saved_at:
                continue
            if line["line"] != self._last + 1:
                raise UserError(
                    f"{self._log.path}: damaged, line {self._last + 1} of the run is missing; start a new run with --run-dir"
                )
            self._last = line["line"]
            yield line

    def reported(self, worker: int, report: BlockReport, seconds: float) -> dict[str, Any]:
        """Note a report before anything is decided on it; return its line."""
        # Text, because the log has no NaN and a report may hold some.
        return self._add("report", seconds, worker=worker, report=report.to_json())

    def slots(self, line: SlotsLine, seconds: float) -> dict[str, Any]:
        """Note that a worker has joined, has gone back, or is gone; return the line."""
        return self._add("slots", seconds, slots=line.to_json())

    def failed(self, number: int, reason: str, seconds: float) -> dict[str, Any]:
        """Note that a trial cannot continue, found out between two blocks; return the line."""
        return self._add("failed", seconds, number=number, reason=reason)

    def save(self, driver: Mapping[str, Any]) -> None:
        """Write a snapshot; what it holds is no longer needed in the log."""
        write_json(self._file, sealed({"line": self._last, "driver": dict(driver)}))
        self._saved_at = self._last
        self._log.keep(lambda line: line["line"] > self._saved_at)

    def _add(self, kind: str, seconds: float, **what: Any) -> dict[str, Any]:
        self._last += 1
        line = {"line": self._last, "kind": kind, "seconds": seconds, **what}
        self._log.append(line)
        return line


def held_by_checkpoint(directory: RunDirectory, driver: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return what a worker's checkpoint holds of the driver's; None without a checkpoint.

    Raises:
        UserError: Nothing, because the run has had several workers, and the driver's own file is gone.
    """
    if driver is not None and not driver:
        raise UserError(
            f"{directory.driver_file}: missing; with several workers it alone holds what the run had decided; start a new run "
            "with --run-dir"
        )
    return driver


def last_saved(directory: RunDirectory) -> Mapping[str, Any] | None:
    """Return what the driver had saved last: in a file of its own, or with one worker in its checkpoint."""
    history = History(directory)
    if history.exists:
        return history.saved()
    checkpoint = CheckpointStore(directory.checkpoints).latest_state()
    return held_by_checkpoint(directory, None if checkpoint is None else checkpoint["driver"])


def save_workers(
    fleet: Fleet,
    publisher: Publisher,
    driver: Callable[[], Mapping[str, Any]],
    warn: Callable[[str], None],
    *,
    is_only: bool,
) -> None:
    """Write a checkpoint of every worker, and wait until it is on the disk.

    Args:
        fleet: The workers, none of which trains a block.
        publisher: Tells of the checkpoints.
        driver: Returns the driver's part, which the checkpoint of the only worker holds.
        warn: Tells the user.
        is_only: Whether the run has one worker, whose fault ends it.
    """
    for member in fleet.open_members:
        assert member.worker is not None
        commands = member.todo.taken()
        request = SaveRequest(number=member.block + 1, commands=commands, driver=driver() if is_only else {})
        try:
            publisher.checkpoints(member.worker.save(request).saved)
        except WorkerFault as fault:
            if is_only:
                raise
            member.todo.put_back(commands)  # a resumed run finds an earlier checkpoint, and repeats what follows it
            warn(f"worker {member.number} wrote no last checkpoint: {fault.reason}")
