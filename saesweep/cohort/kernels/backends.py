"""Chooses the kernels' settings by measurement on this machine, for one shape.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in, P = active pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from saesweep.cohort.kernels.choice import Gemm, KernelChoice
from saesweep.cohort.kernels.gemm import linear
from saesweep.cohort.kernels.pairs import Pairs
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.screen import SCORE_ROUNDING, Screen, top_of_pairs
from saesweep.cohort.kernels.select import top_rows

# A rival must be this much faster than the default: near-ties would be decided by noise, differently at each start.
_CLEARLY = 0.9
_CHUNK_ELEMENTS = (1 << 20, 1 << 21, 1 << 23)
# Largest error let through, relative to |x| |w|: float32 stays near 1e-7, bf16 and TF32 are above 1e-4.
_MAX_ERROR = 3e-6
# What is measured with: latents enough to stand for more, the usual share of active ones, and pairs enough to hide the
# fixed costs.
_MAX_LATENTS = 1 << 14
_K, _LATENTS_PER_K = 32, 64
_PAIRS = 1 << 16
_ROUNDS = 3


def choose(d_in: int, d_sae: int, *, device: torch.device | str = "cpu", budget_seconds: float = 3.0) -> KernelChoice:
    """Measure matrix-product libraries, chunk sizes and the density crossover, for float32.

    Args:
        d_in: Width of the activations.
        d_sae: Number of latents; for a cohort of mixed widths, the largest.
        device: Where the cohort trains.
        budget_seconds: No new measurement starts after this time; what was not measured keeps its default.
    """
    default, timer = KernelChoice(), _Timer(torch.device(device), time.perf_counter() + budget_seconds)
    generator = torch.Generator().manual_seed(0)
    d_sae = min(d_sae, _MAX_LATENTS)
    n_rows = min(max(KernelChoice(chunk_elements=n).chunk_rows(d_sae) for n in _CHUNK_ELEMENTS), 8192)
    W_FD = torch.randn(d_sae, d_in, generator=generator).to(device)
    x_RD = torch.randn(n_rows, d_in, generator=generator).to(device)
    gemm = _fastest_gemm(timer, x_RD[: default.chunk_rows(d_sae)], W_FD)
    screen = _screen_pays(timer, gemm, x_RD[: default.chunk_rows(d_sae)], W_FD)
    chunk_elements = _fastest_chunk(timer, gemm, screen, x_RD, W_FD)
    rows = KernelChoice(chunk_elements=chunk_elements).chunk_rows(d_sae)
    return KernelChoice(
        gemm=gemm,
        chunk_elements=chunk_elements,
        screen=screen,
        dense_above=_crossover(timer, x_RD[:rows], W_FD, default.dense_above),
    )


def gemm_error(gemm: Gemm, d_in: int, *, device: torch.device | str = "cpu") -> float:
    """Return a library's largest error against float64, relative to `|x| |w|`; infinite where it is not available."""
    generator = torch.Generator().manual_seed(0)
    x_RD, W_FD = torch.randn(32, d_in, generator=generator), torch.randn(64, d_in, generator=generator)
    b_F = torch.randn(64, generator=generator)
    try:
        out_RF = linear(gemm, x_RD.to(device), W_FD.to(device), b_F.to(device)).cpu()
    except (AttributeError, NotImplementedError):
        # A build without oneDNN lacks the operator, or its kernel for this device.
        return float("inf")
    exact_RF = x_RD.double() @ W_FD.double().t() + b_F
    scale_RF = torch.outer(x_RD.double().norm(dim=1), W_FD.double().norm(dim=1))
    return float(((out_RF - exact_RF).abs() / scale_RF).max())


def screen_error(d_in: int) -> float:
    """Return the largest error of the bf16 screen's scores on this CPU, as a share of its proven bound: at most 1."""
    generator = torch.Generator().manual_seed(0)
    x_RD, W_FD = torch.randn(32, d_in, generator=generator), torch.randn(64, d_in, generator=generator)
    b_F = torch.randn(64, generator=generator)
    score_RF, bound_R = Screen(x_RD, W_FD, b_F, Scratch()).scores(slice(0, 32))
    exact_RF = x_RD.double() @ W_FD.double().t() + b_F
    allowed_RF = bound_R[:, None] + exact_RF.abs() * SCORE_ROUNDING
    return float(((score_RF.double() - exact_RF).abs() / allowed_RF).max())


def is_exact(choice: KernelChoice, d_in: int, *, device: torch.device | str = "cpu") -> bool:
    """Return whether a choice computes in float32 on this machine in more than name."""
    if gemm_error(choice.gemm, d_in, device=device) > _MAX_ERROR:
        return False
    return not choice.screen or screen_error(d_in) <= 1.0


class _Timer:
    def __init__(self, device: torch.device, deadline: float) -> None:
        self._device, self._deadline = device, deadline

    def seconds(self, rivals: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Return each rival's least time over a few alternating rounds; those that time did not allow are left out."""
        best: dict[str, float] = {}
        for round_ in range(_ROUNDS + 1):
            for name, work in rivals.items():
                if time.perf_counter() > self._deadline:
                    return best
                start = time.perf_counter()
                work()
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
                # The first round warms up: memory is touched, libraries pick their code.
                if round_ > 0:
                    best[name] = min(best.get(name, float("inf")), time.perf_counter() - start)
        return best


def _k(d_sae: int) -> int:
    return max(min(_K, d_sae // _LATENTS_PER_K), 1)


def _fastest_gemm(timer: _Timer, x_RD: Tensor, W_FD: Tensor) -> Gemm:
    if x_RD.device.type != "cpu" or not is_exact(KernelChoice(gemm="onednn"), x_RD.shape[1]):
        return "default"
    b_F, out_RF = W_FD.new_zeros(W_FD.shape[0]), x_RD.new_empty(x_RD.shape[0], W_FD.shape[0])
    seconds = timer.seconds(
        {
            "default": lambda: linear("default", x_RD, W_FD, b_F, out=out_RF),
            "onednn": lambda: linear("onednn", x_RD, W_FD, b_F),
        }
    )
    return "onednn" if seconds.get("onednn", float("inf")) < _CLEARLY * seconds.get("default", 0.0) else "default"


def _fastest_chunk(timer: _Timer, gemm: Gemm, screen: bool, x_RD: Tensor, W_FD: Tensor) -> int:
    """Return the number of pre-activations per chunk at which encoding and selecting cost least per token."""
    default, d_sae = KernelChoice().chunk_elements, W_FD.shape[0]
    b_F = W_FD.new_zeros(d_sae)
    buffer = W_FD.new_empty(x_RD.shape[0] * d_sae)
    rows = {
        n: min(KernelChoice(chunk_elements=n).chunk_rows(d_sae), x_RD.shape[0]) for n in (default, *_CHUNK_ELEMENTS)
    }

    def plain(n_rows: int) -> None:
        out_RF = buffer[: n_rows * d_sae].view(n_rows, d_sae)
        top_rows(linear(gemm, x_RD[:n_rows], W_FD, b_F, out=out_RF), _k(d_sae))

    encode = _screened(x_RD, W_FD, b_F) if screen else plain
    seconds = timer.seconds({str(n): lambda n_rows=n_rows: encode(n_rows) for n, n_rows in rows.items()})  # type: ignore[misc]
    per_token = {int(name): spent / rows[int(name)] for name, spent in seconds.items()}
    if default not in per_token:
        return default
    best = min(per_token, key=lambda n: per_token[n])
    return best if per_token[best] < _CLEARLY * per_token[default] else default


def _screen_pays(timer: _Timer, gemm: Gemm, x_RD: Tensor, W_FD: Tensor) -> bool:
    """Return whether finding each row's largest through bf16 is clearly faster than through fp32."""
    n_rows, d_sae, k = x_RD.shape[0], W_FD.shape[0], _k(W_FD.shape[0])
    if x_RD.device.type != "cpu" or not Screen.serves(d_sae, k) or screen_error(x_RD.shape[1]) > 1.0:
        return False
    b_F, out_RF = W_FD.new_zeros(d_sae), x_RD.new_empty(n_rows, d_sae)
    encode = _screened(x_RD, W_FD, b_F)
    seconds = timer.seconds(
        {
            "plain": lambda: top_rows(linear(gemm, x_RD, W_FD, b_F, out=out_RF), k),
            "screened": lambda: encode(n_rows),
        }
    )
    return seconds.get("screened", float("inf")) < _CLEARLY * seconds.get("plain", 0.0)


def _screened(x_RD: Tensor, W_FD: Tensor, b_F: Tensor) -> Callable[[int], None]:
    """Return what finds the largest pairs of the first so many rows through bf16."""
    screen, k = Screen(x_RD, W_FD, b_F, Scratch()), _k(W_FD.shape[0])

    def encode(n_rows: int) -> None:
        chunk = screen.chunk(slice(0, n_rows))
        pairs = chunk.above(chunk.kth_at_least(k))
        top_of_pairs(pairs, pairs.dots(x_RD[:n_rows], W_FD), k)

    return encode


def _crossover(timer: _Timer, x_RD: Tensor, W_FD: Tensor, default: float) -> float:
    """Return the density at which the sparse products cost as much as the four dense ones that they replace."""
    n_rows, d_sae = x_RD.shape[0], W_FD.shape[0]
    generator = torch.Generator().manual_seed(0)
    rows_P = torch.arange(n_rows).repeat_interleave(max(_PAIRS // n_rows, 1))
    cols_P = torch.randint(d_sae, rows_P.shape, generator=generator)
    pairs = Pairs.of_rows(rows_P.to(x_RD.device), cols_P.to(x_RD.device), n_rows)
    values_P = torch.ones(rows_P.shape, device=x_RD.device)
    acts_RF, out_FD = x_RD.new_ones(n_rows, d_sae), torch.empty_like(W_FD)

    def sparse() -> None:
        pairs.decode(values_P, W_FD)
        pairs.dots(x_RD, W_FD)
        by_latent = pairs.by_latent(d_sae)
        by_latent.add_to_(out_FD, values_P, x_RD, fresh=True)
        by_latent.add_to_(out_FD, values_P, x_RD, fresh=True)

    # The other two dense products have the sizes of these two.
    seconds = timer.seconds(
        {"sparse": sparse, "dense": lambda: (acts_RF @ W_FD, torch.mm(acts_RF.t(), x_RD, out=out_FD))}
    )
    if len(seconds) < 2:
        return default
    sparse_share = rows_P.shape[0] / acts_RF.numel()
    return round(min(max(2 * seconds["dense"] / seconds["sparse"] * sparse_share, 0.005), 0.5), 3)
