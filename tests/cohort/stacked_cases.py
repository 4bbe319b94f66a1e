"""Trials, batches and cohorts that the tests of stacked slots share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from saesweep.cohort import Cohort, ReferenceEngine, Slot, Stacks
from saesweep.cohort.kernels import KernelChoice, SparseEngine
from saesweep.cohort.kernels.choice import Stacked
from saesweep.cohort.kernels.pairs import PairKernels
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun

D, F, B = 12, 48, 100
HOOK = "h"
WINDOW = 4
"""Steps after which a latent counts as dead: the second half of each trajectory has an auxiliary loss."""
STEPS = 12


TOPK, BATCHTOPK = {"architecture": "topk", "k": 4}, {"architecture": "batchtopk", "k": 3.7}
MATRYOSHKA = {"architecture": "matryoshka_batchtopk", "k": 3.7, "matryoshka_widths": [12, 24]}
ALIGNED = {**TOPK, "aligned": True}
FAMILY = pytest.mark.parametrize(
    "sae",
    [TOPK, BATCHTOPK, MATRYOSHKA, ALIGNED],
    ids=lambda sae: sae["architecture"] + (" aligned" if "aligned" in sae else ""),
)


def make_run(dtype: str = "float32", sae: Mapping[str, Any] = TOPK, **fields: Any) -> BaseRun:
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": HOOK,
            "training_tokens": 40 * B,
            "train_batch_size_tokens": B,
            "lr": 3e-3,
            "lr_warm_up_steps": 3,
            "lr_decay_steps": 5,
            "dead_feature_window": WINDOW,
            "sae": {"d_in": D, "d_sae": F, "dtype": dtype, **sae},
            **fields,
        }
    )


def trials(sae: Mapping[str, Any]) -> list[BaseRun]:
    """Runs that share a stack and differ in all that they may differ in there."""
    return [
        make_run(sae=sae),
        make_run(sae={**sae, "k": 3}, lr=1e-2, adam_beta1=0.5),
        make_run(sae={**sae, "aux_loss_coefficient": 0.1}, lr_warm_up_steps=0, adam_beta2=0.99),
        make_run(sae=sae, lr=1e-3, training_tokens=30 * B),
        make_run(sae={**sae, "k": 3}, lr_scheduler_name="cosineannealing"),
    ]


def batches(n: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, D, generator=generator, dtype=torch.float64)
    rows = [(torch.rand(B, 64, generator=generator, dtype=torch.float64) > 0.9).double() @ features for _ in range(n)]
    return [{HOOK: row.to(dtype)} for row in rows]


Way = Literal["reference", "no", "batched", "each"]
"""How a cohort trains: by autograd, by the sparse kernels one SAE after another, or stacked."""


def new_cohort(n_slots: int, way: Way = "batched", *, device: str = "cpu") -> Cohort:
    # Stacks take a chunk of 64 tokens and one of 36.
    pairs: PairKernels = "torch" if device == "cpu" else "triton"
    stacked: Stacked = "no" if way == "reference" else way
    engine = SparseEngine(KernelChoice(chunk_elements=F * 70, stacked=stacked, pairs=pairs))
    return Cohort(
        n_slots,
        normalizers={(HOOK, "none"): Normalizer(mode="none")},
        device=device,
        engine=ReferenceEngine() if way == "reference" else engine,
        stacks=None if stacked == "no" else Stacks(engine),
    )


def new_slot(run: BaseRun, seed: int = 7, device: str = "cpu", **options: Any) -> Slot:
    slot = Slot(trial=seed, run=run, joined_at_tokens=0, init_seed=seed, device=device, **options)
    # Some latents never fire: the auxiliary loss has something to do.
    slot.params["b_enc"][::5] = -10.0
    return slot


def filled(slots: list[Slot], way: Way = "batched") -> Cohort:
    cohort = new_cohort(len(slots), way)
    for index, slot in enumerate(slots):
        cohort.place(index, slot)
    cohort.begin_block()
    return cohort


def state(slot: Slot) -> dict[str, Tensor]:
    losses = {f"loss/{name}": term for name, term in slot.block_losses.items()}
    return {name: tensor.clone() for name, tensor in {**slot.tensors(), **losses, "finite": slot.is_finite}.items()}


def assert_same_bits(slot: Slot, other: Slot, what: object = "") -> None:
    mine, theirs = state(slot), state(other)
    assert mine.keys() == theirs.keys()
    different = [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])]
    assert not different, (what, different)
    assert slot.meta() == other.meta() | {"trial": slot.trial}
