"""What `gpu.py` asks of this package's own training step beside its time: what it starts, how busy it keeps a GPU, memory, exactness.

Shape suffixes: B = tokens of a batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

import copy
import gc
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from cohort_setup import BATCH_TOKENS, COUNTED, Setup
from cohort_subjects import BATCHES, our_cohort, synchronise
from counting import Counting
from pretended_gpu import DEVICE, Answers, pretended_gpu

from saesweep.cohort import CALIBRATION_BATCHES, Cohort, ReferenceEngine
from saesweep.cohort.kernels import KernelChoice, SparseEngine, choose
from saesweep.cohort.kernels.gemm import linear
from saesweep.specs import BaseRun
from saesweep.worker.sizing import shared_bytes, slot_bytes

CHOOSE_SECONDS, FLOOR_SECONDS = 8.0, 0.5
"""For the start-up measurement of each shape, of which the first one compiles the kernels, and for each part of a floor."""
_CPU_SHARE = 0.1
"""Of both on a CPU, which only shows that they run."""
_CHOICES: dict[tuple[int, int], KernelChoice] = {}


def choice_for(setup: Setup) -> KernelChoice:
    """Return the kernels' settings for a shape, measured once in this process."""
    key = (setup.d_in, setup.d_sae)
    if key not in _CHOICES:
        _CHOICES[key] = choose(*key, device=setup.device, budget_seconds=CHOOSE_SECONDS * _share(setup))
    return _CHOICES[key]


def _share(setup: Setup) -> float:
    return _CPU_SHARE if setup.device == "cpu" else 1.0


def launches(setup: Setup) -> dict[str, Any]:
    """Count a step's operators and reads with one SAE and with all; on a GPU also what PyTorch says waits for it."""
    found: dict[str, Any] = {}
    for n_slots in sorted({1, setup.slots}):
        cohort, batches = our_cohort(replace(setup, slots=n_slots), choice_for(setup))
        _steps(cohort, batches, 2)
        with Counting(torch.device(setup.device).type) as counted:
            _steps(cohort, batches, 1)
        found[f"operators_{n_slots}"] = counted.launches
        found[f"reads_{n_slots}"] = sum(counted.host_reads.values())
        if setup.device != "cpu":
            found[f"waits_{n_slots}"] = _waits(cohort, batches)
    return found


def _waits(cohort: Cohort, batches: list[dict[str, torch.Tensor]]) -> int:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _steps(cohort, batches, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def profile(setup: Setup, n_steps: int = 8) -> dict[str, Any]:
    """Return kernels per step, and the share of the time in which the GPU has one to run; of a CPU nothing."""
    if setup.device == "cpu":
        return {"not_measured": "needs CUDA"}
    cohort, batches = our_cohort(setup, choice_for(setup))
    _steps(cohort, batches, 4)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        start = time.perf_counter()
        _steps(cohort, batches, n_steps)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    on_gpu = [
        event.time_range
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]
    if not on_gpu:
        return {"not_measured": "the profiler recorded no kernel"}
    busy = busy_seconds((r.start * 1e-6, r.end * 1e-6) for r in on_gpu)
    return {"kernels_per_step": len(on_gpu) / n_steps, "busy": busy / seconds}


def busy_seconds(ranges: Iterable[tuple[float, float]]) -> float:
    """Return the time that at least one of the ranges (begin, end) covers."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(ranges):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def floor(setup: Setup) -> dict[str, Any]:
    """Return ms per step and SAE that no exact step can do without.

    The encoder's product by the best library here, Adam's 28 bytes per parameter, and reading and writing the
    pre-activations once.
    """
    choice, x_BD, seconds = choice_for(setup), BATCHES[0], FLOOR_SECONDS * _share(setup)
    W_FD, zeros_F = setup.weights(x_BD)["W_dec"], x_BD.new_zeros(setup.d_sae)
    hidden_BF, other_BF = (x_BD.new_empty(BATCH_TOKENS, setup.d_sae) for _ in range(2))
    n_copied = 28 * 2 * W_FD.numel() // 8
    source, target = x_BD.new_zeros(n_copied), x_BD.new_zeros(n_copied)
    parts = {
        "encoder": min(
            _ms(setup, seconds, lambda gemm=gemm: linear(gemm, x_BD, W_FD, zeros_F, out=hidden_BF))
            for gemm in {"default", choice.gemm}
        ),
        "adam": _ms(setup, seconds, lambda: target.copy_(source)),
        "pre_activations": _ms(setup, seconds, lambda: other_BF.copy_(hidden_BF)),
    }
    return {**parts, "ms": sum(parts.values())}


def _ms(setup: Setup, seconds: float, work: Any) -> float:
    """Return the least time of a call in ms, over calls that follow each other without a wait."""
    work()
    synchronise(setup)
    best, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(5):
            work()
        synchronise(setup)
        best = min(best, (time.perf_counter() - start) / 5)
    return 1e3 * best


def memory(setup: Setup) -> dict[str, Any]:
    """Compare the planned bytes with the allocator's peak; without a GPU with what the steps would allocate."""
    if setup.device == "cpu":
        peak, run = pretended_peak(setup, KernelChoice(gemm="split_fp16", pairs="triton", chunk_elements=1 << 26))
    else:
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        cohort, batches = our_cohort(setup, choice_for(setup))
        _fresh_steps(cohort, batches)
        torch.cuda.synchronize()
        # Without what made the weights.
        torch.cuda.reset_peak_memory_stats()
        _fresh_steps(cohort, batches, 2)
        torch.cuda.synchronize()
        peak, run = torch.cuda.max_memory_allocated() - before, run_of(cohort)
    window = run.window_tokens * setup.d_in * 4
    device = DEVICE if setup.device == "cpu" else torch.device(setup.device)
    planned = setup.slots * slot_bytes(run) + shared_bytes([run], 1, 0, device=device) - window
    return {"planned": planned, "peak": peak, "off": planned / peak - 1}


def pretended_peak(setup: Setup, choice: KernelChoice) -> tuple[int, BaseRun]:
    """Return the most bytes that steps have alive on a pretended GPU, and the run; libraries' workspaces are left out."""
    setup = replace(setup, device=str(DEVICE))
    answers = Answers(
        share=1.5 * setup.k / setup.d_sae if setup.architecture in COUNTED else 0.012,
        kept=setup.k * BATCH_TOKENS,
        flag=False,
        number=1 << 60 if setup.phase == "dense" else 0,
    )
    kept = list(BATCHES)
    with pretended_gpu(answers), Counting("cuda") as counted:
        try:
            BATCHES[:] = [torch.empty(BATCH_TOKENS, setup.d_in, device=DEVICE)]
            before = counted.live_bytes
            cohort, batches = our_cohort(setup, choice, fresh=True)
            _fresh_steps(cohort, batches)
            counted.restart()
            _fresh_steps(cohort, batches, 2)
        finally:
            BATCHES[:] = kept
        return counted.peak_bytes - before, run_of(cohort)


def run_of(cohort: Cohort) -> BaseRun:
    """Return the run of a cohort whose SAEs are alike."""
    return next(slot.run for _, slot in cohort.occupied())


def exactness(setup: Setup, rows: int = 512) -> dict[str, Any]:
    """Return the largest errors of gradients against float64, relative to the largest of each parameter.

    Of the sparse kernels in float32, and of what trains with `autocast: true`. A latent that is active at other tokens than in
    float64, where a pre-activation is next to its bound, has another gradient: those are counted, and left out.
    """
    cohort, _ = our_cohort(replace(setup, slots=1), choice_for(setup))
    ((_, slot),) = cohort.occupied()
    for name in ("b_enc", "b_gate", "b_mag"):
        if name in slot.params:
            slot.params[name].mul_(1.01)  # the setup puts one pre-activation of each latent right on its bound
    x_BD, knobs = BATCHES[0][:rows], slot.knobs_at(0)
    exact = {name: p.double() for name, p in slot.params.items()}
    want = ReferenceEngine().step(slot.architecture, exact, x_BD.double(), knobs, None)
    found: dict[str, Any] = {}
    for kind, engine in (
        ("float32", SparseEngine(choice_for(setup))),
        ("bfloat16", cohort_engine(setup, slot.architecture)),
    ):
        got = engine.step(slot.architecture, slot.params, x_BD, knobs, None)
        same_F = got.firing_F == want.firing_F
        found[f"{kind}_other_latents"] = int((~same_F).sum())
        errors = []
        for name, grad in want.grads.items():
            difference = (got.grads[name].double() - grad).abs()
            for dim, size in enumerate(grad.shape):
                if size == setup.d_sae:
                    difference = difference.movedim(dim, 0)[same_F]
            errors.append(difference.max() / grad.abs().max().clamp(min=1e-30))
        found[kind] = float(max(errors))
    return found


def cohort_engine(setup: Setup, architecture: Any) -> Any:
    """Return what trains an architecture with `autocast: true`."""
    engine = SparseEngine(choice_for(setup), autocast=True)
    return engine if engine.supports(architecture) is None else ReferenceEngine(autocast=True)


def same_bits(setup: Setup, n_steps: int = 10) -> dict[str, Any]:
    """Train twice from the same weights on the same batches; return whether all bits of weights and moments agree."""
    results = []
    for _ in range(2):
        cohort, batches = our_cohort(replace(setup, slots=2), choice_for(setup), lr=1e-3)
        _steps(cohort, batches, n_steps)
        results.append([copy.deepcopy(slot.tensors()) for slot in cohort.slots if slot is not None])
    equal = all(
        torch.equal(tensor, other[name]) for one, other in zip(*results, strict=True) for name, tensor in one.items()
    )
    return {"same_bits": equal}


def _fresh_steps(cohort: Cohort, batches: list[dict[str, torch.Tensor]], n_steps: int = CALIBRATION_BATCHES) -> None:
    """Train on new tensors, as a stream hands them out: the last ones are kept by the cohort."""
    for step in range(n_steps):
        cohort.train_step({hook: x_BD.clone() for hook, x_BD in batches[step % len(batches)].items()})


def _steps(cohort: Cohort, batches: list[dict[str, torch.Tensor]], n_steps: int) -> None:
    for step in range(n_steps):
        cohort.train_step(batches[step % len(batches)])


LOOKS = {f.__name__: f for f in (launches, profile, floor, memory, exactness, same_bits)}
