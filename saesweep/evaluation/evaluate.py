"""Measures exported SAEs on a held-out part: the one door that rungs, final results and reports go through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from saesweep.activations import HeldOut, find_sinks
from saesweep.activity import doing
from saesweep.evaluation.by_hook import VarianceByHook
from saesweep.evaluation.decoder_cosine import decoder_cosine
from saesweep.evaluation.latents import FiringCounter, RecoveryMetrics
from saesweep.evaluation.reconstruction import NO_SINKS, ReconstructionMetrics, VarianceWithoutSinks
from saesweep.evaluation.registered import new_registered, values_of
from saesweep.evaluation.splice import SplicedMetrics
from saesweep.evaluation.spread import ByContext, PairedSums
from saesweep.models import LanguageModel
from saesweep.saes import ExportedSAE
from saesweep.specs import METRICS
from saesweep.specs.joint_hooks import is_joint

_SYNTHETIC_CONTEXT = 128


def needs_language_model(names: Collection[str]) -> bool:
    """Return whether any of these metrics needs forward passes through the language-model head."""
    return any(METRICS[name].needs_lm_head for name in names if name in METRICS)


class HeldOutEvaluator:
    """Evaluates exported SAEs on one held-out part, `select` or `test`.

    Args:
        part: The held-out activations.
        model: The language model, for cross-entropy metrics; None where there is none.
        ce_tokens: At most this many tokens for cross-entropy metrics; None for the whole part.
        at_rung: Returns how many of some tokens are measured at a rung; None for all.
        head_index: Attention head that the activations come from.
        contexts_per_forward: Contexts in one forward pass.
        ablation: What scores are relative to: activations replaced by zeros, as in SAELens, or by their mean.
        kept_bytes: Main memory at each hook for what clean forward passes gave, where SAEs are measured again and again.
    """

    def __init__(
        self,
        part: HeldOut,
        model: LanguageModel | None,
        *,
        ce_tokens: int | None = None,
        at_rung: Callable[[int], int] | None = None,
        head_index: int | None = None,
        contexts_per_forward: int = 32,
        ablation: Literal["zero", "mean"] = "zero",
        kept_bytes: int = 0,
    ) -> None:
        self._kept_bytes = kept_bytes
        self._noted: set[str] = set()
        self._ablation = ablation
        self._part = part
        self._model = model if model is not None and model.has_lm_head else None
        self._ce_tokens = ce_tokens
        self._at_rung = at_rung or (lambda tokens: tokens)
        self._head_index = head_index
        self._contexts_per_forward = contexts_per_forward
        self._spliced: dict[str, SplicedMetrics] = {}
        self._contexts: Tensor | None = None
        self._sink_limits: dict[str, float | None] = {}

    @torch.no_grad()
    def measure(
        self,
        saes: Sequence[ExportedSAE],
        hook: str,
        *,
        with_model: bool,
        spread: bool = False,
        paired: bool = False,
        at_rung: bool = False,
        counters: Sequence[FiringCounter] = (),
        by_context: ByContext | None = None,
        hook_in: str | None = None,
    ) -> list[dict[str, float]]:
        """Return the metrics of each SAE, by the names of `METRICS`; of crosscoders also the explained variance at each hook.

        Args:
            saes: Exported SAEs of this hook.
            hook: The hook whose activations they reconstruct.
            with_model: Also measure what needs the language model's head, where there is one.
            spread: Also return `<metric>_stderr`, the standard error over contexts, and `silent_fraction`, the share of
                latents that fire on no held-out token.
            paired: Also return `delta_ce_minus_first`, the difference to the first SAE, with its error paired over contexts.
            at_rung: Measure on the first tokens of the part alone, as many as a rung takes, and without `decoder_cosine`, which
                costs as much as a quarter of `d_sae` tokens.
            counters: One for each SAE, which counts its active latents in the same pass; empty: nothing is counted.
            by_context: Takes a metric by context in the same pass; needs `spread`.
            hook_in: The hook that they read, where they are transcoders; `hook` when left out.
        """
        sums = [ReconstructionMetrics() for _ in saes]
        limit = self._sink_limit(hook)
        without_sinks = [] if limit is None else [VarianceWithoutSinks(limit) for _ in saes]
        true_GD = self._part.true_features_FD
        recoveries = [] if true_GD is None else [RecoveryMetrics(sae.tensors["W_dec"], true_GD) for sae in saes]
        added = [new_registered(sae) for sae in saes]
        by_hook = [VarianceByHook(hook) for _ in saes] if is_joint(hook) else []
        n_rows = min((sae.rows_at_once() for sae in saes), default=1)
        seen, n_tokens = 0, self._at_rung(self._part.n_tokens) if at_rung else self._part.n_tokens
        for x_ND, y_ND, context_N, true_acts_NG in self._batches(hook, n_rows, n_tokens, hook_in):
            doing(f"measuring {len(saes)} SAE{'s' * (len(saes) != 1)} on held-out tokens", seen, n_tokens)
            seen += len(x_ND)
            for index, (metrics, registered, sae) in enumerate(zip(sums, added, saes, strict=True)):
                acts_NF = sae.encode(x_ND)
                recon_ND = sae.decode(acts_NF, x_ND)
                metrics.update(y_ND, recon_ND, acts_NF, context_N if spread else None)
                for metric in registered.values():
                    metric.update(y_ND, recon_ND, acts_NF)
                if true_acts_NG is not None:
                    recoveries[index].update(acts_NF, true_acts_NG)
                if without_sinks:
                    without_sinks[index].update(y_ND, recon_ND, context_N if spread else None)
                if by_hook:
                    by_hook[index].update(y_ND, recon_ND)
                if counters:
                    counters[index].update(acts_NF)
        found = [
            {**metrics.compute(), **values_of(registered)} for metrics, registered in zip(sums, added, strict=True)
        ]
        for values, variances in zip(found, by_hook, strict=False):
            values |= variances.compute()
        if not at_rung:
            for values, sae in zip(found, saes, strict=True):
                values["decoder_cosine"] = decoder_cosine(sae.tensors["W_dec"])
        for values, recovery in zip(found, recoveries, strict=False):
            values |= recovery.compute()
        if spread:
            for values, metrics in zip(found, sums, strict=True):
                values |= {**metrics.standard_errors(), "silent_fraction": metrics.silent_fraction()}
        for index, values in enumerate(found):
            _add_without_sinks(values, without_sinks[index] if without_sinks else None, spread)
        if by_context is not None and not METRICS[by_context.metric].needs_lm_head:
            by_context.sums = self._by_context(by_context.metric, sums, without_sinks)
        if with_model and self._model is not None:
            spliced = self._spliced_at(hook).measure(
                saes, spread=spread, paired=paired, at_rung=at_rung, by_context=by_context, hook_in=hook_in
            )
            for values, of_model in zip(found, spliced, strict=True):
                values |= of_model
        return found

    def _by_context(
        self, metric: str, sums: Sequence[ReconstructionMetrics], without_sinks: Sequence[VarianceWithoutSinks]
    ) -> list[PairedSums] | None:
        """Return a metric of the reconstruction by context; None for one that contexts do not add up to."""
        if metric == NO_SINKS and without_sinks:
            return [each.by_context() for each in without_sinks]
        if metric == NO_SINKS:
            metric = "explained_variance"  # the same where there are no sinks
        parts = [part for part in (each.by_context(metric) for each in sums) if part is not None]
        return parts or None

    def _sink_limit(self, hook: str) -> float | None:
        """Return the norm beyond which a token of the part is an attention sink; None where it has none."""
        if hook not in self._sink_limits:
            sinks = find_sinks(self._part, hook)
            self._sink_limits[hook] = None if sinks is None else sinks.limit
        return self._sink_limits[hook]

    def new_notes(self) -> list[str]:
        """Return what measuring found out about the model and has not been reported yet, one sentence each."""
        notes = [
            f"measuring at {hook} does without {name}, which this model does not allow ({reason}); figures are the same, slower"
            for hook, spliced in self._spliced.items()
            for name, reason in spliced.shortcuts_off().items()
        ]
        found = [note for note in notes if note not in self._noted]
        self._noted.update(found)
        return found

    def _batches(
        self, hook: str, n_rows: int, n_tokens: int | None = None, hook_in: str | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
        """Yield at most so many activations to read and to reconstruct [N, D], their contexts, and true activations [N, G].

        All of the part, or its first `n_tokens`.
        """
        mask_NT = self._part.mask_NT
        start, left = 0, self._part.n_tokens if n_tokens is None else n_tokens
        inputs = None if hook_in in (None, hook) else self._part.batches(str(hook_in), left)
        for batch_ND, true_acts_NG in self._part.labelled_batches(hook, left):
            input_ND = batch_ND if inputs is None else next(inputs)  # the same rows
            row_N = torch.arange(start, start + len(batch_ND))
            start += len(batch_ND)
            # Synthetic activations are independent of each other: any grouping will do.
            context_N = row_N // _SYNTHETIC_CONTEXT if mask_NT is None else self._context_of_row(mask_NT)[row_N]
            for first in range(0, len(batch_ND), n_rows):
                piece = slice(first, first + n_rows)
                labels_NG = None if true_acts_NG is None else true_acts_NG[piece]
                yield input_ND[piece], batch_ND[piece], context_N[piece], labels_NG

    def _context_of_row(self, mask_NT: Tensor) -> Tensor:
        if self._contexts is None:
            self._contexts = torch.arange(len(mask_NT)).repeat_interleave(mask_NT.sum(1).cpu())
        return self._contexts

    def _mean_D(self, hook: str) -> Tensor:
        total_D, rows = None, 0
        for x_ND in self._part.batches(hook):
            part_D = x_ND.double().sum(0)
            total_D = part_D if total_D is None else total_D + part_D
            rows += len(x_ND)
        assert total_D is not None
        return total_D / rows

    def _spliced_at(self, hook: str) -> SplicedMetrics:
        if hook not in self._spliced:
            assert self._model is not None
            assert self._part.tokens_NT is not None
            assert self._part.mask_NT is not None
            contexts, context_tokens = self._part.tokens_NT.shape
            if self._ce_tokens is not None:
                contexts = min(contexts, max(1, self._ce_tokens // context_tokens))
            rung_contexts = -(-self._at_rung(contexts * context_tokens) // context_tokens)
            self._spliced[hook] = SplicedMetrics(
                self._model,
                self._part.tokens_NT[:contexts],
                self._part.mask_NT[:contexts],
                hook,
                rung_contexts=min(contexts, rung_contexts),
                head_index=self._head_index,
                contexts_per_forward=self._contexts_per_forward,
                mean_D=self._mean_D(hook) if self._ablation == "mean" else None,
                kept_bytes=self._kept_bytes,
            )
        return self._spliced[hook]


def _add_without_sinks(values: dict[str, float], sums: VarianceWithoutSinks | None, spread: bool) -> None:
    """Add the explained variance without sinks, which is that of all tokens where there are none."""
    values[NO_SINKS] = values["explained_variance"] if sums is None else sums.compute()
    if spread:
        error = values["explained_variance_stderr"] if sums is None else sums.standard_error()
        values[f"{NO_SINKS}_stderr"] = error
