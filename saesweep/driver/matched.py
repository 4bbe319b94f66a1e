"""Which architecture is best at the same L0: each one's metric at exactly the target, interpolated on log L0.

The trials of an architecture end near the targets, not at them. Of those within 10% the one whose value is best *at* the
target is picked. The curve through the picks, of second order in log L0 and exact at those trials, then gives the metric
at the target itself, so that a miss decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from saesweep.driver.ranking import costs, infeasibility
from saesweep.events import MatchedEntry, Row
from saesweep.specs import BaseRun, ObjectiveSpec

_SIGMAS = 2.0
_FARTHEST = math.log(1.25)
"""A curve says nothing about an L0 farther than this from all its trials."""
_MAX_MISS = 0.1
"""A trial speaks of a target only where it ended this near; a relative distance."""
_MAX_WEIGHT = 1.5
"""Above this sum of its weights' sizes a parabola extrapolates rather than interpolates."""
_IMPROVING = 0.03
"""Improvement of the goal over the stretch of `trend_points`, relative, that counts as still improving."""
_STRETCH = 0.15
"""Length of that stretch as a share of the run."""
_SHOWN = ("delta_ce", "explained_variance", "mse")

Weights = Mapping[int, float]
"""By trial number, its share in an interpolated value; they sum to 1."""
StderrOf = Callable[[Weights], float | None]
"""The standard error over contexts of a weighted sum of trials' goal metric, None where it is not known."""


@dataclass(frozen=True)
class Point:
    """What one architecture is at one target."""

    row: Row
    """Its best trial there."""
    weights: Weights
    is_interpolated: bool


def matched_entries(
    rows: Sequence[Row], objective: ObjectiveSpec, stderr_of: StderrOf | None = None
) -> tuple[MatchedEntry, ...]:
    """Return the table "best at each L0": per target and hook, the architectures from best to worst.

    Args:
        rows: The leaderboard.
        objective: One goal with matched L0.
        stderr_of: Standard errors over contexts; without it ties are judged by seeds alone.
    """
    assert objective.matched is not None
    by_number = {row.number: row for row in rows}
    entries: list[MatchedEntry] = []
    points = curve_points(rows, objective)
    for hook in dict.fromkeys(row.hook for row in rows):
        for target in objective.matched.l0:
            here = {a: point for (h, a, t), point in points.items() if h == hook and t == target}
            entries += _at_target(target, here, rows, by_number, objective, stderr_of)
    return tuple(entries)


def curve_points(rows: Sequence[Row], objective: ObjectiveSpec) -> dict[tuple[str, str, float], Point]:
    """Return the best trial of each (hook, architecture, target), and the weights that make it exact.

    Only trials that ended within 10% of their target compete for it; where none did, the nearest one stands for it.
    """
    assert objective.matched is not None
    found: dict[tuple[str, str, float], Point] = {}
    usable = [row for row in rows if _is_usable(row, objective)]
    for key in dict.fromkeys((row.hook, row.architecture) for row in usable):
        own = [row for row in usable if (row.hook, row.architecture) == key]
        best = _picks(own, objective)
        for target, row in best.items():
            weights = _weights(target, best)
            found[key[0], key[1], target] = Point(row, weights or {row.number: 1.0}, bool(weights))
    return found


def _is_usable(row: Row, objective: ObjectiveSpec) -> bool:
    return (
        row.status == "complete"
        and row.target_l0 is not None
        and row.metrics.get("l0", 0.0) > 0
        and infeasibility(row.metrics, objective) == 0
        and math.isfinite(costs(row.metrics, objective)[0])
    )


def is_near(row: Row) -> bool:
    """Return whether a trial ended near enough to its target to speak of it: within 10%."""
    assert row.target_l0 is not None
    return abs(row.metrics["l0"] / row.target_l0 - 1) <= _MAX_MISS


def _picks(rows: Sequence[Row], objective: ObjectiveSpec) -> dict[float, Row]:
    """Return the trial with the best value *at the target*, for each target of one architecture.

    A trial that ended denser than its target looks better than it is, by what the architecture's curve rises over the
    miss. The slope of that curve at a target comes from the picks at the other targets, never from the trials that are
    compared with it, so that no trial can argue for itself.
    """
    candidates: dict[float, list[Row]] = {}
    for row in rows:
        assert row.target_l0 is not None
        candidates.setdefault(row.target_l0, []).append(row)
    for target, own in candidates.items():
        near = [row for row in own if is_near(row)]
        # Where all missed, the nearest is what can be shown; it is not compared.
        candidates[target] = near or [min(own, key=lambda row: (abs(_log_miss(row)), row.number))]

    def value(row: Row, slope: float) -> tuple[float, int]:
        return costs(row.metrics, objective)[0] - slope * _log_miss(row), row.number

    def chosen(slopes: Mapping[float, float]) -> dict[float, Row]:
        return {t: min(candidates[t], key=lambda row: value(row, slopes.get(t, 0.0))) for t in sorted(candidates)}

    first = chosen({})
    return chosen({target: _slope(target, first, objective) for target in first})


def _log_miss(row: Row) -> float:
    """Return the logarithm of the L0 that a trial ended with over its target."""
    assert row.target_l0 is not None
    return math.log(row.metrics["l0"] / row.target_l0)


def _slope(target: float, picks: Mapping[float, Row], objective: ObjectiveSpec) -> float:
    """Return the change of the cost per unit of log L0 near a target, read off the picks around it.

    That is the secant through the nearest pick at either side; at an end of the targets the secant through the two picks
    next to it, and of two targets the one through both. With one target there is no curve, and no correction: 0.
    """
    others = [t for t in sorted(picks) if t != target]
    below, above = [t for t in others if t < target], [t for t in others if t > target]
    if below and above:
        pair = (below[-1], above[0])
    elif len(others) >= 2:
        pair = (above[0], above[1]) if above else (below[-2], below[-1])
    elif others:
        pair = (min(target, others[0]), max(target, others[0]))
    else:
        return 0.0
    low, high = picks[pair[0]], picks[pair[1]]
    width = math.log(high.metrics["l0"] / low.metrics["l0"])
    if width <= 0:
        return 0.0
    return (costs(high.metrics, objective)[0] - costs(low.metrics, objective)[0]) / width


def _weights(l0: float, best: Mapping[float, Row]) -> dict[int, float]:
    """Return the weights of the parabola through the three trials nearest in log L0; none where there is no such curve."""
    x = math.log(l0)
    nearest = sorted(best.values(), key=lambda row: (abs(math.log(row.metrics["l0"]) - x), row.number))[:3]
    at = [math.log(row.metrics["l0"]) for row in nearest]
    if len(nearest) < 3 or len(set(at)) < 3 or not min(at) - _FARTHEST <= x <= max(at) + _FARTHEST:
        return {}
    if abs(at[0] - x) > _FARTHEST:
        return {}
    found = {}
    for i, row in enumerate(nearest):
        others = [a for j, a in enumerate(at) if j != i]
        found[row.number] = math.prod((x - a) / (at[i] - a) for a in others)
    return found if sum(map(abs, found.values())) <= _MAX_WEIGHT else {}


def _at_target(
    target: float,
    points: Mapping[str, Point],
    rows: Sequence[Row],
    by_number: Mapping[int, Row],
    objective: ObjectiveSpec,
    stderr_of: StderrOf | None,
) -> list[MatchedEntry]:
    """Return one target's entries, best first, the winner and what is tied with it marked."""
    goal = objective.goals[0]
    entries = []
    for architecture, point in points.items():
        names = dict.fromkeys(name for name in (goal.metric, *_SHOWN) if name in point.row.metrics)
        at_target = [r for r in rows if (r.architecture, r.target_l0, r.hook) == (architecture, target, point.row.hook)]
        entries.append(
            MatchedEntry(
                target_l0=target,
                architecture=architecture,
                hook=point.row.hook,
                trial=point.row.number,
                goal=goal.metric,
                metrics={name: sum(w * by_number[n].metrics[name] for n, w in point.weights.items()) for name in names},
                is_interpolated=point.is_interpolated,
                is_comparable=point.is_interpolated or is_near(point.row),
                l0=point.row.metrics["l0"],
                stderr=_combined(point.weights, by_number, goal.metric, stderr_of),
                seed_stderr=_seed_stderr(point.weights, by_number, goal.metric),
                replicates=point.row.replicates,
                tokens=point.row.tokens,
                n_trials=len(at_target),
                n_complete=sum(r.status == "complete" for r in at_target),
                still_improving=still_improving(point.row, objective),
            )
        )
    entries.sort(key=lambda e: (not e.is_comparable, goal.sign * e.metrics[goal.metric], e.architecture))
    if not entries or not entries[0].is_comparable:
        return entries
    first = points[entries[0].architecture].weights
    marked = [replace(entries[0], is_winner=True)]
    for entry in entries[1:]:
        if not entry.is_comparable:
            marked.append(entry)
            continue
        weights = dict(points[entry.architecture].weights)
        for number, weight in first.items():
            weights[number] = weights.get(number, 0.0) - weight
        behind = goal.sign * (entry.metrics[goal.metric] - entries[0].metrics[goal.metric])
        error = _combined(weights, by_number, goal.metric, stderr_of)
        is_tied = error is not None and behind <= _SIGMAS * error
        marked.append(replace(entry, behind=behind, behind_stderr=error, is_tied=is_tied))
    return marked


def _seed_stderr(weights: Weights, rows: Mapping[int, Row], metric: str) -> float | None:
    """Return the standard error that seeds alone give a weighted sum; None without replicates."""
    parts = [
        w * w * rows[n].spread[metric] ** 2 / rows[n].replicates for n, w in weights.items() if metric in rows[n].spread
    ]
    return math.sqrt(sum(parts)) if parts else None


def _combined(weights: Weights, rows: Mapping[int, Row], metric: str, stderr_of: StderrOf | None) -> float | None:
    """Return the standard error over contexts and seeds together; None where neither is known."""
    found = [_seed_stderr(weights, rows, metric), None if stderr_of is None else stderr_of(weights)]
    known = [error for error in found if error is not None and math.isfinite(error)]
    return math.hypot(*known) if known else None


def trend_points(run: BaseRun) -> tuple[int, int]:
    """Return the tokens at which a trial is measured to tell whether it still improves.

    The second is the last moment before the learning rate decays, the first 15% of the run earlier.
    """
    end = run.total_steps - run.to_steps(run.lr_decay_steps)
    start = max(1, end - round(_STRETCH * run.total_steps))
    return start * run.train_batch_size_tokens, max(start + 1, end) * run.train_batch_size_tokens


def still_improving(row: Row, objective: ObjectiveSpec) -> bool | None:
    """Return whether the goal was still improving before the learning rate decayed; None where it was not measured twice.

    Over the last 15% of the run before the decay, by more than 3%. The decay itself improves every run.
    """
    if len(row.trend) < 2:
        return None
    before, after = (point[1] for point in row.trend[:2])
    goal = objective.goals[0]
    # A share such as explained variance improves by what it closes of the gap to 1.
    scale = abs(before) if goal.direction == "minimize" else abs(1 - before)
    return goal.sign * (before - after) > _IMPROVING * scale


def best_at_middle(entries: Sequence[MatchedEntry], objective: ObjectiveSpec) -> tuple[int, list[str]]:
    """Return the trial to export as best, the winner at the middle target, and what to say about the choice."""
    assert objective.matched is not None
    middle = objective.matched.middle
    order = sorted(
        entries,
        key=lambda e: (not e.is_winner, abs(math.log(e.target_l0 / middle)), e.target_l0, e.hook != entries[0].hook),
    )
    chosen = order[0]
    name = f"trial {chosen.trial} ({chosen.architecture})"
    if not chosen.is_winner:
        return chosen.trial, [
            f"no trial came near its target L0: nothing can be compared. best/ holds {name}, which ended at L0 {chosen.l0:.1f}"
        ]
    return chosen.trial, [f"best/ holds the winner at L0 {chosen.target_l0:g}, {name}; matched/ holds that of each L0"]


def matched_notes(entries: Sequence[MatchedEntry]) -> list[str]:
    """Return the verdict in words: the winner at each L0, and what stands against it."""
    notes = []
    for entry in entries:
        if not entry.is_winner:
            continue
        same = [e for e in entries if (e.target_l0, e.hook) == (entry.target_l0, entry.hook)]
        tied = [e.architecture for e in same if e.is_tied]
        value = entry.metrics[entry.goal]
        error = "" if entry.stderr is None else f" ± {entry.stderr:.2g}"
        text = f"at L0 {entry.target_l0:g}: {entry.architecture} is best, {entry.goal} {value:.4g}{error}"
        if len(same) == 1:
            text = f"at L0 {entry.target_l0:g}: only {entry.architecture} has finished, {entry.goal} {value:.4g}{error}"
        notes.append(text + (f"; tied with {', '.join(tied)}" if tied else ""))
    rough: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.is_interpolated and entry.is_comparable:
            miss = 100 * (entry.l0 / entry.target_l0 - 1)
            rough.setdefault(entry.architecture, []).append(f"{entry.target_l0:g} ({miss:+.1f}%)")
    notes += [
        f"{name}: as measured at the L0 it reached, with its miss: {', '.join(at)}; interpolation takes trials at three L0s around it"
        for name, at in rough.items()
    ]
    far = [f"{e.architecture} at L0 {e.target_l0:g} ({e.l0:.1f})" for e in entries if not e.is_comparable]
    if far:
        notes.append(
            f"ended too far from the target to be compared: {', '.join(far)}; train longer, or start nearer with another coefficient"
        )
    improving = dict.fromkeys(e.architecture for e in entries if e.still_improving)
    if improving:
        notes.append(
            f"still improving before the learning rate decayed: {', '.join(improving)}; a longer run may change the verdict"
        )
    return notes
