"""An engine whose worker trains nothing and makes its figures up: what a block costs is then what the driver costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from saesweep.engines.records import (
    BlockReport,
    BlockRequest,
    Commands,
    Export,
    Finished,
    Opened,
    SaveReply,
    SaveRequest,
    Scores,
    StreamFacts,
    Tested,
    TrialReport,
    WorkerPlan,
)
from saesweep.experiment import Experiment


def made_up_sweep(name: str, total_tokens: int) -> dict[str, Any]:
    """Return an experiment's base and space for workers that train nothing."""
    return {
        "name": name,
        "base": {
            "model_name": None,
            "hook_name": "synthetic",
            "dataset_path": "builtin:synthetic",
            "training_tokens": total_tokens,
            "train_batch_size_tokens": 64,
            "device": "cpu",
            "sae": {"d_in": 16, "d_sae": 32, "normalize_activations": "none"},
        },
        "space": {
            "sae.architecture": {"choice": ["topk", "batchtopk"]},
            "sae.k": {"int": [2, 16]},
            "lr": {"float": [1e-4, 1e-2], "log": True},
        },
    }


def made_up_metrics(number: int, tokens: int) -> dict[str, float]:
    """Return the metrics of a trial: better with more tokens, a front of L0 and explained variance."""
    dice = random.Random(number)
    l0 = 2.0 ** dice.uniform(2, 8)
    good = 0.9 - 1.5 / l0 - 0.05 * dice.random() - 0.2 / (1 + tokens / 1e3)
    return {"l0": l0, "explained_variance": good, "mse": 1 - good, "dead_fraction": 0.01 * dice.random()}


class ScriptedWorker:
    """A worker that counts tokens.

    Args:
        opened: What it found.
        batch_tokens: Tokens of a step.
        total_tokens: Tokens of a full trial.
    """

    def __init__(self, opened: Opened, batch_tokens: int, total_tokens: int) -> None:
        self.opened = opened
        self.is_opened = True
        self.tokens: dict[int, int] = {}
        self.slots: dict[int, int] = {}
        self._batch_tokens = batch_tokens
        self._total_tokens = total_tokens
        self._stream_tokens = opened.stream_tokens
        self._request: BlockRequest | None = None
        for trial in () if opened.driver is None else opened.driver["trials"]:
            self.tokens[trial["number"]] = trial["tokens"]

    def start(self, request: BlockRequest) -> None:
        self._request = request

    def report(self) -> BlockReport:
        assert self._request is not None
        request, self._request = self._request, None
        self._carry_out(request.commands)
        self._stream_tokens += request.steps * self._batch_tokens
        found = {}
        for number in sorted(self.slots, key=self.slots.__getitem__):
            tokens = min(self.tokens[number] + request.steps * self._batch_tokens, self._total_tokens)
            self.tokens[number] = tokens
            scores = None
            if number in request.measure or tokens == self._total_tokens:
                metrics = made_up_metrics(number, tokens)
                scores = Scores(metrics=metrics, spread={}, replicates=(metrics,), dead_window_tokens=1000)
            found[number] = TrialReport(
                tokens=tokens,
                step=tokens // self._batch_tokens,
                joined_at_tokens=0,
                is_finite=True,
                values={"losses/overall_loss": 1.0, "details/current_learning_rate": 1e-3},
                scores=scores,
            )
        return BlockReport(
            number=request.number,
            trials=found,
            stream_tokens=self._stream_tokens,
            epoch=0,
            seconds=1.0,
            skipped_batches=0,
            unreadable_rows=0,
        )

    def _carry_out(self, commands: Commands) -> None:
        for number in commands.remove:
            self.slots.pop(number, None)
        for place in commands.place:
            self.slots[place.number] = place.slot
            self.tokens.setdefault(place.number, 0)

    def save(self, request: SaveRequest) -> SaveReply:
        self._carry_out(request.commands)
        return SaveReply(saved=())

    def test(self, trial: Finished) -> Tested:
        return Tested(metrics=made_up_metrics(trial.number, self._total_tokens), spread={})

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        pass

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        return None

    def export(self, export: Export) -> None:
        pass

    def close(self) -> None:
        pass


class ScriptedEngine:
    """Opens scripted workers.

    Args:
        n_slots: Of each.
        driver: What the driver had saved with a checkpoint; None without one.
    """

    def __init__(self, n_slots: int, driver: Mapping[str, Any] | None = None) -> None:
        self._n_slots = n_slots
        self._driver = driver

    def preflight(self, experiment: Experiment) -> tuple[StreamFacts, ...]:
        run = experiment.base_run()
        assert run.sae.d_in is not None
        return (StreamFacts(label="", d_in={run.hook_name: run.sae.d_in}, has_lm_head=False),)

    def devices(self, experiment: Experiment) -> tuple[str, ...]:
        return ("",)

    def has_room(self, plan: WorkerPlan) -> bool:
        return False

    def open(self, plan: WorkerPlan, experiment: Experiment) -> ScriptedWorker:
        run = experiment.base_run()
        assert run.sae.d_in is not None
        opened = Opened(
            d_in={run.hook_name: run.sae.d_in},
            has_lm_head=False,
            n_slots=self._n_slots,
            device="cpu",
            has_sinks=False,
            notes=(),
            details=(),
            registered_metrics=(),
            driver=self._driver,
            block=0 if self._driver is None else 1,
        )
        batch_tokens = run.train_batch_size_tokens
        return ScriptedWorker(opened, batch_tokens, run.total_steps * batch_tokens)

    def next_report(
        self, workers: Sequence[ScriptedWorker], while_waiting: Callable[[Any, int | None], None]
    ) -> tuple[ScriptedWorker, BlockReport]:
        return workers[0], workers[0].report()

    def release(self) -> None:
        pass
