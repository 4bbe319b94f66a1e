"""What the latents of an SAE fire on, promote and lie next to."""

# Shape suffix legend: N = contexts, T = tokens per context, M = rows of activations, D = d_in, F = d_sae,
#   S = described latents, K = examples of a latent, V = vocabulary

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOut
from saesweep.models import LanguageModel
from saesweep.report.feature_scan import Scan, pieces
from saesweep.saes import ExportedSAE

BINS = 20
"""Bars of an activation histogram, from 0 to the latent's maximum."""
INTERVALS = 4
"""Equal parts of the same range that examples are taken from, beside the strongest."""
TOP_EXAMPLES, INTERVAL_EXAMPLES = 8, 2
TOKENS_BEFORE, TOKENS_AFTER = 64, 32
"""How far an example reaches around its strongest token, at most; never beyond its document."""
OUTPUT_TOKENS, NEIGHBOURS = 10, 6
_DECODER_PIECE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Example:
    """A stretch of one document around the token where a latent is strongest in that context."""

    context: int
    begin: int
    end: int
    """Positions of the stretch in the context, the end left out."""
    peak: int
    """Position of the strongest token."""
    interval: int | None
    """None for one of the strongest contexts, else the part of the latent's range that its peak lies in."""
    activations: dict[int, float]
    """By position, where the latent fires; negative where it has signs. Strength everywhere is magnitude."""


@dataclass(kw_only=True)
class Described:
    """One latent in detail."""

    number: int
    histogram: list[int] = field(default_factory=list)
    """Tokens by magnitude, in `BINS` equal parts of 0 to the largest."""
    examples: list[Example] = field(default_factory=list)
    promoted: list[tuple[int, float]] = field(default_factory=list)
    """(token id, logit per unit of activation) of the output tokens that its decoder direction raises most."""
    suppressed: list[tuple[int, float]] = field(default_factory=list)
    neighbours: list[tuple[int, float]] = field(default_factory=list)
    """(latent, cosine of the decoder directions), the nearest first, of those that fire."""
    by_hook: list[float] = field(default_factory=list)
    """Of a crosscoder's latent: the share of its decoder norms that each hook has."""
    beside: tuple[int, float] | None = None
    """The nearest latent of the SAE that is shown beside this one, of those that fire."""


def describe(
    sae: ExportedSAE,
    held_out: HeldOut,
    hook: str,
    scanned: Scan,
    numbers: Sequence[int],
    *,
    max_tokens: int,
    unembedding_VD: Tensor | None,
    separators: Collection[int] = (),
    seed: int = 0,
) -> list[Described]:
    """Return the chosen latents in detail.

    Args:
        sae: The exported SAE.
        held_out: The text that was scanned.
        hook: Where it reads.
        scanned: What `scan` found on the same tokens.
        numbers: The latents.
        max_tokens: Activations to look at, as in the scan.
        unembedding_VD: The model's unembedding; None leaves the output tokens out.
        separators: Token ids that stand between documents; no example reaches across one.
        seed: Of the choice of contexts within an interval.
    """
    found = [Described(number=number) for number in numbers]
    if not found:
        return found
    _add_examples(found, sae, held_out, hook, scanned, max_tokens=max_tokens, separators=separators, seed=seed)
    _add_output_tokens(found, sae, unembedding_VD)
    _add_neighbours(found, sae, scanned)
    if sae.n_layers > 1:
        shares_FL = sae.decoder_shares()
        for own in found:
            own.by_hook = shares_FL[own.number].tolist()
    return found


def _add_examples(
    found: list[Described],
    sae: ExportedSAE,
    held_out: HeldOut,
    hook: str,
    scanned: Scan,
    *,
    max_tokens: int,
    separators: Collection[int],
    seed: int,
) -> None:
    assert held_out.tokens_NT is not None
    index_S = torch.tensor([own.number for own in found])
    max_S = scanned.max_F[index_S]
    chosen = _choose_contexts(scanned.peaks_NF[: scanned.n_contexts][:, index_S].float(), max_S, seed)
    histogram_SB = torch.zeros(len(found) * BINS, dtype=torch.int64)
    by_context: dict[int, list[tuple[int, int | None]]] = {}
    for s, own in enumerate(chosen):
        for context, interval in own.items():
            by_context.setdefault(context, []).append((s, interval))
    kept: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for piece in pieces(sae, held_out, hook, max_tokens):
        acts_MS = piece.acts_MF[:, index_S]
        rows_P, latents_P = torch.nonzero(acts_MS, as_tuple=True)
        shares_P = acts_MS[rows_P, latents_P].abs() / max_S[latents_P]
        bins_P = (shares_P * BINS).ceil().long().clamp(1, BINS) - 1
        histogram_SB += torch.bincount(latents_P * BINS + bins_P, minlength=len(histogram_SB))
        if piece.context in by_context:
            places = [s for s, _ in by_context[piece.context]]
            positions, acts = kept.setdefault(piece.context, ([], []))
            positions.append(piece.positions_M)
            acts.append(acts_MS[:, places])
    for context, members in by_context.items():
        positions_M, acts_MK = torch.cat(kept[context][0]), torch.cat(kept[context][1])
        tokens_T = held_out.tokens_NT[context].tolist()
        for k, (s, interval) in enumerate(members):
            found[s].examples.append(_example(context, interval, tokens_T, positions_M, acts_MK[:, k], separators))
    for s, own_found in enumerate(found):
        own_found.histogram = histogram_SB[s * BINS : (s + 1) * BINS].tolist()
        own_found.examples.sort(
            key=lambda e: (e.interval is not None, -(e.interval or 0), -abs(e.activations[e.peak]), e.context)
        )


def _choose_contexts(peaks_NS: Tensor, max_S: Tensor, seed: int) -> list[dict[int, int | None]]:
    """Return for each latent the contexts to show: the strongest, and some from each part of its range."""
    n_contexts, n_latents = peaks_NS.shape
    chosen: list[dict[int, int | None]] = [{} for _ in range(n_latents)]
    values_KS, contexts_KS = peaks_NS.topk(min(TOP_EXAMPLES, n_contexts), dim=0)
    for k, s in torch.nonzero(values_KS > 0).tolist():
        chosen[s][int(contexts_KS[k, s])] = None
    free_NS = (peaks_NS > 0).scatter(0, contexts_KS, torch.zeros_like(contexts_KS, dtype=torch.bool))
    luck_NS = torch.rand(peaks_NS.shape, generator=torch.Generator().manual_seed(seed))
    parts_NS = (peaks_NS / max_S.clamp(min=1e-30) * INTERVALS).ceil().clamp(1, INTERVALS) - 1
    for interval in range(INTERVALS):
        score_NS = torch.where(free_NS & (parts_NS == interval), luck_NS, torch.full_like(luck_NS, -1.0))
        luck_KS, contexts_KS = score_NS.topk(min(INTERVAL_EXAMPLES, n_contexts), dim=0)
        for k, s in torch.nonzero(luck_KS >= 0).tolist():
            chosen[s][int(contexts_KS[k, s])] = interval
    return chosen


def _example(
    context: int,
    interval: int | None,
    tokens_T: Sequence[int],
    positions_M: Tensor,
    acts_M: Tensor,
    separators: Collection[int],
) -> Example:
    peak = int(positions_M[int(acts_M.abs().argmax())])
    begin = end = peak
    while begin > 0 and peak - begin < TOKENS_BEFORE and tokens_T[begin - 1] not in separators:
        begin -= 1
    while end + 1 < len(tokens_T) and end - peak < TOKENS_AFTER and tokens_T[end + 1] not in separators:
        end += 1
    inside_M = (positions_M >= begin) & (positions_M <= end) & (acts_M != 0)
    activations = dict(zip(positions_M[inside_M].tolist(), acts_M[inside_M].tolist(), strict=True))
    return Example(context=context, begin=begin, end=end + 1, peak=peak, interval=interval, activations=activations)


def unembedding_of(model: LanguageModel) -> Tensor | None:
    """Return the model's unembedding [V,D]; None where it has no language-model head."""
    inner = getattr(model, "bridge", None)
    inner = getattr(model, "model", None) if inner is None else inner.original_model
    head = inner.get_output_embeddings() if model.has_lm_head and inner is not None else None
    weight = getattr(head, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) and weight.ndim == 2 else None


def output_logits(sae: ExportedSAE, number: int, unembedding_VD: Tensor) -> Tensor:
    """Return what a latent adds to each output token [V] per unit of activation, less the mean over the vocabulary.

    The direct path only: decoder direction times unembedding. Later layers and the final normalisation are left out, as in
    the logit lens.
    """
    logits_V = unembedding_VD.to(sae.device).float() @ sae.tensors["W_dec"][number].float()
    return logits_V - logits_V.mean()


def _add_output_tokens(found: list[Described], sae: ExportedSAE, unembedding_VD: Tensor | None) -> None:
    if unembedding_VD is None or unembedding_VD.shape[1] != sae.d_out or sae.n_layers > 1:
        return
    weight_VD = unembedding_VD.float().to(sae.device)
    count = min(OUTPUT_TOKENS, len(weight_VD))
    for own in found:
        logits_V = output_logits(sae, own.number, weight_VD)
        high, low = logits_V.topk(count), (-logits_V).topk(count)
        own.promoted = list(zip(high.indices.tolist(), high.values.tolist(), strict=True))
        own.suppressed = list(zip(low.indices.tolist(), (-low.values).tolist(), strict=True))


def _add_neighbours(found: list[Described], sae: ExportedSAE, scanned: Scan) -> None:
    count = min(NEIGHBOURS, sae.d_sae - 1)
    for own, near in zip(found, nearest(sae, sae, [own.number for own in found], count + 1, scanned), strict=True):
        own.neighbours = [(number, cosine) for number, cosine in near if number != own.number][:count]


def nearest(
    sae: ExportedSAE, other: ExportedSAE, numbers: Sequence[int], count: int, scanned: Scan
) -> list[list[tuple[int, float]]]:
    """Return for each latent the latents of another SAE whose decoder directions have the largest cosine with its own.

    Args:
        sae: The SAE of the latents.
        other: The other SAE, or the same.
        numbers: The latents.
        count: How many to return of each; fewer where fewer fire.
        scanned: What `scan` found about the other SAE: latents that never fired there are left out.
    """
    fires_F = scanned.fired_F > 0
    count = min(count, int(fires_F.sum()))
    normed_FD = torch.nn.functional.normalize(other.tensors["W_dec"].float(), dim=1)
    found: list[list[tuple[int, float]]] = []
    for part in torch.split(torch.tensor(list(numbers)), max(1, _DECODER_PIECE // other.d_sae)):
        rows_SD = torch.nn.functional.normalize(sae.tensors["W_dec"][part.to(sae.device)].float(), dim=1)
        cosines_SF = rows_SD @ normed_FD.T.to(rows_SD.device)
        top = cosines_SF.masked_fill(~fires_F.to(cosines_SF.device), -torch.inf).topk(count, dim=1)
        found += [
            list(zip(indices, values, strict=True))
            for indices, values in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]
    return found
