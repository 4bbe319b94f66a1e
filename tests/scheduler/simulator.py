"""A trainer that obeys the scheduler's actions and checks at every step what must always hold."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from saesweep.forecast import Course, Entry, Table, names_of
from saesweep.scheduler import (
    Action,
    Aim,
    Ask,
    BlockDone,
    Complete,
    Event,
    Opened,
    Place,
    Policy,
    Prune,
    State,
    Stop,
    Suggested,
    decide,
)
from saesweep.scheduler.aim import GoalAim

MSE = Aim(goals=(GoalAim("mse", maximize=False),))
"""One goal; reports are (mse, l0)."""
FRONT = Aim(goals=(GoalAim("l0", maximize=False), GoalAim("mse", maximize=False)))
"""Two goals; reports are (l0, mse)."""


def plain_course(policy: Policy, **changes: Any) -> Course:
    """A course of the test table's one kind, the same for every trial."""
    stops = policy.stops_tokens
    fields = {
        "kind": "plain",
        "family": "penalty",
        "log_lr": 0.0,
        "log_setting": 0.0,
        "leads": tuple(math.log(stops[-1] / stop) for stop in stops),
        "first_rung": 0,
    }
    return Course(**{**fields, **changes})


def table(error_sd: float = 0.02, shared_sd: float = 0.0) -> Table:
    """A prior under which no metric changes from any rung on, but for the errors of the trial and of the source."""

    def entry(family: str, metric: str) -> Entry:
        n = len(names_of(family, metric))
        row = (*[0.0] * n, shared_sd**2, *[0.0] * (n * (n + 1) // 2 - 1), error_sd)
        return Entry((0.0, 0.001, 10.0), ((0.0,) * len(row), row, row), n)

    metrics = ("mse", "l0", "explained_variance")
    return Table({f"any {family}": {name: entry(family, name) for name in metrics} for family in ("penalty", "k")})


@dataclass
class Simulator:
    """Trains nothing: each trial's values come from `quality(number, rung)`."""

    policy: Policy
    quality: Callable[[int, int], tuple[float, ...]]
    group: Callable[[int, str], str] = lambda number, stratum: stratum
    course: Callable[[int], Course | None] = lambda number: None
    """None: a course that may be judged from the first rung."""
    block_tokens: int = 10
    state: State = field(init=False)
    events: list[Event] = field(default_factory=list)
    answers: list[list[Action]] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    prunes: list[Prune] = field(default_factory=list)
    stopped: str | None = None
    trained_slots: int = 0
    idle_slots: int = 0

    def __post_init__(self) -> None:
        self.state = State.new(self.policy)

    def send(self, event: Event) -> None:
        """Send an event and obey the actions, answering every ask."""
        self.state, actions = decide(self.state, event)
        self.events.append(event)
        self.answers.append(actions)
        asks = []
        for action in actions:
            assert self.stopped is None or isinstance(event, Opened)
            if isinstance(action, Place):
                assert action.slot not in self.slots
                assert action.number not in self.slots.values()
                assert action.number not in self.ended
                assert 0 <= action.slot < self.state.n_slots
                self.slots[action.slot] = action.number
            elif isinstance(action, Prune | Complete):
                assert action.number not in self.ended
                self.ended[action.number] = type(action).__name__
                self.slots = {slot: n for slot, n in self.slots.items() if n != action.number}
                if isinstance(action, Prune):
                    self.prunes.append(action)
            elif isinstance(action, Ask):
                asks.append(action)
            else:
                assert isinstance(action, Stop)
                self.stopped = action.reason
        for ask in asks:
            if self.stopped is None:
                like = ask.number if ask.retry_of is None else ask.retry_of
                group = self.group(like, ask.stratum)
                course = self.course(like) or plain_course(self.policy)
                answer = Suggested(
                    number=ask.number, stratum=ask.stratum, group=group, course=course, retry_of=ask.retry_of
                )
                self.send(answer)

    def block(self, rng: random.Random | None = None, fail: float = 0.0) -> None:
        """Train every slot for one block, of random length where `rng` is given."""
        waiting = any(trial.status == "waiting" for trial in self.state.trials.values())
        free = self.state.n_slots - len(self.slots)
        self.trained_slots += len(self.slots)
        self.idle_slots += free if waiting or len(self.state.trials) < self.policy.n_trials else 0
        values, failed = {}, {}
        numbers = list(self.slots.values())
        if rng is not None:
            rng.shuffle(numbers)
        for number in numbers:
            step = self.block_tokens if rng is None else rng.randint(1, 3 * self.block_tokens)
            self.tokens[number] = min(self.tokens.get(number, 0) + step, self.policy.total_tokens)
            if rng is not None and rng.random() < fail:
                failed[number] = "NaN in its loss"
                continue
            due = self.state.due_rungs(number, self.tokens[number])
            if due:
                values[number] = {rung: self.quality(number, rung) for rung in due}
        tokens_seen = {number: self.tokens[number] for number in numbers}
        self.send(BlockDone(tokens_seen=tokens_seen, values=values, failed=failed))

    def run(self, rng: random.Random | None = None, fail: float = 0.0) -> Simulator:
        """Run to the stop."""
        self.send(Opened())
        while self.stopped is None:
            self.block(rng, fail)
        return self


def policy(**fields: Any) -> Policy:
    given: dict[str, Any] = {"n_trials": 3, "n_slots": 3, "total_tokens": 90, "rungs_tokens": (10,), "aim": MSE}
    return Policy(**{**given, **fields})


def answered(rules: Policy, ask: Ask, **fields: Any) -> Suggested:
    course = {name: fields.pop(name) for name in ("kind", "family", "l0", "target_l0", "first_rung") if name in fields}
    given = {"number": ask.number, "stratum": ask.stratum, "group": "g", "course": plain_course(rules, **course)}
    return Suggested(**{**given, **fields})


def opened(rules: Policy, **by_number: dict[str, Any]) -> State:
    """A sweep whose first asks are answered and placed; `t1={...}` changes the answer of trial 1."""
    state, actions = decide(State.new(rules), Opened())
    for ask in actions:
        assert isinstance(ask, Ask)
        state, _ = decide(state, answered(rules, ask, **by_number.get(f"t{ask.number}", {})))
    return state


def at(state: State, tokens: int, values: dict[int, tuple[float, ...]], rung: int = 0) -> tuple[State, list[Action]]:
    reports = {number: {rung: v} for number, v in values.items()}
    seen = {
        trial.number: tokens if trial.number in values else trial.tokens_seen for trial in state.with_status("training")
    }
    return decide(state, BlockDone(tokens_seen=seen, values=reports))


def pruned(actions: list[Action]) -> list[int]:
    return [action.number for action in actions if isinstance(action, Prune)]
