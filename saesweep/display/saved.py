"""The leaderboard that a run keeps on disk (`leaderboard.json`): read and printed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from saesweep.display.choose import is_live_terminal
from saesweep.display.json_lines import json_line
from saesweep.display.summary import result_lines
from saesweep.display.table import print_leaderboard, render_text, with_references
from saesweep.display.text import encodable, wraps_softly
from saesweep.errors import UserError
from saesweep.events import MatchedEntry, ReferenceRow, Row
from saesweep.files import is_run_directory, no_run_directory, read_json_object, refuse_links
from saesweep.messages import printable
from saesweep.status import run_has_ended

_GOAL = re.compile(r"(minimize|maximize) \w+( |$)")
_FIX = "a run that is resumed writes it again"


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """What `leaderboard.json` holds."""

    name: str
    status: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    goals: tuple[str, ...]
    best: int | None
    """Number of the exported trial; None before the end."""
    test_metrics: Mapping[str, float]
    notes: tuple[str, ...]
    references: tuple[ReferenceRow, ...] = ()
    """Published SAEs, ranked among the rows."""
    matched: tuple[MatchedEntry, ...] = ()
    """With matched L0, the best at each."""
    best_dir: str | None = None
    """Where the exported trial is, in a run directory that has one."""
    data: Mapping[str, Any]
    """The file as it is."""

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return run_has_ended(self.status)

    @property
    def table_rows(self) -> list[Row]:
        """Trials and published SAEs, best first."""
        return with_references(self.rows, self.references)

    @property
    def title(self) -> str:
        """Name, status and objective in one line."""
        return f"{self.name}: {self.status}; {', '.join(self.goals)}"

    def footer(self, *, width: int | None = None) -> list[str]:
        """Return what the run found, once it is over; tables in it are made to fit a width."""
        return result_lines(
            self.rows,
            best=self.best,
            best_dir=self.best_dir,
            test_metrics=self.test_metrics,
            notes=self.notes,
            metrics=self.metrics,
            matched=self.matched,
            width=width,
        )


def read_leaderboard(path: Path) -> Leaderboard:
    """Return the leaderboard of a run directory, or the one in a `leaderboard.json`.

    Raises:
        UserError: There is none, or it is not a leaderboard.
    """
    file = path / "leaderboard.json" if path.is_dir() else path
    if not path.exists():
        raise no_run_directory(path)
    if not file.exists():
        if is_run_directory(path):
            raise UserError(
                f"{path}: no leaderboard yet; the run writes it after its first block: wait, or resume it with the same command"
            )
        raise UserError(
            f"{file}: not there; a run writes it after its first block, so name a run directory of saesweep"
        )
    if path.is_dir():
        refuse_links(path, deep=False)
    elif path.suffix != ".json":
        raise no_run_directory(path)
    data = read_json_object(file, fix=_FIX)
    try:
        board = Leaderboard(
            name=data["name"],
            status=data["status"],
            rows=tuple(map(Row.from_json, data["rows"])),
            references=tuple(map(ReferenceRow.from_json, data.get("references", ()))),
            metrics=tuple(data["metrics"]),
            goals=tuple(data["goals"]),
            best=data.get("best"),
            test_metrics=_numbers(data.get("test_metrics", {})),
            notes=tuple(data.get("notes", ())),
            matched=tuple(MatchedEntry(**entry) for entry in data.get("matched", ())),
            best_dir=str(file.parent / "best") if (file.parent / "best" / "cfg.json").is_file() else None,
            data=data,
        )
        _check_types(board)
        int(data.get("stream_tokens", 0))
        if not board.goals or not all(_GOAL.match(goal) for goal in board.goals):
            raise ValueError(f"goals are {board.goals}")
        for entry in board.matched:
            if entry.goal not in entry.metrics or not entry.target_l0 > 0:
                raise ValueError(
                    f"matched has an entry of {entry.architecture} at L0 {entry.target_l0} without its goal"
                )
        return board
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = "; ".join(str(error).splitlines()[:3])
        raise UserError(
            f"{file}: is no leaderboard of this version of saesweep ({type(error).__name__}: {reason}); {_FIX}"
        ) from None


def show_leaderboard(
    board: Leaderboard, stream: TextIO, *, as_json: bool = False, env: Mapping[str, str] | None = None
) -> None:
    """Print a leaderboard: in colour and as wide as the screen on a terminal, at its natural width elsewhere."""
    if as_json:
        text = json_line(board.data)
    elif is_live_terminal(stream, os.environ if env is None else env):
        from saesweep.display.live import make_console

        console = make_console(stream, os.environ if env is None else env)
        console.print(printable(board.title), markup=False, soft_wrap=True)
        print_leaderboard(console, board.table_rows, metrics=board.metrics, best=board.best)
        for line in board.footer(width=console.width):
            console.print(printable(line), markup=False, soft_wrap=wraps_softly(line, console.width))
        return
    else:
        text = "\n".join(
            [board.title, render_text(board.table_rows, metrics=board.metrics, best=board.best), *board.footer()]
        )
    stream.write(encodable(text, getattr(stream, "encoding", None)) + "\n")
    stream.flush()


def _check_types(board: Leaderboard) -> None:
    """Raise a ValueError where a field but the rows, which are read already, is of another type than it says."""
    from pydantic import TypeAdapter

    values = {field.name: getattr(board, field.name) for field in fields(board)}
    TypeAdapter(Leaderboard).validate_python({**values, "rows": (), "references": ()})


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Undo what JSON makes of NaN."""
    return {name: float("nan") if value is None else value for name, value in metrics.items()}
