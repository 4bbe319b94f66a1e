"""Aligned training: the encoder and the decoder vector of every latent keep an inner product of 1 (idea: arXiv 2605.18629).

What trains are free vectors v and u of a latent. The SAE has their functions d = u / |u| and e = v / <v, d>, so that |d| = 1 and <e, d> = 1.
After each step v and u are replaced by e and d, which changes nothing that the SAE computes: the weights always hold e and d.

Shape suffixes: D = d_in, F = d_sae, R = rows of a block, 1 = a number for each row; weights of stacked SAEs are [N, F, D].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saesweep.saes import Params

_LEAST_PRODUCT = 0.5
"""e is v divided by no less than this, or a step that turns v away from d would make e huge; the rest to 1 is added along d."""
_BLOCK_ELEMENTS, _BLOCK_ELEMENTS_GPU = 1 << 18, 1 << 22
"""Numbers of a matrix that are worked on at a time: so many stay in a processor's caches, and take a GPU no memory that counts."""


def aligned_vectors(enc_FD: Tensor, dec_FD: Tensor) -> tuple[Tensor, Tensor]:
    """Return (e, d), row per latent, as a function of what trains: the plain form, for autograd.

    Args:
        enc_FD: The free vectors v.
        dec_FD: The free vectors u.
    """
    d_FD = dec_FD / _norms(dec_FD)
    e_FD = enc_FD / _dots(enc_FD, d_FD).clamp(min=_LEAST_PRODUCT)
    return e_FD + (1.0 - _dots(e_FD, d_FD)) * d_FD, d_FD


@torch.no_grad()
def align_(params: Params) -> None:
    """Replace `W_enc` and `W_dec` by what `aligned_vectors` makes of them, in place.

    Args:
        params: Of one SAE, `W_enc` as its architecture has it; or of several, [N, F, D] both.
    """
    for enc_RD, dec_RD in _blocks(_row_per_latent(params["W_enc"], params["W_dec"]), params["W_dec"]):
        dec_RD.div_(_norms(dec_RD))
        enc_RD.div_(_dots(enc_RD, dec_RD).clamp_(min=_LEAST_PRODUCT))
        enc_RD.addcmul_(1.0 - _dots(enc_RD, dec_RD), dec_RD)


@torch.no_grad()
def align_gradients_(params: Params, grads: Params) -> None:
    """Turn gradients at e and d into those at v and u, in place, where v is e and u is d.

    By the chain rule through `aligned_vectors`, with `s = <g_e, e>`: `g_v = g_e - s d` and `g_u = g_d - s e - <g_d - s e, d> d`.

    Args:
        params: As `align_` leaves them.
        grads: Gradients by parameter, shaped as these.
    """
    dec_FD = params["W_dec"]
    enc_FD, grad_enc_FD = (_row_per_latent(each["W_enc"], dec_FD) for each in (params, grads))
    for enc_RD, dec_RD, grad_enc_RD, grad_dec_RD in _blocks(enc_FD, dec_FD, grad_enc_FD, grads["W_dec"]):
        share_R1 = _dots(grad_enc_RD, enc_RD)
        grad_enc_RD.addcmul_(share_R1, dec_RD, value=-1.0)
        grad_dec_RD.addcmul_(share_R1, enc_RD, value=-1.0)
        grad_dec_RD.addcmul_(_dots(grad_dec_RD, dec_RD), dec_RD, value=-1.0)


def _dots(a_RD: Tensor, b_RD: Tensor) -> Tensor:
    products_R1: Tensor = (a_RD * b_RD).sum(-1, keepdim=True)
    return products_R1


def _norms(rows_RD: Tensor) -> Tensor:
    norms_R1: Tensor = torch.linalg.vector_norm(rows_RD, dim=-1, keepdim=True)
    return norms_R1.clamp(min=torch.finfo(rows_RD.dtype).tiny)  # a row of zeros stays one


def _row_per_latent(W_enc: Tensor, dec_FD: Tensor) -> Tensor:
    """Return encoder weights as decoder weights lie: those of one SAE are [D, F]."""
    return W_enc.t() if dec_FD.ndim == 2 else W_enc


def _blocks(*weights: Tensor) -> Iterator[tuple[Tensor, ...]]:
    # By the width alone: how a row is added up must not depend on the SAEs beside it.
    elements = _BLOCK_ELEMENTS if weights[0].device.type == "cpu" else _BLOCK_ELEMENTS_GPU
    rows = max(elements // weights[0].shape[-1], 1)
    return zip(*(torch.split(each, rows, dim=-2) for each in weights), strict=True)
