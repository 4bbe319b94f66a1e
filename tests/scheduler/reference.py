"""What the scheduler decides, written down plainly: every count is taken anew, every trial is compared with every other one.

Slow, and close to the definitions in the documentation. `test_reference.py` holds the scheduler against it, bit for bit.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from saesweep.forecast import (
    MIN_EVIDENCE,
    Forecast,
    Moments,
    Noise,
    Report,
    Table,
    centring,
    names_of,
    noises_of,
    orientation,
    probability_better,
    to_scale,
)
from saesweep.scheduler import Aim, Prune, State, TrialState, dominates
from saesweep.scheduler.aim import Limit
from saesweep.scheduler.dominance import fronts
from saesweep.scheduler.rivals import is_feasible, report_of


@dataclass(frozen=True)
class Found:
    number: int
    forecasts: dict[str, Forecast]
    feasible: float
    excess: float
    probability: float
    rival: int | None


# ---------------------------------------------------------------- counts


def live(state: State) -> list[TrialState]:
    return [trial for trial in state.trials.values() if trial.live]


def free_slots(state: State) -> list[tuple[int, int]]:
    taken = {(trial.worker, trial.slot) for trial in live(state) if trial.status == "training"}
    n_taken = Counter(worker for worker, _ in taken)
    found = []
    for worker in state.filling:
        free = [slot for slot in range(state.workers[worker]) if (worker, slot) not in taken]
        found += [(n_taken[worker] + position, worker, slot) for position, slot in enumerate(free)]
    return [(worker, slot) for _, worker, slot in sorted(found)]


def to_retry(state: State) -> list[int]:
    attempts: dict[int, list[TrialState]] = {}
    for trial in state.trials.values():
        attempts.setdefault(trial.number if trial.retry_of is None else trial.retry_of, []).append(trial)
    return [
        first
        for first, own in attempts.items()
        if all(trial.failed for trial in own)
        and len(own) <= state.policy.retry_failed
        and first not in state.retrying.values()
        and own[0].stratum in state.policy.strata
    ]


def asked_by_stratum(state: State) -> Counter[str]:
    new = [stratum for number, stratum in state.pending.items() if number not in state.retrying]
    return Counter(new) + Counter(trial.stratum for trial in state.trials.values() if trial.retry_of is None)


def affordable(state: State) -> int:
    policy = state.policy
    if policy.tokens_budget is None:
        return policy.n_trials
    ended = sum(trial.tokens_seen for trial in state.trials.values() if not trial.live)
    return max(0, (policy.tokens_budget - ended) // policy.total_tokens - len(live(state)) - len(state.pending))


# ---------------------------------------------------------------- forecasts


def forecast(
    table: Table,
    reports: list[Report],
    state: State,
    ahead: list[tuple[Report, Forecast]],
    noise: Noise | None,
) -> list[Forecast]:
    """One trial after the other, from the reports of all of one kind."""
    first = reports[0]
    if first.metric == "l0" and first.course.l0 is not None:
        return [_by_construction(report) for report in reports]
    moments = state.evidence.get(first.key, Moments())
    entry = table.entry(first.course.kind, first.course.family, first.metric)
    if entry is None:
        return _from_evidence_alone(reports, moments)
    prior = entry.at(first.course.leads[first.rung])
    total = np.sum(np.asarray([r.features for r in reports] + [r.features for r, _ in ahead]), axis=0)
    n = len(reports) + len(ahead)
    if moments.n:
        total, n = total + np.asarray(moments.products)[0], n + moments.n
    to_centre = centring(tuple(float(v) for v in total / n), names_of(first.course.family, first.metric))
    noise = noise or Noise()
    variance = max(prior.error_sd, 1e-6) ** 2 * noise.scale
    size = len(prior.means)
    products, with_change = np.zeros((size, size)), np.zeros(size)
    if moments.n:
        products = to_centre @ np.asarray(moments.products) @ to_centre.T
        with_change = to_centre @ np.asarray(moments.with_change)
    for report, end in ahead:
        x = to_centre @ np.asarray(report.features)
        weight = variance / (variance + end.sd**2)
        products = products + weight * np.outer(x, x)
        with_change = with_change + weight * x * (end.mean - report.scaled)
    weights, covariance = prior.posterior(variance, products, with_change)
    found = []
    for report in reports:
        x = to_centre @ np.asarray(report.features)
        mean = report.scaled + float(x @ weights)
        found.append(Forecast(report.metric, mean, variance, first.key, x, covariance, noise.freedom))
    return found


def _by_construction(report: Report) -> Forecast:
    k = report.course.l0
    assert k is not None
    is_exact = report.course.kind == "topk" and report.value >= 0.999 * k
    return Forecast("l0", math.log(max(min(report.value, k), 1e-6)), 0.0 if is_exact else 0.02**2)


def _from_evidence_alone(reports: list[Report], moments: Moments) -> list[Forecast]:
    n = moments.n
    if n < MIN_EVIDENCE:
        return [Forecast(report.metric, report.scaled, math.inf) for report in reports]
    mean = moments.with_change[0] / n
    variance = max(0.0, moments.squared_change - n * mean * mean) / (n - 1)
    variance *= (n + 1) / n * (n - 1) / (n - 3)
    return [Forecast(report.metric, report.scaled + mean, variance) for report in reports]


def forecasts_of(state: State, table: Table) -> dict[int, dict[str, Forecast]]:
    """Those of every live trial that has been measured, and the values of the finished rivals."""
    aim, end = state.policy.aim, state.policy.end_rung
    pools: dict[str, dict[int, tuple[float, ...]]] = {}
    for trial in state.trials.values():
        if is_feasible(trial, aim, end):
            values = dict(zip(aim.metrics, trial.reports[end], strict=True))
            costs = tuple(goal.sign * to_scale(goal.metric, values[goal.metric]) for goal in aim.goals)
            pools.setdefault(trial.group, {})[trial.number] = costs
    found: dict[int, dict[str, Forecast]] = {}
    for number in [number for pool in pools.values() for number in fronts(pool)[0]]:
        values = dict(zip(aim.metrics, state.trials[number].reports[end], strict=True))
        found[number] = {metric: Forecast(metric, to_scale(metric, value)) for metric, value in values.items()}
    courses = {trial.course.scoped_kind: trial.course for trial in state.trials.values()}
    noises = noises_of(table, state.evidence, courses)
    by_rung: dict[int, list[TrialState]] = {}
    for trial in live(state):
        if trial.reports:
            by_rung.setdefault(max(trial.reports), []).append(trial)
    done: list[TrialState] = []
    for rung in sorted(by_rung, reverse=True):
        by_kind: dict[tuple[str, str], list[TrialState]] = {}
        for trial in by_rung[rung]:
            by_kind.setdefault((trial.course.scope, trial.course.kind), []).append(trial)
        for kind, trials in by_kind.items():
            further = [t for t in done if (t.course.scope, t.course.kind) == kind and rung in t.reports]
            for metric in aim.metrics:
                reports = [report_of(trial, aim, metric, rung) for trial in trials]
                ahead = [(report_of(t, aim, metric, rung), found[t.number][metric]) for t in further]
                known = forecast(table, reports, state, ahead, noises.get((kind[0], metric)))
                for trial, one in zip(trials, known, strict=True):
                    found.setdefault(trial.number, {})[metric] = one
        done += by_rung[rung]
    return found


# ---------------------------------------------------------------- outlooks and verdicts


def _within(forecasts: dict[str, Forecast], limits: tuple[Limit, ...]) -> tuple[float, float]:
    product, excess = 1.0, 0.0
    for limit in limits:
        low, high = (None if bound is None else to_scale(limit.metric, bound) for bound in (limit.min, limit.max))
        if orientation(limit.metric) < 0:
            low, high = high, low
        known = forecasts[limit.metric]
        outside = 0.0 if low is None else 1.0 - known.probability_above(low)
        inside = (1.0 if high is None else known.probability_below(high)) - outside
        product *= max(0.0, inside) if known.is_known else 0.5
        beyond = (-math.inf if high is None else known.mean - high, -math.inf if low is None else low - known.mean)
        excess += max(0.0, *beyond)
    return product, excess


def _beaten(own: dict[str, Forecast], other: dict[str, Forecast], aim: Aim) -> float:
    slack = 0.1 if len(aim.goals) > 1 else 0.0
    return math.prod(
        probability_better(other[g.metric], own[g.metric], g.sign, slack=slack if g.metric == "l0" else 0.0)
        for g in aim.goals
    )


def outlooks(state: State, table: Table) -> dict[int, Found]:
    """Every live trial that has been measured, against every other contender of its group, in their order."""
    aim = state.policy.aim
    forecasts = forecasts_of(state, table)
    counts = {
        number: _within(own, aim.limits)[0] * _within(own, aim.near(state.trials[number].course.target_l0))[0]
        for number, own in forecasts.items()
    }
    found = {}
    for number, own in forecasts.items():
        if not state.trials[number].live:
            continue
        stands, rival = 1.0, None
        for other, theirs in forecasts.items():
            if other != number and state.trials[other].group == state.trials[number].group:
                against = 1.0 - counts[other] * _beaten(own, theirs, aim)
                if against < stands:
                    stands, rival = against, other
        feasible, excess = _within(own, aim.limits)
        found[number] = Found(number, own, feasible, excess, feasible * stands, rival)
    return found


def judge(state: State, table: Table) -> dict[int, Found]:
    """Which live trials are pruned, where one worker trains them all."""
    policy = state.policy
    if policy.pruner == "none":
        return {}
    found = outlooks(state, table)
    doomed = {
        number: one
        for number, one in found.items()
        if one.probability < policy.min_probability
        and max(state.trials[number].reports) >= state.trials[number].course.first_rung
    }
    kept = dict(doomed)
    for group in {state.trials[number].group for number in doomed}:
        members = [trial for trial in state.trials.values() if trial.group == group]
        if any(is_feasible(trial, policy.aim, policy.end_rung) for trial in members):
            continue
        own = [found[trial.number] for trial in members if trial.number in found]
        hope = max(own, key=lambda one: (one.feasible, -one.excess, one.probability, -one.number))
        if hope.feasible > 1e-3 or state.next_number >= policy.n_trials:
            kept.pop(hope.number, None)
    left = Counter(trial.architecture for trial in state.trials.values() if trial.status != "pruned" and trial.reports)
    pruned: dict[int, Found] = {}
    for number, one in sorted(kept.items(), key=lambda item: (item[1].probability, -item[0])):
        if left[state.trials[number].architecture] > policy.quota:
            left[state.trials[number].architecture] -= 1
            pruned[number] = one
    while contradictions := [number for number in sorted(pruned) if _dominates_one_that_is_kept(number, pruned, state)]:
        del pruned[contradictions[0]]
    return pruned


def _dominates_one_that_is_kept(number: int, pruned: dict[int, Found], state: State) -> bool:
    return any(other.number not in pruned for other in dominated(state, number))


def as_prunes(state: State, found: dict[int, Found]) -> list[tuple[int, int, dict[str, float]]]:
    """What a prune says: the trial, its rung and the ends that it was expected to have."""
    return [
        (number, max(state.trials[number].reports), {m: f.value for m, f in one.forecasts.items() if f.is_known})
        for number, one in sorted(found.items())
    ]


def said(prunes: list[Prune]) -> list[tuple[int, int | None, dict[str, float]]]:
    return [(prune.number, prune.rung, dict(prune.expected)) for prune in prunes]


def dominated(state: State, number: int) -> list[TrialState]:
    """The live comparable trials that a trial dominates at its latest rung."""
    trial, aim = state.trials[number], state.policy.aim
    rung = max(trial.reports)
    mine = aim.costs(trial.reports[rung], trial.course.target_l0)
    return [
        other
        for other in live(state)
        if rung in other.reports
        and (other.group, other.course.kind) == (trial.group, trial.course.kind)
        and dominates(mine, aim.costs(other.reports[rung], other.course.target_l0))
    ]
