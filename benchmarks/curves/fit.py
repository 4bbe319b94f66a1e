"""Fits the prior of forecasts to recorded curves: `saesweep/forecast/table.json`.

    python benchmarks/curves/fit.py                     # from all shipped curves, into the package
    python benchmarks/curves/fit.py --leave-out tiny_lm --out table.json

For each kind of trial, metric and lead, the change to the end is regressed on the features of the trials within every source;
the table holds the mean and the standard deviation of each weight over the sources, and the error within them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.curves.curves import Curve, Point, load, shipped
from saesweep.forecast import Course, Family, centring, features_of, names_of, to_scale
from saesweep.specs import LearningRate

METRICS = ("l0", "explained_variance", "mse", "delta_ce")
TABLE = ROOT / "saesweep" / "forecast" / "table.json"
_RIDGE = 1e-3
"""Of the regression within one source: few trials hardly determine weights of features that go together."""
_MIN_SPREAD = 0.3
"""Standard deviation of a weight, as a share of its mean, below which few sources are not believed."""
_MIN_SDS = {"1": 0.05}
_MIN_SD = 0.02


def course_of(curve: Curve, steps: Sequence[int]) -> Course:
    """Return the course of a recorded trial with stops at these steps."""
    rate = LearningRate(
        lr=curve.lr,
        lr_end=curve.lr / 10,
        name="constant",
        total_steps=curve.total_steps,
        warm_up_steps=curve.lr_warm_up_steps,
        decay_steps=curve.lr_decay_steps,
    )
    whole = rate.summed(curve.total_steps)
    has_k = curve.setting_field == "k"
    ramp = curve.coefficient_warm_up_steps
    ready = max(curve.lr_warm_up_steps, ramp if ramp <= curve.total_steps / 2 else 0)
    return Course(
        kind=kind_of(curve),
        family=family_of(curve),
        log_lr=math.log(curve.lr),
        log_setting=math.log(curve.setting),
        leads=tuple(math.log(whole / rate.summed(step)) for step in steps),
        first_rung=sum(step < ready for step in steps),
        l0=curve.setting if has_k else None,
        target_l0=curve.target_l0,
    )


def kind_of(curve: Curve) -> str:
    """Return the kind of a recorded trial, as `saesweep.forecast.kind_of` names it."""
    name = curve.architecture if curve.loss_mode is None else f"{curve.architecture} {curve.loss_mode}"
    return f"steered {name}" if curve.target_l0 is not None else name


def family_of(curve: Curve) -> Family:
    """Return the family of a recorded trial."""
    return "steered" if curve.target_l0 is not None else "k" if curve.setting_field == "k" else "penalty"


def fit(curves: Iterable[Curve]) -> dict[str, Any]:
    """Return the table as plain JSON values."""
    by_kind: dict[str, list[Curve]] = {}
    for curve in curves:
        if curve.is_complete and curve.failed_at is None and curve.length == 1.0:
            by_kind.setdefault(kind_of(curve), []).append(curve)
    entries = {kind: _entries(own) for kind, own in by_kind.items()}
    for family in ("k", "penalty", "steered"):
        kinds = [kind for kind, own in by_kind.items() if family_of(own[0]) == family]
        if kinds:
            entries[f"any {family}"] = _widest([entries[kind] for kind in kinds])
    return entries


def _entries(curves: Sequence[Curve]) -> dict[str, Any]:
    found = {}
    for metric in METRICS:
        rows = _rows(curves, metric)
        if rows:
            found[metric] = {"leads": [0.0, *rows], "rows": [[0.0] * len(next(iter(rows.values()))), *rows.values()]}
    return found


def _rows(curves: Sequence[Curve], metric: str) -> dict[float, list[float]]:
    """Return by lead, ascending: means and standard deviations of the weights, and that of the error."""
    names = names_of(family_of(curves[0]), metric)
    samples: dict[float, dict[str, list[tuple[tuple[float, ...], float]]]] = {}
    for curve in curves:
        end = getattr(curve.end, metric)
        for point in curve.points[:-1]:
            if end is None or getattr(point, metric) is None or point.step <= curve.lr_warm_up_steps / 2:
                continue
            course = course_of(curve, [point.step])
            value = to_scale(metric, getattr(point, metric))
            sample = features_of(course, metric, value, to_scale("l0", point.l0)), to_scale(metric, end) - value
            samples.setdefault(round(course.leads[0], 2), {}).setdefault(curve.source, []).append(sample)
    found = {}
    for lead in sorted(samples):
        fits = [_regression(own, names) for own in samples[lead].values() if len(own) > 2 * len(names)]
        if not fits or lead <= 0:
            continue
        weights = np.array([weights for weights, _, _ in fits])
        mean, n = weights.mean(axis=0), len(fits)
        # The next source differs from their mean, which is itself uncertain.
        spread = weights.std(axis=0, ddof=1) * math.sqrt(1 + 1 / n) if n > 1 else np.abs(mean)
        floors = [_MIN_SDS.get(name, _MIN_SD) for name in names]
        spread = np.maximum.reduce([spread, _MIN_SPREAD * np.abs(mean), floors])
        error = math.sqrt(sum(e * e * k for _, e, k in fits) / sum(k for _, _, k in fits))
        found[lead] = [round(float(v), 4) for v in (*mean, *spread, error)]
    return found


def _regression(
    samples: Sequence[tuple[tuple[float, ...], float]], names: Sequence[str]
) -> tuple[np.ndarray, float, int]:
    """Return weights of centred features, the error's standard deviation and the number of samples of one source."""
    x, y = np.array([f for f, _ in samples]), np.array([change for _, change in samples])
    x = x @ centring(tuple(x.mean(axis=0)), names).T
    weights = np.linalg.solve(x.T @ x + _RIDGE * len(y) * np.eye(x.shape[1]), x.T @ y)
    error = y - x @ weights
    return weights, math.sqrt(float(error @ error) / max(1, len(y) - x.shape[1])), len(y)


def _widest(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what stands for a kind that was never recorded: for each metric, the recorded kind that is least certain."""
    return {
        metric: max((entry[metric] for entry in entries if metric in entry), key=lambda e: e["rows"][-1][-1])
        for metric in METRICS
        if any(metric in entry for entry in entries)
    }


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leave-out", nargs="*", default=(), help="sources that the table is not to know")
    parser.add_argument("--out", type=Path, default=TABLE)
    args = parser.parse_args()
    sets = [load(path) for path in shipped()]
    found = fit(curve for one in sets if one.source not in args.leave_out for curve in one.curves)
    args.out.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{args.out}: {len(found)} kinds of {len(sets)} sources")


if __name__ == "__main__":
    main()
