"""Inside a block the host does not wait for a GPU: what it still reads there, counted on the way that a GPU takes.

Tensors that say they are on a GPU (`benchmarks/pretended_gpu.py`) take the sparse kernels' ways for GPUs on any machine. Autograd
does not work on them: the reference path, which has no way of its own for GPUs, is counted on the CPU.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from benchmarks.counting import Counting
from benchmarks.pretended_gpu import DEVICE, Answers, pretended_gpu
from saesweep.cohort import Cohort, Slot
from saesweep.cohort.kernels import KernelChoice, SparseEngine
from saesweep.saes import Normalizer
from saesweep.specs import BaseRun

D, F, B, K = 32, 256, 128, 8
OPTIONS: dict[str, dict[str, Any]] = {
    "topk": {"k": K},
    "batchtopk": {"k": K},
    "matryoshka_batchtopk": {"k": K, "matryoshka_widths": [16, 64]},
    "standard": {"l1_coefficient": 0.1},
    "gated": {"l1_coefficient": 0.1},
    "jumprelu": {"l0_coefficient": 0.1},
    "topk_transcoder": {"k": K, "d_out": D},
    "abstopk": {"k": K},
    "multi_k": {"ks": [4, K], "k": 4},
}
ON_A_GPU = {
    "topk": {},
    "topk_transcoder": {},
    # How many pairs the whole batch keeps at a guessed threshold.
    "batchtopk": {"nonzero": 1},
    "matryoshka_batchtopk": {"nonzero": 1},
    # Whether a chunk is dense, and how many active pairs it has.
    "standard": {"_local_scalar_dense": 1, "nonzero": 1},
    "gated": {"_local_scalar_dense": 1, "nonzero": 1},
    "jumprelu": {"_local_scalar_dense": 1, "nonzero": 1},
}
"""What the sparse kernels read at each chunk of a step: sizes that decide what is allocated, which are still left."""


def cohort_of(architecture: str, device: torch.device, n_slots: int = 2, chunks: int | None = 1) -> Cohort:
    """Return a cohort: of the sparse kernels with so many chunks in a step, or of the reference path (None)."""
    run = BaseRun.model_validate(
        {
            "dataset_path": "x",
            "hook_name": "h",
            **({"hook_name_out": "out"} if architecture.endswith("transcoder") else {}),
            "training_tokens": 1000 * B,
            "train_batch_size_tokens": B,
            "dead_feature_window": 20,
            "sae": {"architecture": architecture, "d_in": D, "d_sae": F, **OPTIONS[architecture]},
        }
    )
    engine = None
    if chunks is not None:
        engine = SparseEngine(KernelChoice(gemm="split_fp16", pairs="triton", chunk_elements=B * F // chunks))
    normalizers = {(hook, "none"): Normalizer(mode="none") for hook in ("h", "out")}
    cohort = Cohort(n_slots, normalizers=normalizers, device=device, engine=engine)
    for i in range(n_slots):
        cohort.place(i, Slot(trial=i, run=run, joined_at_tokens=0, init_seed=i, device=device))
    return cohort


def train(cohort: Cohort, device: torch.device, n_steps: int) -> None:
    for _ in range(n_steps):
        x_BD = torch.randn(B, D, device=device)
        cohort.train_step({"h": x_BD, "out": x_BD})


def answers_for(architecture: str) -> Answers:
    # A guessed threshold aims at 1.5 times the pairs that are kept.
    return Answers(share=1.5 * K / F if architecture.endswith("batchtopk") else 0.01, kept=K * B, number=0)


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("architecture", ON_A_GPU)
def test_reads_of_a_step_on_a_gpu(architecture: str, chunks: int) -> None:
    with pretended_gpu(answers_for(architecture)), Counting("cuda") as counted:
        cohort = cohort_of(architecture, DEVICE, chunks=chunks)
        cohort.begin_block()
        train(cohort, DEVICE, 1)
        counted.restart()
        train(cohort, DEVICE, 5)
    a_step = {name: n * chunks for name, n in ON_A_GPU[architecture].items()}
    assert counted.host_reads == Counter({name: n * 5 * 2 for name, n in a_step.items()})


@pytest.mark.parametrize("architecture", [name for name in OPTIONS if name not in ("topk_transcoder",)])
def test_the_reference_path_reads_nothing_in_a_step(architecture: str) -> None:
    """Matching pursuit, which is left out, asks after each of its iterations whether a token is still to be pursued."""
    cohort = cohort_of(architecture, torch.device("cpu"), chunks=None)
    cohort.begin_block()
    with Counting() as counted:
        train(cohort, torch.device("cpu"), 3)
    assert counted.host_reads == Counter()


@pytest.mark.gpu
def test_a_gpu_is_never_waited_for_within_a_block() -> None:
    device = torch.device("cuda")
    cohort = cohort_of("topk", device)
    cohort.begin_block()
    train(cohort, device, 2)  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(cohort, device, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_block_s_losses_and_its_finiteness_are_read_when_it_ends() -> None:
    with pretended_gpu(), Counting("cuda") as counted:
        cohort = cohort_of("topk", DEVICE)
        counted.restart()
        cohort.begin_block()
        assert counted.host_reads == {"_local_scalar_dense": 2}  # how long the latents of each SAE are silent
        counted.restart()
        train(cohort, DEVICE, 10)
        assert not counted.host_reads
        for _, slot in cohort.occupied():
            losses = slot.mean_losses()
            assert bool(slot.is_finite)
    assert set(losses) == {"overall_loss", "mse_loss", "auxiliary_reconstruction_loss"}
    assert counted.host_reads == {"_local_scalar_dense": 2 * 4}


@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu"])
def test_dead_latents_are_asked_for_where_there_can_be_some_and_they_matter(architecture: str) -> None:
    with pretended_gpu(Answers(flag=False)), Counting("cuda") as counted:
        cohort = cohort_of(architecture, DEVICE, n_slots=1)
        cohort.begin_block()
        train(cohort, DEVICE, 20)
        before = counted.host_reads["_local_scalar_dense"]
        train(cohort, DEVICE, 1)
        within_window = counted.host_reads["_local_scalar_dense"] - before
        train(cohort, DEVICE, 1)
        after_window = counted.host_reads["_local_scalar_dense"] - before - within_window
        counted.restart()
        cohort.begin_block()  # answers that no latent is silent for long
        train(cohort, DEVICE, 20)
    assert after_window - within_window == (1 if architecture == "topk" else 0)
    assert counted.host_reads["_local_scalar_dense"] == 1 + (0 if architecture == "topk" else 20)


def test_every_operator_of_a_step_is_counted() -> None:
    """The reference path steps one SAE after the other: three of them start three times what one starts."""
    device = torch.device("cpu")

    def a_step(n_slots: int) -> Counter[str]:
        cohort = cohort_of("topk", device, n_slots=n_slots, chunks=None)
        cohort.begin_block()
        with Counting() as counted:
            train(cohort, device, 1)
        assert counted.launches == sum(counted.operators.values())
        return counted.operators - Counter({"randn": 1})

    one, three = a_step(1), a_step(3)
    assert one["_fused_adam_"] == 1
    assert one["topk"] == 1
    assert three == Counter({name: 3 * n for name, n in one.items()})


def test_counting_changes_no_result_and_sees_memory() -> None:
    device = torch.device("cpu")
    results = []
    for counted in (None, Counting()):
        torch.manual_seed(0)
        cohort = cohort_of("topk", device, n_slots=1)
        cohort.begin_block()
        if counted is None:
            train(cohort, device, 3)
        else:
            with counted:
                train(cohort, device, 3)
            state = sum(t.untyped_storage().nbytes() for t in cohort.slots[0].tensors().values())  # type: ignore[union-attr]
            assert 0 < counted.live_bytes < counted.peak_bytes < 10 * state
        results.append({name: p.clone() for name, p in cohort.slots[0].params.items()})  # type: ignore[union-attr]
    assert all(torch.equal(p, results[1][name]) for name, p in results[0].items())
