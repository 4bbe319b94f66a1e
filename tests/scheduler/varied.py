"""Trials of all kinds and families, with made-up curves that cross, tie, die and fail, for the shipped table."""

from __future__ import annotations

import math
import random

from hypothesis import strategies as st

from saesweep.forecast import Course
from saesweep.scheduler import Aim, Policy
from saesweep.scheduler.aim import GoalAim, Limit

from .simulator import FRONT, MSE, plain_course

EV = GoalAim("explained_variance", maximize=True)
AIMS = (
    MSE,
    FRONT,
    Aim(goals=(EV,)),
    Aim(goals=MSE.goals, limits=(Limit("l0", max=20.0),)),
    Aim(goals=(EV,), limits=(Limit("l0", min=5.0, max=40.0),)),
    Aim(goals=FRONT.goals, limits=(Limit("explained_variance", min=0.3),)),
    Aim(goals=(GoalAim("l0", maximize=False),), limits=(Limit("explained_variance", min=0.5),)),
    Aim(goals=(GoalAim("delta_ce", maximize=False), EV)),
    Aim(goals=(GoalAim("mmcs", maximize=True),)),  # the table does not know it
    Aim(goals=(EV,), matched=True),
)
KINDS = (
    ("topk", "k"),
    ("batchtopk", "k"),
    ("jumprelu tanh", "penalty"),
    ("gated", "penalty"),
    ("unheard of", "penalty"),
    ("steered gated", "steered"),
)


@st.composite
def varied_policies(draw: st.DrawFn, max_trials: int = 40, max_slots: int = 12) -> Policy:
    total = draw(st.integers(20, 200))
    strata = ("topk", "jumprelu", "gated")[: draw(st.integers(1, 3))]
    return Policy(
        n_trials=draw(st.integers(2, max_trials)),
        n_slots=draw(st.integers(1, max_slots)),
        total_tokens=total,
        rungs_tokens=tuple(sorted(draw(st.sets(st.integers(1, total - 1), max_size=3)))),
        aim=draw(st.sampled_from(AIMS)),
        min_probability=draw(st.sampled_from([0.01, 0.05, 0.3])),
        quota=draw(st.integers(0, 2)),
        retry_failed=draw(st.integers(0, 2)),
        strata=strata,
        tokens_budget=draw(st.none() | st.integers(0, 40 * total)),
    )


class Curves:
    """The course of each trial, and what it reports at each rung."""

    def __init__(self, policy: Policy, seed: int) -> None:
        rng = random.Random(seed)
        self._policy, self._seed = policy, seed
        self._courses = [self._drawn(rng) for _ in range(policy.n_trials)]

    def _drawn(self, rng: random.Random) -> Course:
        policy = self._policy
        kind, family = rng.choice(KINDS)
        k = rng.choice([8.0, 16.0, 32.0]) if family == "k" else None
        target = k or rng.choice([8.0, 16.0])
        slower = rng.choice([1.0, 1.0, 0.9])
        return plain_course(
            policy,
            kind=kind,
            family=family,
            log_lr=rng.uniform(-9, -5),
            log_setting=math.log(k) if k else rng.uniform(-3, 2),
            first_rung=rng.choice([0, 0, 1]),
            l0=k,
            target_l0=target if policy.aim.matched or family == "steered" else None,
            leads=tuple(slower * math.log(policy.total_tokens / stop) for stop in policy.stops_tokens),
            scope=rng.choice(["", "hook"]),
        )

    def course(self, number: int) -> Course:
        return self._courses[number % len(self._courses)]

    def group(self, number: int, stratum: str) -> str:
        course = self.course(number)
        return f"{course.scope} {number % 2} {course.target_l0 if self._policy.aim.matched else ''}"

    def quality(self, number: int, rung: int) -> tuple[float, ...]:
        course, base = self.course(number), random.Random(77 * self._seed + number)
        own = random.Random(1000 * self._seed + 10 * number + rung)
        error = base.gauss(-1, 0.5) - 0.3 * rung + own.gauss(0, 0.05)
        l0 = (course.l0 or course.target_l0 or 15.0) * math.exp(base.gauss(0, 0.3) if course.kind != "topk" else 0.0)
        found = {
            "l0": 0.0 if base.random() < 0.03 else l0,
            "mse": math.nan if own.random() < 0.01 else math.exp(error),
            "explained_variance": 1 - math.exp(error),
            "delta_ce": math.exp(error) - 0.3,
            "mmcs": 0.5 - 0.1 * error,
        }
        if own.random() < 0.2:  # ties
            found = {name: round(value, 1) if math.isfinite(value) else value for name, value in found.items()}
        return tuple(found[metric] for metric in self._policy.aim.metrics)
