"""Scheduler and study together, as a sweep uses them: kills at any call leave the final study as it was."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from saesweep.forecast import Course
from saesweep.scheduler import (
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
    Suggested,
    decide,
)
from saesweep.scheduler.aim import GoalAim
from saesweep.study import Study, TrialRecord

from .spaces import SPACE, loss, open_study

STRATA = {s["sae.architecture"]: s for s in SPACE.strata("sae.architecture")}
AIM = Aim(goals=(GoalAim("mse", maximize=False),))
POLICY = Policy(
    n_trials=14, n_slots=4, total_tokens=40, rungs_tokens=(10, 20), aim=AIM, min_probability=0.2, strata=tuple(STRATA)
)

COURSE = Course(
    kind="standard",
    family="penalty",
    log_lr=0.0,
    log_setting=0.0,
    leads=tuple(math.log(POLICY.total_tokens / stop) for stop in POLICY.stops_tokens),
    first_rung=0,
)


class Killed(Exception):
    """Stands for SIGKILL."""


class MiniSweep:
    """The run loop without a cohort: a trial's training is its token count, its loss a formula."""

    def __init__(self, folder: Path, calls_left: int) -> None:
        self.checkpoint = folder / "checkpoint.json"
        self.study: Study = open_study(folder / "study.db")
        self.calls_left = calls_left
        self.tokens: dict[int, int] = {}
        self.state = State.new(POLICY)
        self.blocks = 0
        if self.checkpoint.exists():
            saved = json.loads(self.checkpoint.read_text())
            self.state = State.from_json(saved["state"])
            self.tokens = {int(number): tokens for number, tokens in saved["tokens"].items()}
            self.blocks = saved["blocks"]

    def storing(self) -> None:
        """Die where the test wants it, before a call that changes the study."""
        if self.calls_left == 0:
            raise Killed
        self.calls_left -= 1

    def value(self, number: int, tokens: int) -> float:
        return loss(self.study.ask(number)) + 1 / (1 + tokens)

    def handle(self, event: Event) -> None:
        """Reports were stored; now all tells, then all asks."""
        self.state, actions = decide(self.state, event)
        asks: list[Ask] = []
        for action in actions:
            if isinstance(action, Prune):
                self.storing()
                self.study.tell(action.number, "pruned", attrs={"reason": action.reason})
                self.tokens.pop(action.number)
            elif isinstance(action, Complete):
                self.storing()
                self.study.tell(action.number, "complete", [self.value(action.number, self.tokens.pop(action.number))])
            elif isinstance(action, Place):
                self.tokens.setdefault(action.number, 0)
            elif isinstance(action, Ask):
                asks.append(action)
        for ask in asks:
            self.storing()
            self.study.ask(ask.number, STRATA[ask.stratum])
            self.handle(Suggested(number=ask.number, stratum=ask.stratum, group="g", course=COURSE))

    def run(self) -> list[TrialRecord]:
        try:
            self.handle(Opened())
            while self.state.stopped is None:
                self.block()
                self.blocks += 1
                if self.blocks % 3 == 0:
                    saved = {"state": self.state.to_json(), "tokens": self.tokens, "blocks": self.blocks}
                    self.checkpoint.write_text(json.dumps(saved, allow_nan=False))
            return self.study.trials()
        finally:
            self.study.close()

    def block(self) -> None:
        values = {}
        for trial in self.state.with_status("training"):
            self.tokens[trial.number] += 5
            tokens = self.tokens[trial.number]
            due = self.state.due_rungs(trial.number, tokens)
            values[trial.number] = {rung: (self.value(trial.number, tokens), 8.0) for rung in due}
            for rung in due:
                if rung < POLICY.end_rung:
                    self.storing()
                    self.study.report(trial.number, POLICY.rungs_tokens[rung], values[trial.number][rung][:1])
        training = [trial.number for trial in self.state.with_status("training")]
        self.handle(BlockDone(tokens_seen={n: self.tokens[n] for n in training}, values=values))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    records = MiniSweep(tmp_path_factory.mktemp("reference"), calls_left=-1).run()
    assert [record.number for record in records] == list(range(14))
    assert {record.state for record in records} == {"complete", "pruned"}
    return records


@pytest.mark.parametrize("seed", range(4))
def test_kills_leave_the_final_study_unchanged(tmp_path: Path, reference: list[TrialRecord], seed: int) -> None:
    rng = random.Random(seed)
    records, kills = None, 0
    while records is None:
        try:
            records = MiniSweep(tmp_path, calls_left=rng.randint(3, 25) if kills < 6 else -1).run()
        except Killed:
            kills += 1
    assert kills >= 2
    assert records == reference


def test_whole_replay_without_a_checkpoint_verifies_every_result(tmp_path: Path) -> None:
    first = MiniSweep(tmp_path, calls_left=-1).run()
    (tmp_path / "checkpoint.json").unlink(missing_ok=True)
    assert MiniSweep(tmp_path, calls_left=-1).run() == first
