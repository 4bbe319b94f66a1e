"""How every latent of an SAE fires over held-out text: counts, strengths, and its peak in each context."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows of activations, D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.saes import ExportedSAE


@dataclass(frozen=True)
class Piece:
    """Latents on some rows of one context."""

    context: int
    positions_M: Tensor
    """Their positions in the context."""
    acts_MF: Tensor
    """On the CPU, float32."""


@dataclass(frozen=True)
class Scan:
    """What one pass over held-out text finds about all latents."""

    n_tokens: int
    n_contexts: int
    """Contexts that have been looked at."""
    fired_F: Tensor
    """Tokens on which each latent fires, int64."""
    sum_F: Tensor
    """Sum of the magnitudes of its activations, float64; the magnitude is the activation but for latents with signs."""
    max_F: Tensor
    """Its largest magnitude."""
    peak_token_F: Tensor
    """Id of the token on which it is strongest; -1 where it never fires."""
    peaks_NF: Tensor
    """Its largest magnitude in each context, bfloat16: for choosing contexts, not for reading off."""

    @property
    def density_F(self) -> Tensor:
        """Share of the tokens on which each latent fires."""
        return self.fired_F.double() / max(1, self.n_tokens)


def pieces(sae: ExportedSAE, held_out: HeldOut, hook: str, max_tokens: int) -> Iterator[Piece]:
    """Yield the latents of an SAE context by context; a long context comes in several pieces.

    Raises:
        ValueError: The held-out part has no text.
    """
    if held_out.tokens_NT is None or held_out.mask_NT is None:
        raise ValueError("synthetic activations have no text")
    counted_M2 = torch.nonzero(held_out.mask_NT.cpu())  # in the order of the rows
    done = 0
    for rows_MD in held_out.batches(hook, max_tokens):
        for part_MD in torch.split(rows_MD, sae.rows_at_once()):
            with torch.no_grad():
                acts_MF = sae.encode(part_MD.to(sae.device)).float().cpu()
            places_M2 = counted_M2[done : done + len(part_MD)]
            done += len(part_MD)
            contexts, counts = torch.unique_consecutive(places_M2[:, 0], return_counts=True)
            parts = zip(
                contexts.tolist(),
                torch.split(places_M2[:, 1], counts.tolist()),
                torch.split(acts_MF, counts.tolist()),
                strict=True,
            )
            yield from (Piece(context, positions_M, own_MF) for context, positions_M, own_MF in parts)


def scan(sae: ExportedSAE, held_out: HeldOut, hook: str, max_tokens: int) -> Scan:
    """Return how every latent fires on the first tokens of a held-out part."""
    assert held_out.tokens_NT is not None
    n_contexts, d_sae = len(held_out.tokens_NT), sae.d_sae
    fired_F, sum_F = torch.zeros(d_sae, dtype=torch.int64), torch.zeros(d_sae, dtype=torch.float64)
    max_F, peak_token_F = torch.zeros(d_sae), torch.full((d_sae,), -1, dtype=torch.int64)
    peaks_NF = torch.zeros(n_contexts, d_sae, dtype=torch.bfloat16)
    n_tokens = last = 0
    for piece in pieces(sae, held_out, hook, max_tokens):
        size_MF = piece.acts_MF.abs()
        n_tokens += len(size_MF)
        last = piece.context
        fired_F += (size_MF != 0).sum(0)
        sum_F += size_MF.double().sum(0)
        top_F, where_F = size_MF.max(0)
        tokens_F = held_out.tokens_NT[piece.context].cpu()[piece.positions_M[where_F]]
        peak_token_F = torch.where(top_F > max_F, tokens_F, peak_token_F)
        max_F = torch.maximum(max_F, top_F)
        peaks_NF[piece.context] = torch.maximum(peaks_NF[piece.context], top_F.bfloat16())
    return Scan(n_tokens, last + 1 if n_tokens else 0, fired_F, sum_F, max_F, peak_token_F, peaks_NF)
