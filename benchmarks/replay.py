"""What the rungs cost and what they lose: the real scheduler, replayed on recorded learning curves.

    python benchmarks/replay.py                           # every source against a table fitted without it
    python benchmarks/replay.py --trials 32 --repeats 200 --objectives limit front
    python benchmarks/replay.py --trials 32 --short --min-rung-steps 20      # runs of 87 to 100 steps

A replay draws trials of one seed of one source in random order, drives `decide` with what was measured of them when nothing
was pruned, and compares what is left with the best of the same trials. Costs are shares of training all of them to the end,
in tokens and in SAE-seconds. Regret is in the logarithm of 1 - explained variance (or of L0, where that is the goal), next
to the standard deviation between seeds of the same settings. Of a front, the hypervolume kept is given instead. In
brackets stand the SAE-seconds of a rule that knows the ends.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.curves.curves import Curve, Point, load, shipped
from benchmarks.curves.fit import course_of, fit
from benchmarks.curves.grid import SHORT
from saesweep.driver.search import min_probability
from saesweep.forecast import Table, from_json, to_scale
from saesweep.scheduler import Ask, BlockDone, Opened, Policy, State, Stop, Suggested, decide, dominates, rungs
from saesweep.scheduler.aim import Aim, GoalAim, Limit
from saesweep.specs import SearchSpec

TOTAL_TOKENS = 1_000_000
"""Stands for the length of a run, whatever it was."""
EV = GoalAim("explained_variance", maximize=True)
OBJECTIVES = ("best", "limit", "sparsest", "front", "matched")
SHORT_RUNGS = ["10%", "25%", "50%"]
"""Where complete short runs were measured, but for their last quarter."""
NOTHING = 2.0
"""Regret where nothing usable is left."""


@dataclass(frozen=True)
class Replayed:
    """What one replay came to."""

    tokens: float
    """Share of the tokens of all trials."""
    seconds: float
    """Share of their SAE-seconds."""
    regret: float
    infeasible: bool
    """Nothing feasible is left, though something was in the set."""
    volume: float | None
    """Share of the hypervolume that is left, of a front."""
    pruned_winner: bool
    hindsight: float
    """Share of the SAE-seconds of a rule that knows each end: the others stop at the first rung, what is kept does not."""


def aim_of(objective: str, curves: Sequence[Curve]) -> Aim:
    """Return the aim that an objective's name stands for, with limits that suit a source."""
    ks = sorted({curve.setting for curve in curves if curve.architecture == "topk"})
    return {
        "best": Aim(goals=(EV,)),
        "limit": Aim(goals=(EV,), limits=(Limit("l0", max=1.02 * ks[1]),)),
        "sparsest": Aim(goals=(GoalAim("l0", maximize=False),), limits=(Limit("explained_variance", min=0.7),)),
        "front": Aim(goals=(GoalAim("l0", maximize=False), EV)),
        "matched": Aim(goals=(EV,), matched=True),
    }[objective]


def has_trials_for(curves: Sequence[Curve], aim: Aim) -> bool:
    """Return whether a source was recorded with what an objective needs: steered trials, with matched L0."""
    return not aim.matched or any(curve.target_l0 is not None for curve in curves)


def draw(curves: Sequence[Curve], aim: Aim, n: int, rng: random.Random) -> list[Curve]:
    """Return trials of one seed in random order, architectures in turn as `search.stratify` asks for them."""
    targets = {curve.target_l0 for curve in curves} - {None}
    pool = [c for c in curves if (target_of(c, aim) in targets if aim.matched else c.target_l0 is None)]
    seed = rng.choice(sorted({curve.seed for curve in pool if curve.target_l0 is not None or not aim.matched}))
    by_architecture: dict[str, list[Curve]] = {}
    for curve in pool:
        if curve.seed == seed:
            by_architecture.setdefault(curve.architecture, []).append(curve)
    groups = list(by_architecture.values())
    rng.shuffle(groups)
    for own in groups:
        rng.shuffle(own)
    found: list[Curve] = []
    while len(found) < n and any(groups):
        for own in groups:
            if own and len(found) < n:
                found.append(own.pop())
    return found


def target_of(curve: Curve, aim: Aim) -> float | None:
    """Return the L0 that a trial aims at, with matched L0: its k, or what it was steered to."""
    if not aim.matched:
        return None
    return curve.target_l0 if curve.target_l0 is not None else curve.setting if curve.setting_field == "k" else -1.0


def replay(trials: Sequence[Curve], aim: Aim, policy: Policy, shares: Sequence[float]) -> tuple[State, float, float]:
    """Drive the scheduler over the trials; return its last state, and the shares of tokens and seconds."""
    block = policy.total_tokens // 20
    state, actions = decide(State.new(policy), Opened())
    while True:
        pending = list(actions)
        while asks := [action for action in pending if isinstance(action, Ask)]:
            pending.remove(asks[0])
            state, more = decide(state, _answer(asks[0], trials, aim, shares))
            pending += more
        if any(isinstance(action, Stop) for action in pending):
            break
        seen, values = {}, {}
        for trial in state.with_status("training"):
            seen[trial.number] = min(trial.tokens_seen + block, policy.total_tokens)
            points = {
                rung: at(trials[trial.number], shares[rung])
                for rung in state.due_rungs(trial.number, seen[trial.number])
            }
            values[trial.number] = {r: tuple(getattr(p, m) for m in aim.metrics) for r, p in points.items()}
        state, actions = decide(state, BlockDone(tokens_seen=seen, values=values))
    spent = {n: trial.tokens_seen / policy.total_tokens for n, trial in state.trials.items()}
    seconds = sum(at(trials[n], share).sae_seconds for n, share in spent.items())
    return state, sum(spent.values()) / len(trials), seconds / sum(curve.end.sae_seconds for curve in trials)


def _answer(ask: Ask, trials: Sequence[Curve], aim: Aim, shares: Sequence[float]) -> Suggested:
    curve = trials[ask.number]
    course = course_of(curve, [max(1, round(share * curve.total_steps)) for share in shares])
    target = target_of(curve, aim)
    return Suggested(
        number=ask.number,
        stratum=ask.stratum,
        group=str(target),
        architecture=curve.architecture,
        course=dataclasses.replace(course, target_l0=target),
    )


@cache
def at(curve: Curve, share: float) -> Point:
    """Return the recorded point nearest to a share of the run."""
    return min(curve.points, key=lambda point: abs(point.step / curve.total_steps - share))


def judged(trials: Sequence[Curve], aim: Aim, state: State) -> tuple[float, bool, float | None, bool]:
    """Return regret, whether the search ended infeasible, the hypervolume kept, and whether a pruned trial would have won."""
    finished = {n for n, trial in state.trials.items() if trial.status == "complete"}
    regret, infeasible, volume, lost = 0.0, False, None, False
    for group in groups_of(trials, aim):
        usable = [n for n in group if _is_usable(trials[n], aim)]
        kept = [n for n in usable if n in finished]
        if not usable:
            continue
        infeasible = infeasible or not kept
        points = {n: _scaled(trials[n], aim) for n in usable}
        if len(aim.goals) > 1:
            worst = tuple(max(column) for column in zip(*points.values(), strict=True))
            whole = _volume(list(points.values()), worst)
            volume = _volume([points[n] for n in kept], worst) / whole if whole > 0 else 1.0
            continue
        best = min(points[n][0] for n in usable)
        own = min(points[n][0] for n in kept) - best if kept else NOTHING
        regret, lost = max(regret, own), lost or own > 0
    return regret, infeasible, volume, lost


def groups_of(trials: Sequence[Curve], aim: Aim) -> list[list[int]]:
    """Return which trials are compared with each other: with matched L0 those of one target."""
    if not aim.matched:
        return [list(range(len(trials)))]
    targets = [target_of(curve, aim) for curve in trials]
    return [[n for n, own in enumerate(targets) if own == target] for target in dict.fromkeys(targets)]


def hindsight(trials: Sequence[Curve], aim: Aim, first_rung: float) -> float:
    """Return the share of the SAE-seconds that a rule would take which knows how each trial ends: no rule takes less."""
    kept: set[int] = set()
    for group in groups_of(trials, aim):
        points = {n: _scaled(trials[n], aim) for n in group if _is_usable(trials[n], aim)}
        if len(aim.goals) > 1:
            kept |= {n for n, own in points.items() if not any(dominates(other, own) for other in points.values())}
        elif points:
            kept.add(min(points, key=lambda n: points[n][0]))
    spent = (c.end.sae_seconds if n in kept else at(c, first_rung).sae_seconds for n, c in enumerate(trials))
    return sum(spent) / sum(curve.end.sae_seconds for curve in trials)


def _is_usable(curve: Curve, aim: Aim) -> bool:
    bounds = (*aim.limits, *aim.near(target_of(curve, aim)))
    return curve.end.l0 > 0 and all(limit.keeps(getattr(curve.end, limit.metric)) for limit in bounds)


def _scaled(curve: Curve, aim: Aim) -> tuple[float, ...]:
    return tuple(goal.sign * to_scale(goal.metric, getattr(curve.end, goal.metric)) for goal in aim.goals)


def _volume(points: Sequence[tuple[float, ...]], worst: Sequence[float]) -> float:
    area, lowest = 0.0, worst[1]
    for x, y in sorted(points):
        if y < lowest:
            area, lowest = area + (worst[0] - x) * (lowest - y), y
    return area


def policy_of(aim: Aim, n: int, search: SearchSpec, total_steps: int) -> tuple[Policy, tuple[float, ...]]:
    """Return the policy of a search as the package would set it up, and its stops as shares of runs of so many steps."""
    shares = tuple(rung.value for rung in search.rungs if round(rung.value * total_steps) >= search.min_rung_steps)
    policy = Policy(
        n_trials=n,
        n_slots=min(16, n, max(4, -(-n // 3), 10)),
        total_tokens=TOTAL_TOKENS,
        aim=aim,
        rungs_tokens=tuple(round(share * TOTAL_TOKENS) for share in shares),
        min_probability=min_probability(search, len(aim.goals)),
        quota=search.min_per_architecture,
        pruner=search.pruner,
    )
    return policy, (*shares, 1.0)


def seed_sd(curves: Sequence[Curve], metric: str) -> float:
    """Return the standard deviation between seeds of trials with the same settings: the median over settings."""
    ends: dict[tuple[str, float, float], list[float]] = {}
    for curve in curves:
        if curve.target_l0 is None:
            key = (curve.architecture, curve.lr, curve.setting)
            ends.setdefault(key, []).append(to_scale(metric, getattr(curve.end, metric)))
    found = [statistics.stdev(own) for own in ends.values() if len(own) > 1]
    return statistics.median(found) if found else math.nan


def line(source: str, objective: str, n: int, found: Sequence[Replayed], sd: float) -> str:
    """Return one row of the table."""
    regrets = sorted(each.regret for each in found)
    volumes = sorted(each.volume for each in found if each.volume is not None)
    worth = (
        f"volume {statistics.median(volumes):.3f}, 5% {volumes[len(volumes) // 20]:.3f}"
        if volumes
        else f"regret {statistics.median(regrets):.3f}, 95% {regrets[int(0.95 * len(regrets))]:.3f} (seeds {sd:.3f})"
    )
    mean = {
        name: statistics.fmean(getattr(each, name) for each in found)
        for name in ("tokens", "seconds", "pruned_winner", "hindsight")
    }
    return (
        f"{source:15s} {objective:9s} {n:3d}  {worth:45s} infeasible {sum(each.infeasible for each in found):3d}  "
        f"tokens {mean['tokens']:.2f}  seconds {mean['seconds']:.2f} (hindsight {mean['hindsight']:.2f})  winner pruned {mean['pruned_winner']:.2f}"
    )


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--min-probability", type=float, help="of the package when left out")
    parser.add_argument("--min-rung-steps", type=int, help="of the package when left out")
    parser.add_argument(
        "--short", action="store_true", help="the complete short runs, with rungs at 10%%, 25%% and 50%%"
    )
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in ("min_probability", "min_rung_steps")}
    search = SearchSpec.model_validate(
        {name: value for name, value in given.items() if value is not None}
        | ({"rungs": SHORT_RUNGS} if args.short else {})
    )
    length = SHORT if args.short else 1.0
    sets = {path: load(path) for path in shipped()}
    for path, own in sets.items():
        others = [curve for other, each in sets.items() if other != path for curve in each.curves]
        table: Table = from_json(fit(others))
        rungs.shipped_table = lambda table=table: table  # type: ignore[assignment, misc]
        curves = [c for c in own.curves if c.is_complete and c.failed_at is None and c.length == length]
        if not curves:
            print(f"{own.source}: no curves of that length")
            continue
        for objective in args.objectives:
            aim = aim_of(objective, curves)
            if not has_trials_for(curves, aim):
                print(f"{own.source:15s} {objective:9s} no steered curves")
                continue
            sd = seed_sd(curves, aim.goals[-1].metric)
            for n in args.trials:
                found = []
                for repeat in range(args.repeats):
                    trials = draw(curves, aim, n, random.Random(repeat))
                    policy, shares = policy_of(aim, len(trials), search, curves[0].total_steps)
                    state, tokens, seconds = replay(trials, aim, policy, shares)
                    regret, infeasible, volume, lost = judged(trials, aim, state)
                    bound = hindsight(trials, aim, shares[0])
                    found.append(Replayed(tokens, seconds, regret, infeasible, volume, lost, bound))
                print(line(own.source, objective, n, found, sd), flush=True)


if __name__ == "__main__":
    main()
