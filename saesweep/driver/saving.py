"""The checkpoints that a run writes between two blocks: the last ones, and those before other rules hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saesweep.driver.fleet import Fleet
from saesweep.driver.publishing import Publisher
from saesweep.engines.protocol import WorkerFault
from saesweep.engines.records import SaveRequest


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
    for member in fleet.open_ones:
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
