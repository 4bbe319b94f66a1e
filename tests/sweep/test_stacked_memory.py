"""What is planned for stacked steps is what they take."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saesweep.cohort.kernels import KernelChoice, stacked_check
from saesweep.specs import BaseRun, CohortSpec
from saesweep.worker.sizing import plan_slots, slot_bytes
from saesweep.worker.stacked_memory import stacked_bytes

GIB = 1 << 30


class Memory(TorchDispatchMode):
    """Adds up the storages that operators make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                storage = tensor.untyped_storage()
                if storage._cdata not in self.live:
                    self.live[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage._cdata)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def run_of(d_in: int, d_sae: int, n_tokens: int, **sae: Any) -> BaseRun:
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            "training_tokens": 10 * n_tokens,
            "train_batch_size_tokens": n_tokens,
            "sae": {"architecture": "topk", "d_in": d_in, "d_sae": d_sae, **sae},
        }
    )


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize(("d_in", "d_sae", "n_tokens"), [(64, 1024, 512), (64, 256, 512), (128, 1024, 128)])
def test_a_step_takes_what_is_planned(architecture: str, dead: bool, d_in: int, d_sae: int, n_tokens: int) -> None:
    sample = stacked_check.Sample(4, d_in, d_sae, device="cpu", n_tokens=n_tokens)
    with Memory() as memory:
        sample.step(KernelChoice(), [0, 1, 2, 3], reads_dead=dead, of_batch=architecture == "batchtopk")
    k = int(sample.k_N[0])
    run = run_of(d_in, d_sae, n_tokens, architecture=architecture, k=k, aux_loss_coefficient=float(dead))
    planned = 4 * stacked_bytes(run)
    assert 0.6 * planned < memory.peak < 1.1 * planned


def test_memory_is_planned_for_stacks_where_they_are_asked_for() -> None:
    runs = [run_of(2304, 16384, 4096, k=64)]
    sizes = {
        kernels: plan_slots(
            CohortSpec(kernels=kernels),
            n_trials=100,
            runs=runs,
            hooks=1,
            weight_bytes=0,
            free_bytes=24 * GIB,
        )
        for kernels in ("sparse", "stacked")
    }
    each = slot_bytes(runs[0]) + stacked_bytes(runs[0])
    assert sizes["stacked"].slots == (24 * GIB * 0.8 - sizes["sparse"].shared_bytes) // each
    for_a_step = sizes["stacked"].shared_bytes - sizes["sparse"].shared_bytes
    assert for_a_step == sizes["stacked"].slots * stacked_bytes(runs[0])
    assert 1 <= sizes["stacked"].slots < sizes["sparse"].slots
    assert sizes["stacked"].slot_bytes == sizes["sparse"].slot_bytes  # what checkpoints hold


def test_other_architectures_are_not_stacked() -> None:
    assert stacked_bytes(run_of(64, 1024, 512, architecture="standard")) == 0
    assert stacked_bytes(run_of(64, 1024, 512, architecture="topk_transcoder", d_out=64, k=8)) == 0
