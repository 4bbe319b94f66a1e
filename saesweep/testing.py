"""What every engine must do, as a class of tests for pytest: subclass `EngineContract` and give it an `engine` fixture.

The driver relies on nothing else, so an engine that passes trains the same studies, metrics and weights as any other.

    class TestMine(EngineContract):
        @pytest.fixture
        def engine(self):
            return MyEngine()
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from saesweep.engines.protocol import Engine, Worker
from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Commands,
    Export,
    Finished,
    Place,
    SaveRequest,
    WorkerPlan,
)
from saesweep.errors import UserError
from saesweep.experiment import Experiment, load_experiment
from saesweep.runs import RunDirectory

STEPS = 10
"""Of a block; a trial has 40."""
TOPK: dict[str, Any] = {"sae.architecture": "topk", "sae.k": 8, "lr": 3e-3}
STANDARD: dict[str, Any] = {"sae.architecture": "standard", "sae.l1_coefficient": 1.0, "lr": 2e-3}


def experiment_of(**changes: Any) -> Experiment:
    """Return a search on synthetic activations with three slots."""
    return load_experiment(
        {
            "name": "contract",
            "base": {
                "model_name": None,
                "hook_name": "synthetic",
                "dataset_path": "builtin:synthetic",
                "training_tokens": 2560,
                "train_batch_size_tokens": 64,
                "device": "cpu",
                "sae": {"d_in": 16, "d_sae": 32, "normalize_activations": "expected_average_only_in"},
            },
            "space": {
                "sae.architecture": {"choice": ["topk", "standard"]},
                "sae.k": {"int": [2, 16]},
                "sae.l1_coefficient": {"float": [0.5, 2.0]},
                "lr": {"float": [1e-3, 1e-2]},
            },
            "objective": {"maximize": "explained_variance"},
            "evaluation": {"select_tokens": 256, "test_tokens": 256},
            "search": {"trials": 4, "pruner": "none"},
            "cohort": {"size": 3, "checkpoint_seconds": 0, "kernels": "reference", **changes},
        }
    )


class EngineContract:
    """The contract."""

    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError

    @pytest.fixture
    def experiment(self) -> Experiment:
        return experiment_of()

    def open(self, engine: Engine, experiment: Experiment, folder: Path) -> Worker:
        """Open a worker on a run directory."""
        with RunDirectory(folder):
            pass
        plan = WorkerPlan(experiment=experiment.written, run_dir=str(folder), n_trials=experiment.n_trials)
        return engine.open(plan, experiment)

    def train(
        self,
        engine: Engine,
        worker: Worker,
        number: int,
        *,
        place: dict[int, tuple[int, dict[str, Any]]] | None = None,
        remove: tuple[int, ...] = (),
        measure: tuple[int, ...] = (),
        save: dict[str, Any] | None = None,
    ) -> BlockReport:
        """Train a block; `place` has (slot, settings) by trial."""
        placed = tuple(Place(number=n, slot=slot, params=p) for n, (slot, p) in (place or {}).items())
        worker.start(
            BlockRequest(
                number=number,
                steps=STEPS,
                commands=Commands(remove=remove, place=placed),
                measure=measure,
                metrics=("explained_variance",),
                required=("explained_variance",),
                save=save,
            )
        )
        found, report = engine.next_report([worker], lambda who, steps: None)
        assert found is worker
        return report

    # ---------------------------------------------------------------- opening

    def test_the_preflight_says_how_wide_each_hook_is(self, engine: Engine, experiment: Experiment) -> None:
        (facts,) = engine.preflight(experiment)
        assert (facts.label, dict(facts.d_in), facts.has_lm_head) == ("", {"synthetic": 16}, None)

    def test_a_mistake_that_the_preflight_finds_is_a_user_error(self, engine: Engine) -> None:
        tree = dict(experiment_of().written)
        tree["base"] = {**tree["base"], "from_pretrained_path": "/nowhere/at/all"}
        with pytest.raises(UserError, match="nowhere"):
            engine.preflight(load_experiment(tree))

    def test_a_new_worker_says_what_it_opened(self, engine: Engine, experiment: Experiment, tmp_path: Path) -> None:
        worker = self.open(engine, experiment, tmp_path / "run")
        opened = worker.opened
        assert (opened.n_slots, opened.block, opened.stream_tokens, opened.driver) == (3, 0, 0, None)
        assert (opened.device, dict(opened.d_in), opened.has_lm_head) == ("cpu", {"synthetic": 16}, False)
        assert any("cohort of 3 on cpu" in detail for detail in opened.details)
        worker.close()

    # ---------------------------------------------------------------- blocks

    def test_a_block_reports_tokens_losses_and_what_was_to_be_measured(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        worker = self.open(engine, experiment, tmp_path / "run")
        report = self.train(engine, worker, 1, place={0: (0, TOPK), 1: (2, STANDARD)}, measure=(1,))
        assert (report.number, report.stream_tokens, report.skipped_batches) == (1, 640, 0)
        assert list(report.trials) == [0, 1]
        for trial in report.trials.values():
            assert (trial.tokens, trial.step, trial.joined_at_tokens, trial.is_finite) == (640, STEPS, 0, True)
            assert trial.loss > 0
        assert report.trials[0].scores is None
        scores = report.trials[1].scores
        assert scores is not None
        assert scores.metrics["l0"] > 0
        worker.close()

    def test_the_same_number_again_gives_the_same_report_and_trains_nothing(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        worker = self.open(engine, experiment, tmp_path / "run")
        place = {0: (0, TOPK)}
        first = self.train(engine, worker, 1, place=place, measure=(0,))
        assert self.train(engine, worker, 1, place=place, measure=(0,)) == first
        assert self.train(engine, worker, 2).trials[0].tokens == 2 * 640
        worker.close()

    def test_a_block_out_of_order_is_refused(self, engine: Engine, experiment: Experiment, tmp_path: Path) -> None:
        worker = self.open(engine, experiment, tmp_path / "run")
        with pytest.raises(ValueError, match="block 2 is asked for after block 0"):
            self.train(engine, worker, 2, place={0: (0, TOPK)})
        worker.close()

    def test_a_trial_does_not_depend_on_its_neighbours_or_its_slot(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        alone = self.open(engine, experiment, tmp_path / "alone")
        reports = [self.train(engine, alone, 1, place={5: (1, STANDARD)}, measure=(5,))]
        reports.append(self.train(engine, alone, 2, measure=(5,)))
        alone.close()
        crowd = self.open(engine, experiment, tmp_path / "crowd")
        place = {0: (0, TOPK), 5: (2, STANDARD), 7: (1, TOPK)}
        others = [self.train(engine, crowd, 1, place=place, measure=(5,))]
        others.append(self.train(engine, crowd, 2, remove=(0,), place={8: (0, TOPK)}, measure=(5,)))
        crowd.close()
        assert [r.trials[5] for r in reports] == [r.trials[5] for r in others]
        assert set(others[1].trials) == {5, 7, 8}
        assert others[1].trials[8].joined_at_tokens == 640

    def test_settings_that_do_not_fit_are_a_user_error(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        worker = self.open(engine, experiment, tmp_path / "run")
        with pytest.raises(UserError, match=r"sae\.k"):
            self.train(engine, worker, 1, place={0: (0, {**TOPK, "sae.k": -1})})
        worker.close()

    # ---------------------------------------------------------------- checkpoints

    def test_a_reopened_worker_resumes_from_its_checkpoint_bit_for_bit(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        place = {0: (0, TOPK), 1: (1, STANDARD)}
        whole = self.open(engine, experiment, tmp_path / "whole")
        expected = [self.train(engine, whole, n, place=place if n == 1 else None, measure=(0, 1)) for n in (1, 2, 3)]
        whole.close()
        first = self.open(engine, experiment, tmp_path / "run")
        self.train(engine, first, 1, place=place, measure=(0, 1))
        report = self.train(engine, first, 2, save={"mine": [1, 2.5, None]}, measure=(0, 1))  # the state before block 2
        assert report.trials == expected[1].trials
        request = SaveRequest(number=3, commands=Commands(), driver={"mine": "newer"})
        assert first.save(request).saved[-1].block == 2
        first.close()
        again = self.open(engine, experiment, tmp_path / "run")
        assert (again.opened.block, again.opened.stream_tokens) == (2, 1280)
        assert again.opened.driver == {"mine": "newer"}
        assert self.train(engine, again, 3, place=place, measure=(0, 1)).trials == expected[2].trials
        again.close()

    def test_a_worker_in_the_place_of_a_lost_one_repeats_what_lies_between(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        lost = self.open(engine, experiment, tmp_path / "run")
        self.train(engine, lost, 1, place={0: (0, TOPK), 1: (1, STANDARD)})
        # The checkpoint has the commands of its request carried out already.
        reports = [self.train(engine, lost, 2, remove=(0,), place={2: (0, STANDARD)}, save={})]
        reports += [self.train(engine, lost, 3, place={3: (2, TOPK)}), self.train(engine, lost, 4, measure=(2, 3))]
        assert [one.block for report in reports for one in report.saved] == [1]
        lost.close()
        other = self.open(engine, experiment, tmp_path / "run")
        assert other.opened.block == 1
        again = self.train(engine, other, 4, measure=(2, 3))
        assert (again.trials, again.stream_tokens) == (reports[-1].trials, reports[-1].stream_tokens)
        assert {number: trial.joined_at_tokens for number, trial in again.trials.items()} == {1: 0, 2: 640, 3: 1280}
        other.close()
        # A driver that went back itself asks for what follows the checkpoint, whatever was asked before.
        third = self.open(engine, experiment, tmp_path / "run")
        assert set(self.train(engine, third, 2, remove=(1,)).trials) == {2}
        with pytest.raises(ValueError, match="block 4 is asked for after block 2"):
            self.train(engine, third, 4)
        third.close()

    def test_commands_come_before_the_checkpoint_of_their_request(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        first = self.open(engine, experiment, tmp_path / "run")
        self.train(engine, first, 1, place={0: (0, TOPK)})
        self.train(engine, first, 2, remove=(0,), place={1: (0, STANDARD)}, save={"block": 1})
        first.save(SaveRequest(number=3, commands=Commands(remove=(1,)), driver={"block": 2}))
        first.close()
        folders = sorted((tmp_path / "run" / "checkpoints").iterdir())
        states = [json.loads((folder / "state.json").read_text()) for folder in folders]
        assert [[slot["trial"] for slot in state["slots"]] for state in states] == [[1], []]
        assert [state["driver"] for state in states] == [{"block": 1}, {"block": 2}]

    def test_a_damaged_checkpoint_gives_way_to_the_one_before(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        first = self.open(engine, experiment, tmp_path / "run")
        self.train(engine, first, 1, place={0: (0, TOPK)})
        self.train(engine, first, 2, save={"block": 1})
        first.save(SaveRequest(number=3, commands=Commands(), driver={"block": 2}))
        first.close()
        (tmp_path / "run" / "checkpoints" / "00000002" / "state.json").write_text("{")
        again = self.open(engine, experiment, tmp_path / "run")
        assert (again.opened.block, again.opened.driver) == (1, {"block": 1})
        assert len(again.opened.damaged) == 1
        again.close()

    # ---------------------------------------------------------------- the end

    def test_a_finished_trial_is_exported_measured_on_test_and_copied(
        self, engine: Engine, experiment: Experiment, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        worker = self.open(engine, experiment, run)
        report = self.train(engine, worker, 1, place={0: (0, TOPK)})
        for number in (2, 3, 4):
            report = self.train(engine, worker, number)
        assert (report.trials[0].tokens, report.trials[0].scores is not None) == (2560, True)
        exported = run / "trials" / "0000" / "sae" / "sae_weights.safetensors"
        trial = Finished(number=0, hook="synthetic", replicates=1)
        tested = worker.test(trial)
        assert tested.metrics["explained_variance"] > 0.1
        assert tested.spread == {}
        worker.compare([trial], "explained_variance")
        stderr = worker.stderr({0: 1.0})
        assert stderr is None or stderr > 0
        assert worker.stderr({0: 1.0, 9: -1.0}) is None
        worker.export(Export(number=0, target=str(run / "best"), extra={"why": "it won"}, is_tested=True))
        copied = run / "best" / "sae_weights.safetensors"
        assert _sha256(copied) == _sha256(exported)
        provenance = json.loads((run / "best" / "provenance.json").read_text())
        assert (provenance["why"], provenance["densities"]["part"]) == ("it won", "test")
        worker.close()

    def test_workers_may_follow_each_other(self, engine: Engine, experiment: Experiment, tmp_path: Path) -> None:
        for name in ("first", "second"):
            worker = self.open(engine, experiment, tmp_path / name)
            assert self.train(engine, worker, 1, place={0: (0, TOPK)}).trials[0].tokens == 640
            worker.close()
        engine.release()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
