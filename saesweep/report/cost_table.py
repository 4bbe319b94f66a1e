"""The small table of a report that says where the time went."""

from __future__ import annotations

from pathlib import Path

from saesweep.costs import KINDS, WORDS
from saesweep.display.text import duration
from saesweep.report.tables import Table, row_of
from saesweep.runs import read_costs


def cost_table(file: Path) -> Table | None:
    """Return the table of a run's `costs.json`, all starts together; None where it has none yet.

    Raises:
        UserError: The file is damaged.
    """
    costs = read_costs(file)
    total = sum(costs.values())
    if total <= 0:
        return None
    spent = sorted(((costs[kind], kind) for kind in KINDS if costs[kind] > 0), reverse=True)
    rows = [row_of([WORDS[kind], duration(seconds), f"{100 * seconds / total:.0f}%"]) for seconds, kind in spent]
    return Table(heads=["work", "time", "share"], rows=rows, text_columns={0})
