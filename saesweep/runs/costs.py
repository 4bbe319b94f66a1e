"""`costs.json`: the seconds that all starts of a run have taken together, by kind of work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from saesweep.atomic import write_json
from saesweep.costs import KINDS, Kind
from saesweep.errors import UserError
from saesweep.files import read_json_object

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
