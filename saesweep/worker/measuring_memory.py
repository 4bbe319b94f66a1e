"""The memory that measuring takes on the training device: from the specs alone, before anything is loaded."""

from __future__ import annotations

import torch

from saesweep.evaluation.predictions import logit_bytes
from saesweep.models.base import CPU_PIECE_TOKENS
from saesweep.saes.exported import rows_at_once
from saesweep.specs import BaseRun, EvaluationSpec

KEPT_BYTES = 1 << 28
"""Main memory at each hook for what clean forward passes over the `select` part gave: SAEs are measured there again and again."""
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_LAYER_WIDTHS = 24
"""Widths of the residual stream that a block's forward pass holds for each token: its MLP up to 8 times as wide, three times."""
_SAES_AT_ONCE = 16
_LATENT_COPIES = 4


def measuring_bytes(
    run: BaseRun, evaluation: EvaluationSpec, hooks: int, device: torch.device, d_vocab: int | None = None
) -> int:
    """Return the most memory that measuring SAEs of a run takes on the training device, beside their weights.

    A wide vocabulary does not matter: logits exist for a bounded piece of the tokens.

    Args:
        run: A run whose widths are known: the one with the widest SAE.
        evaluation: The held-out parts.
        hooks: Hooks read at once.
        device: Where it trains.
        d_vocab: Tokens of the vocabulary; None before the model is known, for the most that any takes.
    """
    d_in, d_sae = run.sae.d_in or 0, run.sae.d_sae or 0
    latents = 4 * _LATENT_COPIES * rows_at_once(d_sae, device) * d_sae
    if run.is_synthetic:
        return latents
    width, context = d_in * _BYTES[run.dtype], run.context_size
    tokens = (run.eval_batch_size_prompts or run.store_batch_size_prompts) * context
    if device.type == "cpu":
        tokens = min(tokens, max(CPU_PIECE_TOKENS, context))
    forward_pass = tokens * width * (_LAYER_WIDTHS + _SAES_AT_ONCE)
    kept = 0
    if device.type == "cpu":  # where main memory is the device's
        of_ce = evaluation.ce_tokens_of("select", run.training_tokens)
        kept = hooks * (evaluation.select_tokens * width + min(KEPT_BYTES, 2 * of_ce * width))
    return max(latents, logit_bytes(d_vocab, device) + forward_pass) + kept
