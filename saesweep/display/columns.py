"""The leaderboard as columns of text: what is shown, in which order, and what gives way on a narrow screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from saesweep.display.text import MISSING, heading, label, metric_value, parameter_label, percent, setting
from saesweep.events import ReferenceRow, Row
from saesweep.messages import short_count
from saesweep.status import LIVE

BEST_MARK = "★"
FRONT_MARK = "◆"
BASELINE_MARK = "*"
REFERENCE_MARK = "r"
BAR_CELLS = 6
_KEEP_SEARCHED = 70
_SHORTENED_BEFORE = 50
"""Columns from this number on are left out only once headings are short."""
DEFAULT_METRICS = ("l0", "delta_ce", "explained_variance", "dead_fraction")
_SHOWN_ELSEWHERE = frozenset(
    {
        "sae.architecture",
        "lr",
        "hook_name",
        "sae.k",
        "sae.l0_coefficient",
        "sae.l1_coefficient",
        "sae.target_l0",
    }
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the leaderboard."""

    name: str
    """What the column shows, for the line that names columns left out."""
    heading: str
    """One or two lines."""
    cells: tuple[str, ...]
    align: Literal["left", "right"] = "right"
    keep: int = 0
    """Columns with the lowest number are left out first where the screen is narrow; see `fit_columns`."""
    short: str = ""
    """A heading for narrow screens; empty where there is none."""
    short_cells: tuple[str, ...] = ()
    """Cells for narrow screens; empty where there are none."""

    @property
    def width(self) -> int:
        """Characters of the widest cell or of the heading."""
        return max(len(text) for text in (*self.heading.splitlines(), *self.cells))


def leaderboard_columns(
    rows: Sequence[Row], *, metrics: Sequence[str] = (), bars: bool = False, best: int | None = None
) -> list[Column]:
    """Return the columns of a leaderboard that say something, cells in the order of `rows`.

    Args:
        rows: Trials, best first.
        metrics: Metric names, most important first. When empty, the usual ones that the rows have.
        bars: Draw a progress bar in the state of a training trial.
        best: Number of the trial to mark as the best; None: there is none yet.
    """
    names = list(metrics) or usual_metrics(rows)
    columns = [
        Column(name="rank", heading="rank", cells=tuple(_rank(r, best) for r in rows), keep=90),
        Column(name="trial", heading="trial", cells=tuple(row_label(r) for r in rows), keep=100),
        Column(
            name="architecture",
            heading="architecture",
            cells=tuple(r.architecture for r in rows),
            align="left",
            keep=95 if len({r.architecture for r in rows}) > 1 else 45,
            short="arch.",
        ),
        Column(name="sparsity", heading="sparsity", cells=tuple(r.sparsity for r in rows), align="left", keep=85),
    ]
    rates = tuple(f"{r.lr:.2g}" if r.lr == r.lr else MISSING for r in rows)
    is_searched = any("lr" in r.params for r in rows)
    if is_searched or len(set(rates)) != 1:  # one value for all says nothing
        columns.append(Column(name="lr", heading="lr", cells=rates, keep=_KEEP_SEARCHED if is_searched else 45))
    if any(r.stream for r in rows):
        columns.insert(
            2, Column(name="stream", heading="stream", cells=tuple(r.stream for r in rows), align="left", keep=92)
        )
    if len({r.hook for r in rows}) > 1:
        columns.append(
            Column(name="hook", heading="hook", cells=tuple(r.hook for r in rows), align="left", keep=_KEEP_SEARCHED)
        )
    columns += _searched(rows)
    # The two most important metrics, the goals as a rule, outlive what was searched; the others give way to it.
    columns += [
        _metric_column(name, rows, keep=(80 if position < 2 else 60) - position) for position, name in enumerate(names)
    ]
    columns.append(Column(name="tokens", heading="tokens", cells=tuple(_trained(r) for r in rows), keep=40))
    if any(r.measured_at_tokens not in (None, r.tokens) for r in rows):
        cells = tuple(_tokens(r.measured_at_tokens) for r in rows)
        columns.append(Column(name="measured at", heading="measured\nat", cells=cells, keep=20))
    if any(row.joined_at_tokens for row in rows):
        cells = tuple(_tokens(r.joined_at_tokens) for r in rows)
        columns.append(Column(name="joined at", heading="joined\nat", cells=cells, keep=10))
    columns.append(
        Column(name="state", heading="state", cells=tuple(state_text(r, bars) for r in rows), align="left", keep=88)
    )
    return [column for column in columns if not rows or not {MISSING, ""}.issuperset(column.cells)]


def fit_columns(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """Return the columns that fit in `width` characters, and the names of those left out, the least important ones first."""
    shown = dict(enumerate(columns))
    left_out: list[int] = []
    while len(shown) > 1 and table_width([*shown.values()]) > width:
        place, last_kept = min(shown.items(), key=lambda item: item[1].keep)
        if last_kept.keep >= _SHORTENED_BEFORE and any(column.short or column.short_cells for column in shown.values()):
            shown = {place: _shortened(column) for place, column in shown.items()}
            continue
        del shown[place]
        left_out.append(place)
    for place in left_out[::-1]:  # a wide column that went last may have made room for a narrower one
        wider = {**shown, place: columns[place]}
        if table_width([*wider.values()]) <= width:
            shown = wider
            left_out.remove(place)
    return [shown[place] for place in sorted(shown)], [columns[place].name for place in left_out]


def _shortened(column: Column) -> Column:
    return replace(
        column,
        heading=column.short or column.heading,
        cells=column.short_cells or column.cells,
        short="",
        short_cells=(),
    )


def table_width(columns: Sequence[Column]) -> int:
    """Return the characters that a table of these columns takes: two blanks between neighbours."""
    return sum(column.width + 2 for column in columns) - 2


def usual_metrics(rows: Sequence[Row]) -> list[str]:
    """Return the usual metrics that at least one row has; all of the rows' metrics where it has none of these."""
    present = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return [name for name in DEFAULT_METRICS if name in present] or present


def state_text(row: Row, bars: bool = False) -> str:
    """Return `waiting`, `training 43%`, `pruned 20%`, `failed 1%`, `complete`, `infeasible` or `reference`."""
    share = percent(row.tokens, row.total_tokens)
    if row.status == "training":
        return f"{bar(row.tokens, row.total_tokens, BAR_CELLS)} {share}" if bars else f"training {share}"
    if row.status in ("pruned", "failed"):
        return f"{row.status} {share}"
    # Constraints judge finished trials only, so an infeasible one is complete.
    return row.status if row.feasible else "infeasible"


def bar(part: int, whole: int, cells: int) -> str:
    """Return a progress bar of `cells` characters."""
    full = min(cells, cells * part // whole) if whole > 0 else 0
    return "━" * full + "─" * (cells - full)


def states_of(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return how many trials each architecture has in each state; the architecture of the first trial comes first."""
    found: dict[str, Counter[str]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        found.setdefault(row.architecture, Counter())[row.status] += 1
    return {architecture: dict(states) for architecture, states in found.items()}


def architecture_counts(states: Mapping[str, Mapping[str, int]]) -> str:
    """Return how many trials each architecture has had, such as `batchtopk 4 (2 complete, 2 pruned)`."""
    parts = []
    for architecture, own in states.items():
        detail = ", ".join(
            f"{own[state]} {state}" for state in ("complete", *LIVE, "pruned", "failed") if own.get(state)
        )
        parts.append(f"{architecture} {sum(own.values())} ({detail})")
    return " · ".join(parts)


def _rank(row: Row, best: int | None) -> str:
    is_best = best is not None and row.number == best and not isinstance(row, ReferenceRow)
    mark = BEST_MARK * is_best + FRONT_MARK * row.on_front
    mark = f"{mark} " if mark else ""
    if row.rank is None:
        return mark + MISSING
    # Ranks that seeds alone could swap are one bracket: `2 (1-3)` is the second of three that are tied.
    first = row.tied_from_rank
    tied = f" ({first}-{row.tied_to_rank})" if first is not None and first != row.tied_to_rank else ""
    return f"{mark}{row.rank}{tied}"


def row_label(row: Row) -> str:
    """Return a trial's number, that of a baseline or a reference with its mark."""
    if isinstance(row, ReferenceRow):
        return f"{REFERENCE_MARK}{row.number}"
    return f"{BASELINE_MARK}{row.number}" if row.is_baseline else str(row.number)


def _trained(row: Row) -> str:
    return MISSING if isinstance(row, ReferenceRow) else short_count(row.tokens)


def _tokens(value: int | None) -> str:
    return MISSING if value is None else short_count(value)


def _metric_column(name: str, rows: Sequence[Row], keep: int) -> Column:
    cells = tuple(metric_value(name, row.metrics.get(name)) for row in rows)
    title = heading(name)
    if name == "dead_fraction":
        # A dead fraction means nothing without its window: in the heading where all rows share it, else in each cell.
        windows = {row.dead_window_tokens for row in rows if name in row.metrics}
        if len(windows) == 1 and None not in windows:
            title += f"\nin {short_count(next(w for w in windows if w is not None))}"
        elif windows:
            title += "\n(in tokens)"
            cells = tuple(
                cell if cell == MISSING else f"{cell} ({_tokens(row.dead_window_tokens)})"
                for cell, row in zip(cells, rows, strict=True)
            )
    return Column(name=label(name), heading=title, cells=cells, keep=keep)


def _side(cells: Sequence[str]) -> Literal["left", "right"]:
    """Return where the cells of a column are aligned: numbers on the right."""
    return "right" if all(cell == MISSING or cell[:1].isdecimal() for cell in cells) else "left"


def _searched(rows: Sequence[Row]) -> list[Column]:
    """Columns of the searched parameters that no other column shows and that differ between trials."""
    elsewhere = set(_SHOWN_ELSEWHERE)
    if any(row.stream for row in rows):
        from saesweep.experiment.fields import STREAM_PATHS  # not at start-up

        elsewhere |= STREAM_PATHS.keys()
    paths = dict.fromkeys(path for row in rows for path in row.params if path not in elsewhere)
    columns = []
    for path in paths:
        cells = tuple(setting(row.params[path]) if path in row.params else MISSING for row in rows)
        if len(set(cells)) > 1:
            name = parameter_label(path).rpartition(".")[2]
            title = name.replace(" ", "\n")
            columns.append(Column(name=name, heading=title, cells=cells, align=_side(cells), keep=_KEEP_SEARCHED))
    return columns
