"""Measures exported SAEs on a held-out part: the one door that rungs, final results and reports go through."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from saesweep.activations import HeldOut
from saesweep.evaluation.reconstruction import ReconstructionMetrics
from saesweep.evaluation.splice import SplicedMetrics
from saesweep.models import LanguageModel
from saesweep.saes import ExportedSAE
from saesweep.specs import METRICS


def needs_language_model(names: Collection[str]) -> bool:
    """Return whether any of these metrics needs forward passes through the language-model head."""
    return any(METRICS[name].needs_lm_head for name in names if name in METRICS)


class HeldOutEvaluator:
    """Evaluates exported SAEs on one held-out part, `select` or `test`.

    Args:
        part: The held-out activations.
        model: The language model, for cross-entropy metrics; None where there is none.
        ce_tokens: At most this many tokens for cross-entropy metrics; None for the whole part.
        head_index: Attention head that the activations come from.
        contexts_per_forward: Contexts in one forward pass.
    """

    def __init__(
        self,
        part: HeldOut,
        model: LanguageModel | None,
        *,
        ce_tokens: int | None = None,
        head_index: int | None = None,
        contexts_per_forward: int = 32,
    ) -> None:
        self._part = part
        self._model = model if model is not None and model.has_lm_head else None
        self._ce_tokens = ce_tokens
        self._head_index = head_index
        self._contexts_per_forward = contexts_per_forward
        self._spliced: dict[str, SplicedMetrics] = {}

    @torch.no_grad()
    def measure(self, saes: Sequence[ExportedSAE], hook: str, *, with_model: bool) -> list[dict[str, float]]:
        """Return the metrics of each SAE, by the names of `METRICS`.

        Args:
            saes: Exported SAEs that read this hook.
            hook: Name of the hook.
            with_model: Also measure what needs the language model's head, where there is one.
        """
        sums = [ReconstructionMetrics() for _ in saes]
        for x_ND in self._part.batches(hook):
            for metrics, sae in zip(sums, saes, strict=True):
                acts_NF = sae.encode(x_ND)
                metrics.update(x_ND, sae.decode(acts_NF, x_ND), acts_NF)
        found = [metrics.compute() for metrics in sums]
        if with_model and self._model is not None:
            for metrics_of_one, spliced in zip(found, self._spliced_at(hook).measure(saes), strict=True):
                metrics_of_one.update(spliced)
        return found

    def _spliced_at(self, hook: str) -> SplicedMetrics:
        if hook not in self._spliced:
            assert self._model is not None
            assert self._part.tokens_NT is not None
            assert self._part.mask_NT is not None
            contexts = self._part.tokens_NT.shape[0]
            if self._ce_tokens is not None:
                contexts = min(contexts, max(1, self._ce_tokens // self._part.tokens_NT.shape[1]))
            self._spliced[hook] = SplicedMetrics(
                self._model,
                self._part.tokens_NT[:contexts],
                self._part.mask_NT[:contexts],
                hook,
                head_index=self._head_index,
                contexts_per_forward=self._contexts_per_forward,
            )
        return self._spliced[hook]
