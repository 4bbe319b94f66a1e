"""How often the 90% intervals of forecasts hold the end: each source by a table that was fitted without it, no trial finished.

python benchmarks/curves/coverage.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.curves.curves import Curve, CurveSet, load, shipped
from benchmarks.curves.fit import course_of, family_of, fit, kind_of
from saesweep.forecast import Report, Table, forecast_all, from_json

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
METRICS = ("explained_variance", "l0")


def left_out(sets: Sequence[CurveSet]) -> Iterator[tuple[CurveSet, Table]]:
    """Yield each source with the table of all the others."""
    for own in sets:
        yield own, from_json(fit(curve for other in sets if other is not own for curve in other.curves))


def held(own: CurveSet, table: Table, metric: str, share: float) -> dict[str, list[bool]]:
    """Return by family whether the 90% interval of a forecast from a share of the run held the end, for every trial."""
    by_kind: dict[tuple[str, int], list[Curve]] = {}
    for curve in own.curves:
        # The L0 of a k needs no forecast.
        if curve.is_complete and curve.length == 1.0 and not (metric == "l0" and curve.setting_field == "k"):
            by_kind.setdefault((kind_of(curve), curve.seed), []).append(curve)
    found: dict[str, list[bool]] = {}
    for curves in by_kind.values():
        points = [min(c.points, key=lambda p, c=c: abs(p.step / c.total_steps - share)) for c in curves]  # type: ignore[misc]
        reports = [
            Report(course_of(c, [p.step]), metric, 0, getattr(p, metric), p.l0)
            for c, p in zip(curves, points, strict=True)
        ]
        for curve, forecast in zip(curves, forecast_all(table, reports, {}), strict=True):
            low, high = forecast.interval(0.9)
            found.setdefault(family_of(curve), []).append(low <= getattr(curve.end, metric) <= high)
    return found


def main() -> None:
    """Print the coverage by metric, family and share of the run, over all left-out sources."""
    tables = list(left_out([load(path) for path in shipped()]))
    for metric in METRICS:
        for family in ("k", "penalty", "steered"):
            cells = []
            for share in SHARES:
                cases = [case for own, table in tables for case in held(own, table, metric, share).get(family, [])]
                cells.append(f"{share:.0%} {sum(cases) / len(cases):.2f}" if cases else "")
            if any(cells):
                print(f"{metric:19s} {family:8s} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
