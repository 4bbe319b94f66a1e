"""Trials of all kinds come and go at random: each ends with the bits that it has alone."""

from __future__ import annotations

import random

import pytest
import torch
from stacked_cases import BATCHTOPK, HOOK, MATRYOSHKA, TOPK, B, batches, filled, make_run, new_cohort, new_slot
from torch import Tensor

from saesweep.cohort import Slot
from saesweep.specs import BaseRun

N_SLOTS, N_STEPS = 4, 30


def drawn_run(rng: random.Random) -> BaseRun:
    sae = rng.choice([TOPK, TOPK, BATCHTOPK, MATRYOSHKA, {"architecture": "standard", "l1_coefficient": 2.0}])
    if sae is TOPK:
        sae = {**sae, "k": rng.choice([3, 4, 7]), "k_start": 9, "k_anneal_steps": rng.choice([0, 5])}
        if sae["k_anneal_steps"] == 0:
            del sae["k_start"]
    return make_run(
        sae=sae,
        lr=rng.choice([1e-3, 3e-3]),
        training_tokens=rng.choice([4, 9, 40]) * B,
        lr_warm_up_steps=0,
        lr_decay_steps=0,
    )


@pytest.mark.parametrize("seed", range(4))
def test_whoever_comes_and_goes(seed: int) -> None:
    rng, data = random.Random(seed), batches(N_STEPS)
    cohort, number = new_cohort(N_SLOTS), 0
    lives: list[tuple[Slot, BaseRun, int, list[dict[str, Tensor]]]] = []
    for batch in data:
        for index in range(N_SLOTS):
            taken = cohort.slots[index]
            if taken is not None and (taken.is_done or rng.random() < 0.08):
                cohort.remove(index)
            if cohort.slots[index] is None and rng.random() < 0.4:
                run = drawn_run(rng)
                slot = new_slot(run, number)
                cohort.place(index, slot)
                lives.append((slot, run, number, []))
                number += 1
        if rng.random() < 0.3:
            cohort.begin_block()
        placed = {id(slot) for _, slot in cohort.occupied()}
        for slot, _, _, seen in lives:
            if id(slot) in placed:
                seen.append(batch)
        cohort.train_step(batch)
    assert len(lives) > 8
    for slot, run, own_number, seen in lives:
        alone = new_slot(run, own_number)
        single = filled([alone])
        for batch in seen:
            single.train_step({HOOK: batch[HOOK]})
        assert slot.step == alone.step == min(len(seen), run.total_steps)
        for name, tensor in alone.tensors().items():
            assert torch.equal(slot.tensors()[name], tensor), (run.sae.architecture, name)
