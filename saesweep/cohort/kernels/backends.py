"""Chooses the kernels' settings by measurement on this machine, for one shape.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm, KernelChoice
from saesweep.cohort.kernels.exactness import is_exact, screen_error
from saesweep.cohort.kernels.gemm import linear, product
from saesweep.cohort.kernels.pairs import PairKernels, Pairs
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.screen import Screen, top_of_pairs
from saesweep.cohort.kernels.select import top_rows
from saesweep.cohort.kernels.stacked_check import fastest_stacked
from saesweep.cohort.kernels.timer import CLEARLY, Timer

_CHUNK_ELEMENTS = (1 << 20, 1 << 21, 1 << 22, 1 << 23)
LARGEST_CHUNK_GPU = 1 << 26
_CHUNK_ELEMENTS_GPU = (1 << 22, 1 << 23, 1 << 25, LARGEST_CHUNK_GPU)
# What is measured with: latents enough to stand for more, the usual share of active ones, and pairs enough to hide the
# fixed costs.
_MAX_LATENTS = 1 << 14
_K, _LATENTS_PER_K = 32, 64
_PAIRS, _PAIRS_GPU = 1 << 16, 1 << 19
_BUDGET_SECONDS, _BUDGET_SECONDS_GPU = 3.0, 30.0


def choose(
    d_in: int, d_sae: int, *, device: torch.device | str = "cpu", budget_seconds: float | None = None
) -> KernelChoice:
    """Measure matrix-product libraries, chunk sizes and the density crossover, for float32.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents; for a cohort of mixed widths, the largest.
        device: Where the cohort trains.
        budget_seconds: No new measurement starts after this time; what was not measured keeps its default. None: 3 on a CPU,
            30 on a GPU, where the first measurement compiles the kernels.
    """
    if budget_seconds is None:
        budget_seconds = _BUDGET_SECONDS if torch.device(device).type == "cpu" else _BUDGET_SECONDS_GPU
    default, timer = KernelChoice(), Timer(torch.device(device), time.perf_counter() + budget_seconds)
    generator = torch.Generator().manual_seed(0)
    d_sae = min(d_sae, _MAX_LATENTS)
    sizes = _CHUNK_ELEMENTS if timer.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    n_rows = min(max(KernelChoice(chunk_elements=n).chunk_rows(d_sae) for n in sizes), 8192)
    W_FD = torch.randn(d_sae, d_in, generator=generator).to(device)
    x_RD = torch.randn(n_rows, d_in, generator=generator).to(device)
    # A GPU is busy with a small chunk for less time than it takes to start the work.
    some_RD = x_RD[: default.chunk_rows(d_sae)] if timer.device.type == "cpu" else x_RD
    gemm = _fastest_gemm(timer, some_RD, W_FD)
    pairs = _fastest_pairs(timer, some_RD, W_FD)
    screen = _screen_pays(timer, gemm, some_RD, W_FD)
    chunk_elements = _fastest_chunk(timer, sizes, gemm, _screened(x_RD, W_FD) if screen else None, x_RD, W_FD)
    rows = KernelChoice(chunk_elements=chunk_elements).chunk_rows(d_sae)
    choice = KernelChoice(
        gemm=gemm,
        chunk_elements=chunk_elements,
        screen=screen,
        pairs=pairs,
        dense_above=_crossover(timer, gemm, pairs, x_RD[:rows], W_FD, default.dense_above),
    )
    return replace(choice, stacked=fastest_stacked(timer, choice, d_in, d_sae))


def _k(d_sae: int) -> int:
    return max(min(_K, d_sae // _LATENTS_PER_K), 1)


def _fastest_gemm(timer: Timer, x_RD: Tensor, W_FD: Tensor) -> Gemm:
    rival: Gemm = "onednn" if x_RD.device.type == "cpu" else "split_fp16"
    if not is_exact(KernelChoice(gemm=rival), x_RD.shape[1], W_FD.shape[0], device=x_RD.device):
        return "default"
    b_F, out_RF = W_FD.new_zeros(W_FD.shape[0]), x_RD.new_empty(x_RD.shape[0], W_FD.shape[0])
    names: tuple[Gemm, Gemm] = ("default", rival)
    seconds = timer.seconds({name: partial(linear, name, x_RD, W_FD, b_F, out=out_RF) for name in names})
    return rival if seconds.get(rival, float("inf")) < CLEARLY * seconds.get("default", 0.0) else "default"


def _fastest_pairs(timer: Timer, x_RD: Tensor, W_FD: Tensor) -> PairKernels:
    if not is_exact(KernelChoice(pairs="triton"), x_RD.shape[1], W_FD.shape[0], device=x_RD.device):
        return "torch"
    seconds = timer.seconds({name: _products(name, x_RD, W_FD)[0] for name in get_args(PairKernels)})
    return "triton" if seconds.get("triton", float("inf")) < CLEARLY * seconds.get("torch", 0.0) else "torch"


def _fastest_chunk(
    timer: Timer,
    sizes: tuple[int, ...],
    gemm: Gemm,
    screened: Callable[[int], None] | None,
    x_RD: Tensor,
    W_FD: Tensor,
) -> int:
    """Return the number of pre-activations per chunk at which encoding and selecting cost least per token."""
    default, d_sae = KernelChoice().chunk_elements, W_FD.shape[0]
    b_F = W_FD.new_zeros(d_sae)
    buffer = W_FD.new_empty(x_RD.shape[0] * d_sae)
    rows = {n: min(KernelChoice(chunk_elements=n).chunk_rows(d_sae), x_RD.shape[0]) for n in sizes}

    def plain(n_rows: int) -> None:
        out_RF = buffer[: n_rows * d_sae].view(n_rows, d_sae)
        top_rows(linear(gemm, x_RD[:n_rows], W_FD, b_F, out=out_RF), _k(d_sae))

    seconds = timer.seconds({str(n): partial(screened or plain, n_rows) for n, n_rows in rows.items()})
    per_token = {int(name): spent / rows[int(name)] for name, spent in seconds.items()}
    if default not in per_token:
        return default
    best = min(per_token, key=lambda n: per_token[n])
    return best if per_token[best] < CLEARLY * per_token[default] else default


def _screen_pays(timer: Timer, gemm: Gemm, x_RD: Tensor, W_FD: Tensor) -> bool:
    """Return whether finding each row's largest through bf16 is clearly faster than through fp32."""
    n_rows, d_sae, k = x_RD.shape[0], W_FD.shape[0], _k(W_FD.shape[0])
    if x_RD.device.type != "cpu" or not Screen.serves(d_sae, k) or screen_error(x_RD.shape[1], d_sae) > 1.0:
        return False
    b_F, out_RF = W_FD.new_zeros(d_sae), x_RD.new_empty(n_rows, d_sae)
    seconds = timer.seconds(
        {
            "plain": lambda: top_rows(linear(gemm, x_RD, W_FD, b_F, out=out_RF), k),
            "screened": partial(_screened(x_RD, W_FD), n_rows),
        }
    )
    return seconds.get("screened", float("inf")) < CLEARLY * seconds.get("plain", 0.0)


def _screened(x_RD: Tensor, W_FD: Tensor) -> Callable[[int], None]:
    """Return what finds the largest pairs of the first so many rows through bf16."""
    screen, k = Screen(x_RD, W_FD, W_FD.new_zeros(W_FD.shape[0]), Scratch()), _k(W_FD.shape[0])

    def encode(n_rows: int) -> None:
        chunk = screen.chunk(slice(0, n_rows))
        pairs = chunk.above(chunk.kth_lower_bound(k))
        top_of_pairs(pairs, pairs.dots(x_RD[:n_rows], W_FD), k)

    return encode


def _products(kernels: PairKernels, x_RD: Tensor, W_FD: Tensor) -> tuple[Callable[[], None], int]:
    """Return what computes a step's products at pairs, and the number of the pairs."""
    n_rows, d_sae = x_RD.shape[0], W_FD.shape[0]
    generator = torch.Generator().manual_seed(0)
    n_pairs = _PAIRS if x_RD.device.type == "cpu" else _PAIRS_GPU
    rows_P = torch.arange(n_rows).repeat_interleave(max(n_pairs // n_rows, 1))
    cols_P = torch.randint(d_sae, rows_P.shape, generator=generator)
    pairs = Pairs.of_rows(rows_P.to(x_RD.device), cols_P.to(x_RD.device), n_rows, kernels)
    values_P = torch.ones(rows_P.shape, device=x_RD.device)
    out_FD = torch.empty_like(W_FD)

    def sparse() -> None:
        pairs.decode(values_P, W_FD)
        pairs.dots(x_RD, W_FD)
        by_latent = pairs.by_latent(d_sae)
        by_latent.add_to_(out_FD, values_P, x_RD, fresh=True)
        by_latent.add_to_(out_FD, values_P, x_RD, fresh=True)

    return sparse, rows_P.shape[0]


def _crossover(timer: Timer, gemm: Gemm, pairs: PairKernels, x_RD: Tensor, W_FD: Tensor, default: float) -> float:
    """Return the density at which the sparse products cost as much as the four dense ones that they replace."""
    sparse, n_pairs = _products(pairs, x_RD, W_FD)
    acts_RF, out_FD = x_RD.new_ones(x_RD.shape[0], W_FD.shape[0]), torch.empty_like(W_FD)
    # The other two dense products have the sizes of these two.
    seconds = timer.seconds(
        {
            "sparse": sparse,
            "dense": lambda: (product(gemm, acts_RF, W_FD), product(gemm, acts_RF.t(), x_RD, out=out_FD)),
        }
    )
    if len(seconds) < 2:
        return default
    sparse_share = n_pairs / acts_RF.numel()
    return round(min(max(2 * seconds["dense"] / seconds["sparse"] * sparse_share, 0.005), 0.5), 3)
