"""Times rivals in turns: the clock of start-up measurements."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

CLEARLY = 0.9
"""A rival must be this much faster than the default: near-ties would be decided by noise, differently at each start."""
_ROUNDS = 3


class Timer:
    """Times rivals in turns.

    Args:
        device: Waited for before a clock is read.
        deadline: No new measurement starts after this reading of `time.perf_counter`.
    """

    def __init__(self, device: torch.device, deadline: float) -> None:
        self.device, self._deadline = device, deadline

    def seconds(self, rivals: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Return each rival's least time over a few alternating rounds; those that time did not allow are left out."""
        best: dict[str, float] = {}
        for round_ in range(_ROUNDS + 1):
            for name, work in rivals.items():
                if time.perf_counter() > self._deadline:
                    return best
                start = time.perf_counter()
                work()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                # The first round warms up: memory is touched, libraries pick their code.
                if round_ > 0:
                    best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
        return best
