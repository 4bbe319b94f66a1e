"""Adam's moments kept in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saesweep.cohort import Cohort, Slot
from saesweep.cohort.optimizer import round_stochastically
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun

B, D, F, STEPS = 64, 16, 64, 300


def run_of(**sae: Any) -> BaseRun:
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            "training_tokens": B * STEPS,
            "train_batch_size_tokens": B,
            "lr": 3e-3,
            "sae": {"architecture": "topk", "k": 4, "d_in": D, "d_sae": F, **sae},
        }
    )


def batch(i: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(i)
    return {"h": torch.randn(B, 8, generator=g) @ torch.randn(8, D, generator=torch.Generator().manual_seed(-1))}


def cohort_of(slot: Slot) -> Cohort:
    cohort = Cohort(1, normalizers={("h", "none"): Normalizer.fit("none", iter(()), D)}, device="cpu")
    cohort.place(0, slot)
    cohort.begin_block()
    return cohort


def slot_of(moments: Any, **sae: Any) -> Slot:
    return Slot(trial=0, run=run_of(**sae), joined_at_tokens=0, init_seed=3, device="cpu", adam_moments=moments)


def test_rounding_keeps_the_mean_and_never_leaves_the_two_neighbours() -> None:
    value = torch.full((200_000,), 1.0 + 2**-10)  # an eighth of the way between two bfloat16 numbers
    rounded = round_stochastically(value, torch.Generator().manual_seed(0)).float()
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert float(rounded.mean() - 1) == pytest.approx(2**-10, rel=0.02)
    exact = torch.tensor([0.0, -0.5, 3.0, torch.inf, -torch.inf])
    assert torch.equal(round_stochastically(exact, torch.Generator().manual_seed(0)).float(), exact)
    assert torch.isnan(round_stochastically(torch.tensor([torch.nan]), torch.Generator().manual_seed(0))).all()


def test_the_second_moment_moves_where_rounding_to_nearest_would_freeze_it() -> None:
    """A long decay of a constant: 0.999 ** 1000 of it is left, in expectation."""
    generator = torch.Generator().manual_seed(0)
    kept = nearest = torch.ones(4000, dtype=torch.bfloat16)
    for _ in range(1000):
        kept = round_stochastically(kept.float() * 0.999, generator)
        nearest = (nearest.float() * 0.999).to(torch.bfloat16)
    assert float(nearest.float().mean()) == 1.0
    assert float(kept.float().mean()) == pytest.approx(0.999**1000, rel=0.02)


def test_training_is_as_good_and_takes_less_memory() -> None:
    losses, sizes = {}, {}
    for moments in ("float32", "bfloat16"):
        slot = slot_of(moments)
        cohort = cohort_of(slot)
        for i in range(STEPS):
            if i == STEPS - 50:
                cohort.begin_block()
            cohort.train_step(batch(i))
        losses[moments] = slot.mean_losses()["overall_loss"]
        sizes[moments] = sum(t.nbytes for t in (*slot.exp_avg.values(), *slot.exp_avg_sq.values()))
    first = slot_of("float32")
    cohort = cohort_of(first)
    cohort.train_step(batch(0))
    assert losses["float32"] < 0.5 * first.mean_losses()["overall_loss"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert sizes["bfloat16"] * 2 == sizes["float32"]


def test_a_restored_slot_rounds_alike() -> None:
    straight, stopped = slot_of("bfloat16"), slot_of("bfloat16")
    cohort = cohort_of(straight)
    for i in range(20):
        cohort.train_step(batch(i))
    first = cohort_of(stopped)
    for i in range(9):
        first.train_step(batch(i))
    restored = slot_of("bfloat16")
    restored.load({name: t.clone() for name, t in stopped.tensors().items()}, stopped.meta())
    second = cohort_of(restored)
    for i in range(9, 20):
        second.train_step(batch(i))
    for name, tensor in straight.tensors().items():
        assert torch.equal(tensor, restored.tensors()[name]), name


def test_float64_runs_keep_float64_moments() -> None:
    assert {t.dtype for t in slot_of("bfloat16", dtype="float64").exp_avg_sq.values()} == {torch.float64}
