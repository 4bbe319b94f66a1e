"""What a sample of an SAE's latents fires on, over held-out text."""

# Shape suffix legend: N = contexts, T = tokens per context, M = counted positions, D = d_in, F = d_sae,
#   S = sampled latents, V = vocabulary

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.models import LanguageModel
from saesweep.saes import ExportedSAE

BANDS = (
    (-math.inf, -9.0, "never fired"),
    (-9.0, -4.0, "up to 0.01%"),
    (-4.0, -3.0, "0.01% to 0.1%"),
    (-3.0, -2.0, "0.1% to 1%"),
    (-2.0, -1.0, "1% to 10%"),
    (-1.0, math.inf, "above 10%"),
)
"""Density bands: log10 of the share of held-out tokens on which a latent fires."""


@dataclass(frozen=True)
class Snippet:
    """A stretch of a context around a latent's strongest token."""

    tokens: list[int]
    activations: list[float]
    peak: int
    """Index of that token in `tokens`."""


@dataclass(frozen=True, kw_only=True)
class Latent:
    """One latent, as the page shows it."""

    number: int
    band: int
    """Index into `BANDS`."""
    density: float
    """Share of the held-out tokens on which it fires."""
    mean_active: float
    """Mean activation where it fires."""
    maximum: float
    snippets: list[Snippet]
    promoted: list[tuple[int, float]]
    """(token id, logit per unit of activation) of the output tokens that its decoder direction raises most."""
    suppressed: list[tuple[int, float]]


def sample_latents(
    log10_frequencies: Sequence[float], per_band: int, *, seed: int, always: Sequence[int] = ()
) -> dict[int, int]:
    """Return latents to show, number -> band: `per_band` of each density band at random, and those asked for; densest first."""
    bands: dict[int, list[int]] = {}
    for number, value in enumerate(log10_frequencies):
        bands.setdefault(band_of(value), []).append(number)
    chosen = {number: band_of(log10_frequencies[number]) for number in always}
    generator = random.Random(seed)
    for band in sorted(bands):
        chosen |= dict.fromkeys(generator.sample(bands[band], min(per_band, len(bands[band]))), band)
    return dict(sorted(chosen.items(), key=lambda item: (-item[1], item[0])))


def band_of(log10_frequency: float) -> int:
    """Return the index of the density band of a latent."""
    return next(i for i, (low, high, _) in enumerate(BANDS) if low <= log10_frequency < high)


def describe_latents(
    sae: ExportedSAE,
    held_out: HeldOut,
    hook: str,
    chosen: dict[int, int],
    *,
    max_tokens: int,
    unembedding_VD: Tensor | None,
    contexts_shown: int = 8,
    tokens_before: int = 14,
    tokens_after: int = 6,
    output_tokens: int = 8,
) -> list[Latent]:
    """Return what each chosen latent fires on.

    Args:
        sae: The exported SAE.
        held_out: Text to run it on; its contexts must be known.
        hook: Where it reads.
        chosen: Latent -> band.
        max_tokens: Activations to look at.
        unembedding_VD: The model's unembedding; None leaves the output tokens out.
        contexts_shown: Contexts per latent, at most one snippet each.
        tokens_before: Tokens shown before the strongest one.
        tokens_after: Tokens shown after it.
        output_tokens: Promoted and suppressed tokens to name.

    Raises:
        ValueError: The held-out part has no text.
    """
    if held_out.tokens_NT is None or held_out.mask_NT is None:
        raise ValueError("synthetic activations have no text")
    numbers = list(chosen)
    index_S = torch.tensor(numbers, dtype=torch.long)
    fired_S = torch.zeros(len(numbers), dtype=torch.float64)
    sum_S = torch.zeros(len(numbers), dtype=torch.float64)
    tops: list[list[tuple[float, int, Snippet]]] = [[] for _ in numbers]
    seen = 0
    for context, positions_M, acts_MS in _by_context(sae, held_out, hook, index_S, max_tokens):
        seen += len(positions_M)
        fired_S += (acts_MS > 0).sum(0)
        sum_S += acts_MS.double().sum(0)
        tokens_T = held_out.tokens_NT[context]
        peak_S, where_S = acts_MS.max(0)
        for s in torch.nonzero(peak_S > 0).flatten().tolist():
            value = float(peak_S[s])
            if len(tops[s]) == contexts_shown and value <= tops[s][0][0]:
                continue
            position = int(positions_M[where_S[s]])
            begin, end = max(0, position - tokens_before), min(len(tokens_T), position + tokens_after + 1)
            shown_T = torch.zeros(len(tokens_T))
            shown_T[positions_M] = acts_MS[:, s]
            snippet = Snippet(tokens_T[begin:end].tolist(), shown_T[begin:end].tolist(), position - begin)
            push = heapq.heappush if len(tops[s]) < contexts_shown else heapq.heapreplace
            push(tops[s], (value, -context, snippet))
    output = _output_tokens(sae, numbers, unembedding_VD, output_tokens)
    found = []
    for s, number in enumerate(numbers):
        best_first = sorted(tops[s], key=lambda item: (-item[0], -item[1]))
        found.append(
            Latent(
                number=number,
                band=chosen[number],
                density=float(fired_S[s]) / max(1, seen),
                mean_active=float(sum_S[s] / fired_S[s]) if fired_S[s] > 0 else 0.0,
                maximum=best_first[0][0] if best_first else 0.0,
                snippets=[snippet for _, _, snippet in best_first],
                promoted=output[s][0],
                suppressed=output[s][1],
            )
        )
    return found


def _by_context(
    sae: ExportedSAE, held_out: HeldOut, hook: str, index_S: Tensor, max_tokens: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (context, its counted positions [M], activations [M,S]); held-out rows come context by context."""
    assert held_out.mask_NT is not None
    lengths = held_out.mask_NT.sum(1).tolist()
    context, waiting = 0, torch.zeros(0, len(index_S))
    for rows_MD in held_out.batches(hook, max_tokens):
        with torch.no_grad():
            acts_MS = sae.encode(rows_MD.to(sae.device))[:, index_S.to(sae.device)].float().cpu()
        waiting = torch.cat([waiting, acts_MS])
        while context < len(lengths) and len(waiting) >= lengths[context]:
            positions_M = torch.nonzero(held_out.mask_NT[context]).flatten()
            if len(positions_M):
                yield context, positions_M, waiting[: len(positions_M)]
            waiting = waiting[len(positions_M) :]
            context += 1


def unembedding_of(model: LanguageModel) -> Tensor | None:
    """Return the model's unembedding [V,D]; None where it has no language-model head."""
    inner = getattr(model, "bridge", None)
    inner = getattr(model, "model", None) if inner is None else inner.original_model
    head = inner.get_output_embeddings() if model.has_lm_head and inner is not None else None
    weight = getattr(head, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None


def _output_tokens(
    sae: ExportedSAE, numbers: Sequence[int], unembedding_VD: Tensor | None, count: int
) -> list[tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
    """Return the tokens that each decoder direction raises and lowers, most first.

    The direct path only: decoder direction times unembedding, less its mean over the vocabulary. Later layers and the
    final normalisation are left out, as in the logit lens.
    """
    if unembedding_VD is None or unembedding_VD.shape[1] != sae.d_in:
        return [([], []) for _ in numbers]
    found = []
    weight_VD = unembedding_VD.float().to(sae.device)
    for number in numbers:
        logits_V = weight_VD @ sae.tensors["W_dec"][number].float()
        logits_V = logits_V - logits_V.mean()
        high, low = logits_V.topk(count), (-logits_V).topk(count)
        found.append(
            (
                list(zip(high.indices.tolist(), high.values.tolist(), strict=True)),
                list(zip(low.indices.tolist(), (-low.values).tolist(), strict=True)),
            )
        )
    return found
