"""The controller against synthetic responses: late ones, drifting ones, and ones that it cannot move."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
import torch

from saesweep.cohort import Cohort, Slot, SparsityControl
from saesweep.saes import Knobs, Normalizer
from saesweep.specs import BaseRun, ControlPlan, LearningRate, MatchedSpec
from saesweep.specs.architectures import spec_class

STEPS, TOKENS = 2000, 100
CHANGES = (200, 291, 424, 618, 900, 1400)


def schedule(steps: int = STEPS) -> LearningRate:
    return LearningRate(
        lr=1e-3, lr_end=1e-4, name="constant", total_steps=steps, warm_up_steps=steps // 50, decay_steps=steps // 5
    )


def plan(target: float, **changes: Any) -> ControlPlan:
    fields = {
        "field": "l1_coefficient",
        "target_l0": target,
        "change_steps": CHANGES,
        "every_steps": STEPS // 400,
        "max_change": 100.0,
    }
    return ControlPlan(**{**fields, **changes})


class Response:
    """An SAE whose L0 answers late to its coefficient, and goes on falling as a power of the summed learning rate."""

    def __init__(self, *, elasticity: float = 0.7, drift: float = 0.4, lag_steps: float = 40.0) -> None:
        self.elasticity, self.drift, self.lag_steps = elasticity, drift, lag_steps
        self.log_c: float | None = None
        self.lr_sum = 0.0

    def step(self, coefficient: float, lr: float) -> float:
        self.lr_sum += lr
        log_c = math.log(coefficient)
        self.log_c = log_c if self.log_c is None else self.log_c + (log_c - self.log_c) / self.lag_steps
        return 20.0 * math.exp(-self.elasticity * self.log_c) * self.lr_sum**-self.drift


def train(control: SparsityControl, response: Response, steps: range = range(STEPS)) -> list[tuple[float, float]]:
    """Return (coefficient, L0) of each step."""
    lr, found = schedule(), []
    for step in steps:
        l0 = response.step(control.coefficient, lr.at(step))
        found.append((control.coefficient, l0))
        control.observe(step, torch.tensor([round(l0 * TOKENS)]), TOKENS)
    return found


@pytest.mark.parametrize("target", [8.0, 16.0, 64.0])
@pytest.mark.parametrize(
    "response",
    [
        {},
        {"drift": 0.2},
        {"drift": 0.8},
        {"elasticity": 0.5},
        {"elasticity": 0.95},
        {"elasticity": 1.2},
        {"lag_steps": 5.0},
    ],
    ids=str,
)
def test_the_run_ends_at_its_target(response: dict[str, float], target: float) -> None:
    control = SparsityControl(plan(target), 1.0, schedule(), "cpu")
    path = train(control, Response(**response))
    assert path[-1][1] == pytest.approx(target, rel=0.05)


def test_l0_falls_on_after_the_freeze_and_that_was_foreseen() -> None:
    control = SparsityControl(plan(16.0), 1.0, schedule(), "cpu")
    path = train(control, Response(drift=0.6))
    at_freeze = path[STEPS * 7 // 10][1]
    assert at_freeze > 1.1 * 16  # aiming at the present L0 would have missed by as much
    assert path[-1][1] == pytest.approx(16, rel=0.03)


def test_it_is_damped() -> None:
    control = SparsityControl(plan(16.0), 1.0, schedule(), "cpu")
    path = train(control, Response(drift=0.5, lag_steps=20))
    settled = [coefficient for coefficient, _ in path[STEPS * 4 // 10 :]]
    assert min(settled) > 0.9 * settled[-1]
    assert max(settled) < 1.1 * settled[-1]


def test_it_moves_at_a_few_steps_by_so_much_and_then_never_again() -> None:
    control = SparsityControl(plan(2.0), 3.0, schedule(), "cpu")
    path = [c for c, _ in train(control, Response())]
    moved = [step + 1 for step, (a, b) in enumerate(itertools.pairwise(path)) if a != b]
    assert moved == list(CHANGES)
    assert max(abs(math.log(b / a)) for a, b in itertools.pairwise(path)) == pytest.approx(0.7)
    points = control.block_points
    assert {point.step for point in points} >= {*CHANGES, *range(5, STEPS + 1, 5)}
    assert points[-1].coefficient == path[-1] == control.coefficient


def test_l0_of_zero_is_steered_away_from() -> None:
    control = SparsityControl(plan(16.0), 1.0, schedule(), "cpu")
    for step in range(STEPS):
        control.observe(step, torch.zeros(4, dtype=torch.int64), TOKENS)
    assert control.coefficient == pytest.approx(math.exp(-0.7 * len(CHANGES)))  # as far as its changes reach


def test_it_stays_within_its_range() -> None:
    control = SparsityControl(plan(1e-3, max_change=4.0), 0.5, schedule(), "cpu")
    path = train(control, Response())
    assert path[-1][0] == pytest.approx(2.0)


def test_the_warm_up_applies_on_top() -> None:
    control = SparsityControl(plan(16.0), 2.0, schedule(), "cpu")
    train(control, Response())
    factor = control.coefficient / 2.0
    assert factor != 1.0
    knobs = control.applied(Knobs(l1_coefficient=0.5, l0_coefficient=7.0, k=3.0))
    assert knobs == Knobs(l1_coefficient=0.5 * factor, l0_coefficient=7.0, k=3.0)


@pytest.mark.parametrize("at", [1, 203, 400, 1111, 1600])  # within an update, too
def test_resumed_it_steers_identically(at: int) -> None:
    whole, response = SparsityControl(plan(16.0), 1.0, schedule(), "cpu"), Response()
    path = train(whole, response)
    first, response = SparsityControl(plan(16.0), 1.0, schedule(), "cpu"), Response()
    begun = train(first, response, range(at))
    second = SparsityControl(plan(16.0), 1.0, schedule(), "cpu")
    second.load(json.loads(json.dumps(first.state())))
    assert begun + train(second, response, range(at, STEPS)) == path


def run_of(architecture: str, **sae: Any) -> BaseRun:
    spec = spec_class(architecture).model_validate({"d_in": 16, "d_sae": 64, **sae})
    return BaseRun.model_validate(
        {
            "hook_name": "h",
            "dataset_path": "builtin:synthetic",
            "model_name": None,
            "training_tokens": 64_000,
            "train_batch_size_tokens": 64,
            "lr": 3e-3,
            "sae": spec,
        }
    )


def test_who_is_steered() -> None:
    matched = MatchedSpec(l0=(8, 16, 32))
    assert ControlPlan.of(run_of("topk", k=8), 8, matched) is None
    assert ControlPlan.of(run_of("jumprelu", jumprelu_sparsity_loss_mode="quadratic", target_l0=8), 8, matched) is None
    gated = ControlPlan.of(run_of("gated", l1_warm_up_steps="20%"), 8, matched)
    assert gated is not None
    assert (gated.field, gated.change_steps[0], gated.freeze_step, gated.every_steps) == (
        "l1_coefficient",
        400,
        700,
        2,
    )  # 2 x warm-up
    jumprelu = ControlPlan.of(run_of("jumprelu"), 8, MatchedSpec(l0=(8,), freeze="50%"))
    assert jumprelu is not None
    assert jumprelu.field == "l0_coefficient"
    assert jumprelu.change_steps == (100, 136, 186, 254, 347, 500)
    assert ControlPlan.of(run_of("gated"), 8, MatchedSpec(l0=(8,), steer=False)) is None


def test_a_slot_trains_with_the_steered_coefficient_and_resumes_with_it() -> None:
    run = run_of("standard", l1_coefficient=1.0)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(64, 16, generator=generator) for _ in range(300)]

    def cohort() -> tuple[Cohort, Slot]:
        made = Cohort(1, normalizers={("h", "none"): Normalizer.fit("none", iter(batches[:1]), 16)}, device="cpu")
        control = ControlPlan.of(run, 4.0, MatchedSpec(l0=(4,)))
        made.place(0, Slot(trial=0, run=run, joined_at_tokens=0, init_seed=0, device="cpu", control=control))
        slot = made.slots[0]
        assert slot is not None
        return made, slot

    whole, slot = cohort()
    for batch in batches:
        whole.train_step({"h": batch})
    assert slot.control is not None
    assert slot.control.coefficient > 1.0
    assert slot.knobs_at(slot.step).l1_coefficient == slot.control.coefficient
    first, begun = cohort()
    for batch in batches[:151]:
        first.train_step({"h": batch})
    second, resumed = cohort()
    resumed.load({k: t.clone() for k, t in begun.tensors().items()}, json.loads(json.dumps(begun.meta())))
    for batch in batches[151:]:
        second.train_step({"h": batch})
    assert resumed.meta() == slot.meta()
    for name, tensor in slot.tensors().items():
        assert torch.equal(resumed.tensors()[name], tensor), name
