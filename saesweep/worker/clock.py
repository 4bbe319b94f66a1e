"""The worker's stopwatch: on a GPU, which works behind the program's back, time is read from the device's own queue."""

from __future__ import annotations

from typing import Any

import torch

from saesweep.costs import Stopwatch


def stopwatch_for(device: torch.device) -> Stopwatch:
    """Return a stopwatch for work on a device."""
    if device.type != "cuda":
        return Stopwatch()

    def mark() -> Any:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        return event

    def between(begin: Any, end: Any) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return Stopwatch(mark, between)
