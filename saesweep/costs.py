"""Where the seconds of a run go: the kinds of work, who measures them, how they are said, and `costs.json`.

That file has what all starts of a run have taken together.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from saesweep.atomic import write_json
from saesweep.errors import UserError
from saesweep.files import read_json_object

Kind = Literal["training", "language_model", "measuring_rungs", "measuring_ends", "saving", "set_up", "other"]
"""What time is spent on; `WORDS` says what each is. The seconds of several workers are added up."""
KINDS: tuple[Kind, ...] = get_args(Kind)

WORDS: Mapping[Kind, str] = {
    "training": "training SAEs",
    "language_model": "language model: waiting for activations to train on",
    "measuring_rungs": "measuring at rungs, on held-out text",
    "measuring_ends": "measuring finished trials, the winner on test, and published SAEs",
    "saving": "checkpoints and exports",
    "set_up": "checking, loading, splitting off held-out text",
    "other": "everything else: the search, the leaderboard, displays",
}
_SHORT: Mapping[str, tuple[Kind, ...]] = {
    "training": ("training",),
    "language model": ("language_model",),
    "measuring": ("measuring_rungs", "measuring_ends"),
    "saving": ("saving",),
    "set-up": ("set_up",),
    "other": ("other",),
}
"""The parts of one line."""


class Stopwatch:
    """Adds up the time spent on each kind of work. Work within other work is taken out of it.

    Args:
        mark: Notes a moment, such as an event in the queue of a device.
        between: Returns the seconds from one such moment to another; asked when the times are taken.
    """

    def __init__(
        self, mark: Callable[[], Any] = time.perf_counter, between: Callable[[Any, Any], float] = lambda a, b: b - a
    ) -> None:
        self._mark = mark
        self._between = between
        self._pieces: list[tuple[Kind, Any, Any]] = []
        self._now: tuple[Kind, Any] | None = None

    @contextmanager
    def spending(self, kind: Kind) -> Iterator[None]:
        """Count the time of the context under this kind."""
        around = None if self._now is None else self._now[0]
        self._turn(kind)
        try:
            yield
        finally:
            self._turn(around)

    def _turn(self, kind: Kind | None) -> None:
        moment = self._mark()
        if self._now is not None:
            self._pieces.append((*self._now, moment))
        self._now = None if kind is None else (kind, moment)

    def taken(self) -> dict[Kind, float]:
        """Return the seconds of each kind since the last call."""
        found: defaultdict[Kind, float] = defaultdict(float)
        pieces, self._pieces = self._pieces, []
        for kind, begin, end in pieces:
            found[kind] += max(0.0, self._between(begin, end))
        return dict(found)


def cost_line(costs: Mapping[Kind, float], duration: Callable[[float], str]) -> str:
    """Return `2m 10s: training 71%, language model 15%, measuring 9%, other 5%`; parts below half a percent are left out.

    Args:
        costs: Seconds by kind.
        duration: Says seconds in words.
    """
    total = sum(costs.values())
    if total <= 0:
        return ""
    shares = {name: 100 * sum(costs.get(kind, 0.0) for kind in kinds) / total for name, kinds in _SHORT.items()}
    return f"{duration(total)}: " + ", ".join(
        f"{name} {share:.0f}%" for name, share in shares.items() if round(share) > 0
    )


def measuring_share(costs: Mapping[Kind, float]) -> float:
    """Return which part of the time measuring took, 0 to 1; NaN where no time was counted."""
    total = sum(costs.values())
    return sum(costs.get(kind, 0.0) for kind in _SHORT["measuring"]) / total if total > 0 else math.nan


_FIX = "remove it: the time is then counted anew"


def read_costs(file: Path) -> dict[Kind, float]:
    """Return the seconds of each kind of work; nothing where the file is not there.

    Raises:
        UserError: The file is damaged.
    """
    if not file.exists():
        return {}
    found = read_json_object(file, fix=_FIX)
    costs: dict[Kind, float] = {}
    for kind in KINDS:
        value = found.pop(kind, 0.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"{file}: damaged, {kind} must be seconds, 0 or more, and is {str(value)[:40]!r}; {_FIX}")
        costs[kind] = float(value)
    if found:
        raise UserError(f"{file}: damaged, {sorted(found)[0][:40]!r} is no kind of work; {_FIX}")
    return costs


def write_costs(file: Path, costs: Mapping[Kind, float]) -> None:
    """Write the seconds of each kind of work."""
    write_json(file, costs)
