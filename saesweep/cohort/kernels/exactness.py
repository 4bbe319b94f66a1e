"""Whether a `KernelChoice` computes in float32 on this machine in more than name.

Shape suffixes: R = rows (tokens), F = d_sae, D = d_in, P = active pairs, S = a sample of latents.
"""

from __future__ import annotations

import torch

from saesweep.cohort.kernels.choice import Gemm, KernelChoice
from saesweep.cohort.kernels.gemm import linear
from saesweep.cohort.kernels.pairs import PairKernels, Pairs, triton_or_none
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.screen import SCORE_ROUNDING, Screen
from saesweep.cohort.kernels.stacked_check import keeps_bits

# Largest error let through, relative to |x| |w|: float32 stays near 1e-7, bf16 and TF32 are above 1e-4.
_MAX_ERROR = 3e-6
_ROWS = 32
MAX_LATENTS = 1 << 16
MAX_WEIGHTS = 1 << 26
"""Bounds of a check: 64M weights, 256 MiB, are drawn and multiplied in a second or two; libraries take no other way beyond."""
_EXACT_LATENTS = 1024
"""So many latents' products are done again in float64, spread over all of them."""


def checked_latents(d_in: int, d_sae: int) -> int:
    """Return how many latents a check multiplies: all of them, as far as time and memory for it are bounded."""
    return max(64, min(d_sae, MAX_LATENTS, MAX_WEIGHTS // d_in))


def gemm_error(gemm: Gemm, d_in: int, d_sae: int, *, device: torch.device | str = "cpu") -> float:
    """Return a library's largest error against float64, relative to `|x| |w|`; infinite where it is not available.

    A library chooses its way by the shapes, so that the product has the real d_in and, within bounds, the real d_sae, for a
    sample of rows; a sample of its latents is compared.
    """
    if gemm == "split_fp16" and torch.device(device).type != "cuda":
        return float("inf")
    generator = torch.Generator().manual_seed(0)
    n_latents = checked_latents(d_in, d_sae)
    x_RD, W_FD = torch.randn(_ROWS, d_in, generator=generator), torch.randn(n_latents, d_in, generator=generator)
    b_F = torch.randn(n_latents, generator=generator)
    try:
        out_RF = linear(gemm, x_RD.to(device), W_FD.to(device), b_F.to(device)).cpu()
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, RuntimeError):
        # A build without oneDNN lacks the operator; another kind of GPU may lack the fp16 product with an fp32 result.
        return float("inf")
    sample_S = _sample(n_latents)
    out_RF, W_FD, b_F = out_RF[:, sample_S], W_FD[sample_S], b_F[sample_S]
    exact_RF = x_RD.double() @ W_FD.double().t() + b_F
    scale_RF = torch.outer(x_RD.double().norm(dim=1), W_FD.double().norm(dim=1))
    return float(((out_RF - exact_RF).abs() / scale_RF).max())


def screen_error(d_in: int, d_sae: int) -> float:
    """Return the largest error of the bf16 screen's scores on this CPU, as a share of its proven bound: at most 1."""
    generator = torch.Generator().manual_seed(0)
    n_latents = checked_latents(d_in, d_sae)
    x_RD, W_FD = torch.randn(_ROWS, d_in, generator=generator), torch.randn(n_latents, d_in, generator=generator)
    b_F = torch.randn(n_latents, generator=generator)
    score_RF, bound_R = Screen(x_RD, W_FD, b_F, Scratch()).scores(slice(0, _ROWS))
    sample_S = _sample(n_latents)
    exact_RF = x_RD.double() @ W_FD[sample_S].double().t() + b_F[sample_S]
    allowed_RF = bound_R[:, None] + exact_RF.abs() * SCORE_ROUNDING
    return float(((score_RF[:, sample_S].double() - exact_RF).abs() / allowed_RF).max())


def _sample(n_latents: int) -> torch.Tensor:
    """Return the latents whose products are compared: the first, the last, and others spread between them."""
    return torch.linspace(0, n_latents - 1, min(n_latents, _EXACT_LATENTS), dtype=torch.float64).round().long()


def pairs_error(kernels: PairKernels, d_in: int, *, device: torch.device | str = "cpu") -> float:
    """Return the largest error of the products at pairs against float64, relative to the norms of their factors.

    Infinite where the library is not available.
    """
    if kernels == "triton" and (torch.device(device).type != "cuda" or triton_or_none() is None):
        return float("inf")
    generator = torch.Generator().manual_seed(0)
    x_RD, W_FD = torch.randn(110, d_in, generator=generator), torch.randn(120, d_in, generator=generator)
    # One row and one latent have many pairs, which kernels treat in blocks; the others have few, the last ones none.
    mask_RF = torch.zeros(110, 120, dtype=torch.float64)
    mask_RF[0, :107], mask_RF[:99, 5], mask_RF[torch.arange(99), 6 + torch.arange(99) % 3] = 1, 1, 1
    rows_P, cols_P = mask_RF.nonzero(as_tuple=True)
    values_P = torch.randn(rows_P.shape, generator=generator)
    mask_RF[rows_P, cols_P] = values_P.double()
    on_device = Pairs.of_rows(rows_P.to(device), cols_P.to(device), 110, kernels)
    x, W, values = x_RD.to(device), W_FD.to(device), values_P.to(device)
    sums_FD = torch.ones_like(W)
    on_device.by_latent(120).add_to_(sums_FD, values, x, fresh=True)
    on_device.by_latent(120).add_to_(sums_FD, values, x, fresh=False)
    got = (on_device.dots(x, W), on_device.decode(values, W), sums_FD)
    exact = (
        (x_RD.double() @ W_FD.double().t())[rows_P, cols_P],
        mask_RF @ W_FD.double(),
        2 * mask_RF.t() @ x_RD.double(),
    )
    scale = float(x_RD.norm(dim=1).max() * W_FD.norm(dim=1).max())
    return max(float((a.double().cpu() - b).abs().max()) / scale for a, b in zip(got, exact, strict=True))


def is_exact(choice: KernelChoice, d_in: int, d_sae: int, *, device: torch.device | str = "cpu") -> bool:
    """Return whether a choice computes in float32 on this machine in more than name, at the widths that it is for.

    And where it stacks SAEs, whether one's bits are the same whichever others train beside it.
    """
    if gemm_error(choice.gemm, d_in, d_sae, device=device) > _MAX_ERROR:
        return False
    if choice.pairs != "torch" and pairs_error(choice.pairs, d_in, device=device) > _MAX_ERROR:
        return False
    if choice.screen and screen_error(d_in, d_sae) > 1.0:
        return False
    return choice.stacked == "no" or keeps_bits(choice, d_in, d_sae, device=device)
