"""What is planned for training on a GPU against what the same steps allocate there, at sizes of real use, without a GPU.

Tensors that say they are on a GPU and have no memory are counted as CUDA's allocator would (`benchmarks/pretended_gpu.py`). What
libraries allocate for themselves within an operator is not seen: workspaces of cuBLAS, the second buffer of a sort.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.counting import Counting
from benchmarks.pretended_gpu import DEVICE, Answers, pretended_gpu
from saesweep.cohort import CALIBRATION_BATCHES, Cohort, Slot
from saesweep.cohort.kernels import KernelChoice, SparseEngine
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun, CohortSpec
from saesweep.worker.sizing import plan_slots, shared_bytes, slot_bytes

BATCH = 4096
SIZES = {"S": (64, 1024, 16), "M": (512, 8192, 32), "XL": (2304, 16384, 64), "wide": (2304, 65536, 64)}
LARGEST = KernelChoice(gemm="split_fp16", pairs="triton", chunk_elements=1 << 26)
OPTIONS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 0.1},
    "gated": {"l1_coefficient": 0.1},
    "jumprelu": {"l0_coefficient": 0.1},
}


def run_of(size: str, architecture: str, **fields: Any) -> BaseRun:
    d_in, d_sae, k = SIZES[size]
    options = OPTIONS.get(architecture, {"k": k})
    if architecture.endswith("_transcoder"):
        options = options | {"d_out": d_in}
    if architecture.startswith("matryoshka"):
        options = options | {"matryoshka_widths": [d_sae // 16, d_sae // 4, d_sae]}
    return BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            **({"hook_name_out": "out"} if architecture.endswith("transcoder") else {}),
            "training_tokens": 10**9,
            "train_batch_size_tokens": BATCH,
            **fields,
            "sae": {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, **options},
        }
    )


def peak_bytes(run: BaseRun, n_slots: int, choice: KernelChoice = LARGEST, *, is_dense: bool = True) -> int:
    """Return the most bytes alive in a cohort's steps on a pretended GPU."""
    d_in, d_sae = run.sae.d_in or 0, run.sae.d_sae or 0
    k = getattr(run.sae, "k", 0)
    answers = Answers(
        share=1.5 * k / d_sae if k else 0.012, kept=int(k * BATCH), flag=False, number=(1 << 60) if is_dense else 0
    )
    with pretended_gpu(answers), Counting("cuda") as counted:
        normalizers = {(hook, "none"): Normalizer(mode="none") for hook in ("h", "out")}
        cohort = Cohort(n_slots, normalizers=normalizers, device=DEVICE, engine=SparseEngine(choice))

        def fill(slots: range) -> None:
            for i in slots:
                cohort.place(i, Slot(trial=i, run=run, joined_at_tokens=0, init_seed=0, device=DEVICE))
            cohort.begin_block()

        def train() -> None:
            counted.restart()
            cohort.train_step({hook: torch.empty(BATCH, d_in, device=DEVICE) for hook in run_hooks(run)})

        fill(range(1))
        for _ in range(CALIBRATION_BATCHES):
            train()
        kept = list(cohort._recent)
        fill(range(1, n_slots))
        cohort._recent.extend(kept)  # which a new block begins without
        train()
        return counted.peak_bytes


def run_hooks(run: BaseRun) -> list[str]:
    return ["h", "out"] if run.sae.is_transcoder else ["h"]


def planned_bytes(run: BaseRun, n_slots: int) -> int:
    """Return what is planned, the shuffle window left out, which this cohort has not."""
    hooks = len(run_hooks(run))
    window = 4 * run.window_tokens * (run.sae.d_in or 0) * hooks
    return n_slots * slot_bytes(run) + shared_bytes([run], hooks, 0, device=DEVICE) - window


CASES = [(size, "topk", n) for size in SIZES for n in ((1, 4) if size == "wide" else (1, 32))]
CASES += [(size, name, 1) for size in ("S", "M", "XL") for name in ("standard", "gated", "jumprelu")]
CASES += [
    ("M", "topk", 2),
    ("M", "topk", 8),
    ("wide", "jumprelu", 1),
    ("M", "batchtopk", 1),
    ("XL", "batchtopk", 8),
    ("XL", "matryoshka_batchtopk", 1),
]
CASES += [("M", "topk_transcoder", 2), ("XL", "standard", 32)]


@pytest.mark.parametrize(("size", "architecture", "n_slots"), CASES)
def test_the_plan_is_within_a_tenth_of_the_peak(size: str, architecture: str, n_slots: int) -> None:
    run = run_of(size, architecture)
    peak, planned = peak_bytes(run, n_slots), planned_bytes(run, n_slots)
    assert abs(planned / peak - 1) <= 0.1, f"planned {planned / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB"


@pytest.mark.parametrize("architecture", ["topk", "standard"])
def test_settings_that_take_less_leave_memory_over(architecture: str) -> None:
    run = run_of("M", architecture)
    small = KernelChoice(gemm="default", pairs="triton")
    assert peak_bytes(run, 1, small, is_dense=False) < peak_bytes(run, 1) <= 1.1 * planned_bytes(run, 1)


def test_what_autograd_trains_is_planned_as_such() -> None:
    run = run_of("XL", "standard")
    by_kernels = shared_bytes([run], 1, 0, device=DEVICE)
    for other, kernels in ((run, "reference"), (run_of("XL", "standard", autocast=True), "auto")):
        by_autograd = shared_bytes([other], 1, 0, device=DEVICE, kernels=kernels)
        assert by_autograd - by_kernels > 4 * BATCH * 16384 * 2
    topk = run_of("XL", "topk", autocast=True)  # which the kernels train with autocast, too
    assert shared_bytes([topk], 1, 0, device=DEVICE) == shared_bytes([run_of("XL", "topk")], 1, 0, device=DEVICE)


def test_a_transcoder_whose_other_hook_has_an_unknown_width_is_planned_as_if_both_were_alike() -> None:
    run = run_of("M", "topk_transcoder")
    unknown = run.model_copy(update={"sae": run.sae.model_copy(update={"d_out": None})})
    assert shared_bytes([unknown], 2, 0, device=DEVICE) == shared_bytes([run], 2, 0, device=DEVICE)


def test_a_gpu_holds_more_saes_than_autograd_would_leave_room_for() -> None:
    def slots(kernels: str) -> int:
        return plan_slots(
            CohortSpec.model_validate({"kernels": kernels, "memory_fraction": 1.0}),
            n_trials=100,
            runs=[run_of("wide", "topk")],
            hooks=1,
            weight_bytes=0,
            free_bytes=40 << 30,
            device=DEVICE,
        ).slots

    assert slots("auto") > slots("reference")
