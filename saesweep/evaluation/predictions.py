"""What a language model predicts from its final states, clean and spliced: never more logits at once than a bounded piece."""

# Shape suffix legend
#   R = tokens, S = SAEs, V = vocabulary, X = width of what the head reads (V where it cannot be split off)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.models import SplitHead

_PIECE_LOGITS = 1 << 26
_CPU_PIECE_LOGITS = 1 << 23
_CPU_MIN_ROWS = 128
_CPU_MAX_PIECE_LOGITS = 1 << 25
_CPU_CACHE_LOGITS = 1 << 18
_COPIES, _CPU_COPIES = 6, 4
"""Logits of a piece that exist at once, in float32: the clean ones as logarithms and probabilities, the spliced ones as given,
while they are soft-capped and as logarithms. On a CPU logarithms are taken of parts that stay in its caches."""


def rows_at_once(d_vocab: int, device: torch.device) -> int:
    """Return the number of tokens whose logits exist at the same time.

    On a CPU as many as the allocator keeps (larger blocks are mapped and unmapped at every use), but enough for a matrix
    product at full speed: with a vocabulary of 262,144, 128 rows take two thirds of the time per row that 32 take.
    """
    if device.type != "cpu":
        return max(1, _PIECE_LOGITS // d_vocab)
    return max(1, _CPU_PIECE_LOGITS // d_vocab, min(_CPU_MIN_ROWS, _CPU_MAX_PIECE_LOGITS // d_vocab))


def logit_bytes(d_vocab: int | None, device: torch.device) -> int:
    """Return the most memory that logits take while SAEs are measured.

    Args:
        d_vocab: Tokens of the vocabulary, 0 without a language-model head; None where they are not known: the bound that any
            vocabulary (below 2^25) keeps.
        device: Where they are.
    """
    if d_vocab == 0:
        return 0
    copies, max_logits = (_CPU_COPIES, _CPU_MAX_PIECE_LOGITS) if device.type == "cpu" else (_COPIES, _PIECE_LOGITS)
    return 4 * copies * (max_logits if d_vocab is None else rows_at_once(d_vocab, device) * d_vocab)


@dataclass(frozen=True)
class Scores:
    """Losses of predicting tokens, float64 on the CPU."""

    ce_R: Tensor
    """Cross-entropy of the next token."""
    kl_R: Tensor
    """KL divergence from the clean prediction."""


def scores(head: SplitHead, clean_RX: Tensor, spliced_SRX: Sequence[Tensor], target_R: Tensor) -> list[Scores]:
    """Return the scores of the clean model, whose divergence is 0, and of every spliced one.

    Args:
        head: Turns states into logits.
        clean_RX: States of the clean model.
        spliced_SRX: States of the same tokens with something spliced in.
        target_R: Their next tokens; any id where there is none.
    """
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(1 + len(spliced_SRX))]
    for piece in _pieces(len(clean_RX), rows_at_once(head.d_vocab, clean_RX.device)):
        clean_log_RV = _log_softmax(head.logits(clean_RX[piece]))
        target = target_R[piece].to(clean_log_RV.device)
        clean_RV = clean_log_RV.exp()
        cross_entropy = -clean_log_RV.gather(1, target[:, None])[:, 0]
        parts[0].append((cross_entropy, torch.zeros_like(cross_entropy)))
        for own, states in zip(parts[1:], spliced_SRX, strict=True):
            own.append(_compared(clean_RV, clean_log_RV, head.logits(states[piece]), target))
    none = torch.zeros(0)
    return [
        Scores(*(torch.cat([none, *(pair[column].double().cpu() for pair in own)]).double() for column in (0, 1)))
        for own in parts
    ]


def _compared(clean_RV: Tensor, clean_log_RV: Tensor, logits_RV: Tensor, target_R: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and divergence of one piece, in parts that stay in a CPU's caches."""
    found = []
    for part in _pieces(len(logits_RV), _cache_rows(logits_RV)):
        log_RV = logits_RV[part].float().log_softmax(-1)
        cross_entropy_R = -log_RV.gather(1, target_R[part, None])[:, 0]
        # In place: a temporary less to write and to read.
        divergence_R = log_RV.neg_().add_(clean_log_RV[part]).mul_(clean_RV[part]).sum(-1)
        found.append((cross_entropy_R, divergence_R))
    cross_entropy, divergence = (torch.cat(column) for column in zip(*found, strict=True))
    return cross_entropy, divergence


def _log_softmax(logits_RV: Tensor) -> Tensor:
    parts = _pieces(len(logits_RV), _cache_rows(logits_RV))
    return torch.cat([logits_RV[part].float().log_softmax(-1) for part in parts])


def _cache_rows(rows_RV: Tensor) -> int:
    return max(1, _CPU_CACHE_LOGITS // rows_RV.shape[1]) if rows_RV.device.type == "cpu" else len(rows_RV)


def _pieces(n_rows: int, max_rows: int) -> list[slice]:
    return [slice(start, min(start + max_rows, n_rows)) for start in range(0, n_rows, max_rows)]
