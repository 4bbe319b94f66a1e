"""`search.patience`: no trial starts once it has run out, those in training decide whether the search continues, and a kill changes nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from saesweep.events import Event, TrialEnded, TrialStarted
from tests.driver.test_several_workers import MANY, TOTAL_TOKENS, InOrder, facts, run, run_killed, sweep
from tests.engines.scripted import made_up_metrics
from tests.engines.simulated import SimulatedEngine

PATIENCE = 3
N_TRIALS = 40


def patient(patience: int = PATIENCE) -> dict[str, Any]:
    return sweep(N_TRIALS, patience=patience, sampler="random")


class Watch:
    """Counts trials since the last better one, and checks that none begins beyond the patience."""

    def __init__(self) -> None:
        self.best: float | None = None
        self.since = 0
        self.was_out = False
        self.went_on = False
        """A trial began after the patience had been out."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrialStarted):
            assert self.since < PATIENCE
            self.went_on |= self.was_out
        if isinstance(event, TrialEnded):
            self.since += self.best is not None
            value = made_up_metrics(event.number, TOTAL_TOKENS)["explained_variance"]
            if event.status == "complete" and (self.best is None or value > self.best):
                self.best, self.since = value, 0
            self.was_out |= self.since >= PATIENCE


def test_no_trial_begins_while_patience_is_out_and_those_in_training_go_on(tmp_path: Path) -> None:
    watches = []
    for seed, n_slots in enumerate((1, 4, 6, 9)):
        watch, folder = Watch(), tmp_path / str(seed)
        result = run(SimulatedEngine(1, n_slots, seed), folder, patient(), watch)
        assert "search.patience: 3 trials in a row" in result.notes[0]
        assert len(result.rows) < N_TRIALS
        assert {row.status for row in result.rows} == {"complete", "pruned"}  # nothing is left in training
        watches.append(watch)
    assert any(watch.went_on for watch in watches)


def test_more_patience_continues_an_ended_search(tmp_path: Path) -> None:
    run(SimulatedEngine(1, 4, 0), tmp_path, patient())
    again = run(SimulatedEngine(1, 4, 0), tmp_path, patient())
    before = {row.number: row.status for row in again.rows}
    assert len(before) < N_TRIALS
    result = run(SimulatedEngine(1, 4, 0), tmp_path, patient(N_TRIALS))
    assert len(result.rows) == N_TRIALS
    assert all(before.get(row.number, row.status) == row.status for row in result.rows)


@MANY
@given(st.integers(1, 3), st.integers(0, 10**6), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_a_killed_driver_is_as_patient_as_an_undisturbed_one(n_workers: int, seed: int, kills: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, order = Path(name) / "killed", []
        for count, after in enumerate(kills):
            engine = SimulatedEngine(n_workers, 4, seed + count, kill_after=after)
            run_killed(engine, folder, patient())
            order += engine.reports
        engine = SimulatedEngine(n_workers, 4, seed + 100)
        assert run(engine, folder, patient()).status == "complete"
        order += engine.reports
        whole = Path(name) / "whole"
        undisturbed = SimulatedEngine(n_workers, 4, seed)
        undisturbed._dice = InOrder(order)  # type: ignore[assignment]
        assert run(undisturbed, whole, patient()).status == "complete"
        assert facts(whole) == facts(folder)
