"""Schedules equal torch's own schedulers, composed as SAELens composes them."""

from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

from saesweep.specs import BaseRun, LearningRate, Ramp, ramps_of


def torch_rates(schedule: LearningRate) -> list[float]:
    """Build the SAELens composition from torch's schedulers and read its rates."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=schedule.lr)
    main_steps = schedule.total_steps - schedule.warm_up_steps - schedule.decay_steps
    main = {
        "constant": lambda: lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        "cosineannealing": lambda: lr_scheduler.CosineAnnealingLR(optimizer, main_steps, eta_min=schedule.lr_end),
        "cosineannealingwarmrestarts": lambda: lr_scheduler.CosineAnnealingWarmRestarts(
            optimizer, main_steps // schedule.n_restart_cycles, eta_min=schedule.lr_end
        ),
    }[schedule.name]()
    parts, milestones = [main], []
    if schedule.warm_up_steps:
        n = schedule.warm_up_steps
        parts.insert(0, lr_scheduler.LinearLR(optimizer, 1 / n, 1.0, max(1, n - 1)))
        milestones.append(n)
    if schedule.decay_steps:
        begin = schedule.lr if schedule.name == "constant" else schedule.lr_end
        parts.append(lr_scheduler.LinearLR(optimizer, begin / schedule.lr, 0.0, schedule.decay_steps))
        milestones.append(schedule.total_steps - schedule.decay_steps)
    both = lr_scheduler.SequentialLR(optimizer, parts, milestones)
    rates = []
    for _ in range(schedule.total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        both.step()
    return rates


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize("name", ["constant", "cosineannealing", "cosineannealingwarmrestarts"])
@pytest.mark.parametrize(("warm_up", "decay"), [(0, 0), (5, 0), (0, 8), (7, 10)])
def test_learning_rate_equals_the_composition_of_torch_schedulers(name: str, warm_up: int, decay: int) -> None:
    schedule = LearningRate(
        lr=3e-3,
        lr_end=4e-4,
        name=name,
        total_steps=60,
        warm_up_steps=warm_up,
        decay_steps=decay,
        n_restart_cycles=3 if "restarts" in name else 1,
    )
    assert [schedule.at(i) for i in range(60)] == pytest.approx(torch_rates(schedule), rel=1e-9, abs=1e-12)
    long = replace(schedule, total_steps=1200, warm_up_steps=20 * warm_up, decay_steps=20 * decay)
    for steps in (1, 50, 300, 700, 1100, 1200):
        assert long.summed(steps) == pytest.approx(sum(long.at(i) for i in range(steps)), rel=0.01)


def run_with(**fields: object) -> BaseRun:
    sae = {"architecture": "standard", "d_sae": 8, "l1_coefficient": 4.0, "l1_warm_up_steps": "10%"}
    return BaseRun.model_validate(
        {"dataset_path": "x", "training_tokens": 1000, "train_batch_size_tokens": 10, "sae": sae, **fields}
    )


def test_durations_in_shares_and_tokens_become_steps() -> None:
    schedule = LearningRate.of(run_with(lr_warm_up_steps="5%", lr_decay_steps="200tok"))
    assert (schedule.total_steps, schedule.warm_up_steps, schedule.decay_steps) == (100, 5, 20)


def test_lr_end_is_a_tenth_when_left_out() -> None:
    assert LearningRate.of(run_with(lr=2e-3)).lr_end == pytest.approx(2e-4)


def test_coefficients_rise_from_zero_and_stay() -> None:
    (ramp,) = ramps_of(run_with()).values()
    assert [ramp.at(i) for i in (0, 5, 10, 99)] == pytest.approx([0.0, 2.0, 4.0, 4.0])
    assert str(ramp) == "0 to 4 over 10 steps"


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"k_anneal_steps": "20%", "k_start": 44}, {0: 44, 5: 34, 10: 24, 20: 4, 99: 4}),
        ({"k_anneal_steps": "20%", "d_in": 24}, {0: 24, 10: 14, 20: 4}),  # from d_in, as dictionary_learning has it
        ({"k_anneal_steps": 10, "k_start": 2}, {0: 2, 5: 3, 10: 4}),
        ({}, {0: 4, 99: 4}),
    ],
)
def test_k_goes_linearly_from_its_start(fields: dict[str, object], at: dict[int, float]) -> None:
    run = run_with(sae={"architecture": "batchtopk", "d_sae": 64, "k": 4, **fields})
    assert {step: ramps_of(run)["k"].at(step) for step in at} == pytest.approx(at)


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"k_start": 8}, "sae.k_start", "says where k starts, and k_anneal_steps is 0"),
        ({"k_start": 99, "k_anneal_steps": 5}, "sae.k_start", "99 is more than d_sae 64"),
    ],
)
def test_what_makes_no_schedule_of_k(fields: dict[str, object], path: str, message: str) -> None:
    problems = dict(run_with(sae={"architecture": "topk", "d_sae": 64, "k": 4, **fields}).problems())
    assert message in problems[path]


def test_annealing_k_is_not_compiled_at_each_step() -> None:
    sae = {"architecture": "topk", "d_sae": 64, "k": 4, "k_anneal_steps": 5}
    assert "sae.k_anneal_steps" in dict(run_with(sae=sae, compile_sae=True).problems())


def test_a_ramp_that_goes_nowhere_is_constant() -> None:
    assert Ramp(start=4, end=4, steps=9).is_constant
    assert str(Ramp(start=0, end=4, steps=0)) == "4"
