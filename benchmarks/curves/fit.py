"""Fits the prior of forecasts to recorded curves: `saesweep/forecast/table.json`.

    python benchmarks/curves/fit.py                     # from all shipped curves, into the package
    python benchmarks/curves/fit.py --leave-out tiny_lm --out table.json

For each kind of trial, metric and lead, the change to the end is regressed on the features of the trials within every source;
the table holds the mean and the standard deviation of each weight over the sources, and the error within them (the geometric mean).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.curves.curves import Curve, load, shipped
from saesweep.forecast import Course, Family, centring, features_of, names_of, to_scale
from saesweep.specs import LearningRate

SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of a run: where the table has its leads."""
_NEAR = 0.004
"""A point this near a share stands for it: steps are whole."""
Sample = tuple[tuple[float, ...], float]
"""Features at a point, and the change from there to the end."""
METRICS = ("l0", "explained_variance", "mse", "delta_ce")
TABLE = ROOT / "saesweep" / "forecast" / "table.json"
_RIDGE = 0.02
"""Of the regression within one source: few trials hardly determine weights of features that go together."""
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
            size = len(names_of(family_of(curves[0]), metric))
            empty = [0.0] * len(next(iter(rows.values())))
            found[metric] = {"size": size, "leads": [0.0, *rows], "rows": [empty, *rows.values()]}
    return found


def _rows(curves: Sequence[Curve], metric: str) -> dict[float, list[float]]:
    """Return by lead, ascending: means of the weights, the triangle of their covariance, the deviation of the error."""
    names = names_of(family_of(curves[0]), metric)
    samples: dict[float, dict[str, dict[int, list[Sample]]]] = {}
    leads: dict[float, list[float]] = {}
    for curve in curves:
        end = getattr(curve.end, metric)
        for point in curve.points[:-1]:
            share = min(SHARES, key=lambda s: abs(s - point.step / curve.total_steps))
            if end is None or getattr(point, metric) is None or abs(share - point.step / curve.total_steps) > _NEAR:
                continue
            course = course_of(curve, [point.step])
            value = to_scale(metric, getattr(point, metric))
            sample = features_of(course, metric, value, to_scale("l0", point.l0)), to_scale(metric, end) - value
            samples.setdefault(share, {}).setdefault(curve.source, {}).setdefault(curve.seed, []).append(sample)
            leads.setdefault(share, []).append(course.leads[0])
    found = {}
    for share in sorted(samples, reverse=True):
        fits = [
            _regression(list(by_seed.values()), names)
            for by_seed in samples[share].values()
            if sum(map(len, by_seed.values())) > 2 * len(names)
        ]
        lead = round(statistics.fmean(leads[share]), 3)
        if not fits:
            continue
        weights = np.array([weights for weights, _, _ in fits])
        mean, n = weights.mean(axis=0), len(fits)
        # The next source differs from their mean, which is itself uncertain.
        between = np.cov(weights, rowvar=False) * (1 + 1 / n) if n > 1 else np.diag(mean**2)
        covariance = between + np.diag([_MIN_SDS.get(name, _MIN_SD) ** 2 for name in names])
        error = math.exp(sum(math.log(max(e, 1e-4)) * k for _, e, k in fits) / sum(k for _, _, k in fits))
        triangle = covariance[np.tril_indices(len(names))]
        found[lead] = [float(f"{v:.3g}") for v in (*mean, *triangle, error)]
    return found


def _regression(by_seed: Sequence[Sequence[Sample]], names: Sequence[str]) -> tuple[np.ndarray, float, int]:
    """Return weights of centred features, the error's standard deviation and the number of samples of one source.

    Features are centred within each seed, since a seed is an experiment of its own: other data, other held-out tokens. What
    the seeds differ by in their mean change is no error of a trial.
    """
    rows, changes = [], []
    overall = float(np.mean([change for own in by_seed for _, change in own]))
    for own in by_seed:
        x = np.array([features for features, _ in own])
        y = np.array([change for _, change in own])
        rows.append(x @ centring(tuple(x.mean(axis=0)), names).T)
        changes.append(y - y.mean() + overall)
    x, y = np.concatenate(rows), np.concatenate(changes)
    weights = np.linalg.solve(x.T @ x + _RIDGE * len(y) * np.eye(x.shape[1]), x.T @ y)
    error = y - x @ weights
    free = max(1, len(y) - x.shape[1] - len(by_seed) + 1)
    return weights, math.sqrt(float(error @ error) / free), len(y)


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
