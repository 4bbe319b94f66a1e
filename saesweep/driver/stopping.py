"""What ends a search before all its trials are run: a limit of the file, or Ctrl-C (for patience see `patience.py`).

Ctrl-C: while training, once finishes the block and saves, twice stops now; at any other time once stops now.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from saesweep.driver.ranking import costs, infeasibility
from saesweep.driver.trials import Trial
from saesweep.scheduler import dominates
from saesweep.specs import ObjectiveSpec, SearchSpec


def stop_reason(
    search: SearchSpec, objective: ObjectiveSpec, ended: Sequence[Trial], training_seconds: float
) -> str | None:
    """Return why to stop now; None to continue.

    Args:
        search: The file's limits.
        objective: What is optimised.
        ended: Trials that were pruned or finished, in the order in which they ended.
        training_seconds: Time of training, over all starts of the run.
    """
    if search.time_budget is not None and training_seconds >= search.time_budget:
        return f"search.time_budget of {search.time_budget:g} s is used up"
    if search.target is not None and not objective.is_pareto:
        finished = [t for t in ended if t.status == "complete" and infeasibility(t.metrics, objective) == 0]
        goal = objective.goals[0]
        for trial in finished:
            if costs(trial.metrics, objective)[0] <= goal.sign * search.target:
                value = trial.metrics[goal.metric]
                return f"search.target is reached: trial {trial.number} has {goal.metric} {value:.6g}"
    return None


def since_better(ended: Sequence[Trial], objective: ObjectiveSpec) -> int:
    """Return how many trials have ended since the last new best (on several goals: new point of the front).

    Before the first feasible result there is nothing to be better than: 0.
    """
    front: list[tuple[float, ...]] = []
    count = 0
    for trial in ended:
        count += bool(front)
        if trial.status != "complete" or infeasibility(trial.metrics, objective) > 0:
            continue
        cost = costs(trial.metrics, objective)
        if not any(other == cost or dominates(other, cost) for other in front):
            front = [other for other in front if not dominates(cost, other)] + [cost]
            count = 0
    return count


class StopFlag:
    """Catches SIGINT and SIGTERM while a sweep runs in the main thread.

    Within `finishing_blocks` the first signal sets `requested`. Every other one raises KeyboardInterrupt where the program
    is: set-up (tokenising, splitting, loading, estimating norms) and the last measurements have nothing to finish first.
    """

    def __init__(self) -> None:
        self.requested = False
        self._is_training = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def finishing_blocks(self) -> Iterator[None]:
        """Let one signal be answered at the end of a block."""
        self._is_training = True
        try:
            yield
        finally:
            self._is_training = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        is_first, self.requested = not self.requested, True
        if not (is_first and self._is_training):
            raise KeyboardInterrupt
