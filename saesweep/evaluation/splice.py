"""What splicing an exported SAE into the language model does to its predictions.

Cross-entropy and KL divergence with the hook's activations replaced by the SAE's reconstruction (positions that
are left out of training keep their own), against the clean model and against zero ablation. As SAELens'
`get_recons_loss` defines them; logits in fp32.
Shape suffixes: C contexts, T positions, V vocabulary, D = d_in, H heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from saesweep.evaluation.spread import PairedSums, ratio_stderr
from saesweep.models import LanguageModel, LateStart, replace_activations, shape_activations
from saesweep.saes import ExportedSAE

_LOGIT_ROWS = 4096
"""Positions whose log-probabilities exist at once: a 256k vocabulary is 1 MB a row."""


def replacement(sae: ExportedSAE, mask_CT: Tensor, *, head_index: int | None) -> Callable[[Tensor], Tensor]:
    """Return the function that replaces a hook's activations where `mask_CT` is True.

    Activations are [C, T, D], or [C, T, H, D/H] at hooks with a head axis: one head, or all of them flattened.
    """

    def replace(acts: Tensor) -> Tensor:
        x = acts[:, :, head_index] if head_index is not None else acts.flatten(2)
        recon = sae(x.to(sae.device)).to(x.device, x.dtype)
        mixed = torch.where(mask_CT.to(x.device)[..., None], recon, x)
        if head_index is None:
            return mixed.reshape(acts.shape)
        out = acts.clone()
        out[:, :, head_index] = mixed
        return out

    return replace


def ablation(acts: Tensor, *, head_index: int | None, mean_D: Tensor | None) -> Tensor:
    """Return zeros, or the same mean vector everywhere, in place of the activations (of one head)."""
    x = shape_activations(acts, head_index)
    new = torch.zeros_like(x) if mean_D is None else mean_D.to(x.device, x.dtype).expand_as(x)
    return replace_activations(acts, new, head_index)


class SplicedMetrics:
    """Cross-entropy and KL metrics of several SAEs at one hook, over a fixed set of contexts.

    The clean forward runs once per batch for the whole cohort, spliced ones start at the hook; the ablated losses are
    computed once and kept.

    Args:
        model: A language model with a head.
        tokens_CT: Held-out contexts.
        mask_CT: Positions whose activations count.
        hook: The hook whose activations are replaced.
        head_index: Head to replace; None for the whole activation.
        contexts_per_forward: Contexts in one forward pass.
        mean_D: What the ablation puts in place of the activations; None for zeros.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens_CT: Tensor,
        mask_CT: Tensor,
        hook: str,
        *,
        head_index: int | None = None,
        contexts_per_forward: int = 32,
        mean_D: Tensor | None = None,
    ) -> None:
        self._mean_D = mean_D
        self._model = model
        self._tokens_CT = tokens_CT
        self._mask_CT = mask_CT
        self._start = LateStart(model, hook)
        self._head_index = head_index
        self._step = contexts_per_forward
        self._clean: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def measure(
        self, saes: Sequence[ExportedSAE], *, spread: bool = False, paired: bool = False
    ) -> list[dict[str, float]]:
        """Return each SAE's delta_ce, its standard error over contexts, CE and KL scores, and the losses behind them.

        Args:
            saes: Exported SAEs that read this hook.
            spread: Also return the standard error of the other metrics.
            paired: Also return `delta_ce_minus_first`: the difference to the first SAE, paired over contexts, which tells
                smaller differences from noise than the two errors do.
        """
        losses = self._losses(saes)
        found = [self._summarise(ce_CT, kl_CT, spread=spread) for ce_CT, kl_CT in losses]
        if paired:
            for metrics, (ce_CT, _) in zip(found, losses, strict=True):
                metrics.update(self._difference(ce_CT, losses[0][0]))
        return found

    @torch.no_grad()
    def paired(self, saes: Sequence[ExportedSAE], metric: str) -> PairedSums | None:
        """Return one metric of each SAE by context; None for one that is not measured here."""
        if metric not in ("delta_ce", "ce_loss_with_sae", "ce_loss_score", "kl_div", "kl_div_score"):
            return None
        losses = self._losses(saes)
        assert self._clean is not None
        clean_CT, ablated_CT, kl_ablated_CT = self._clean
        full, short = self._mask_CT, self._mask_CT[:, :-1]
        if metric.startswith("kl_div"):
            kl_SC = torch.stack([(kl_CT * full).sum(1) for _, kl_CT in losses])
            if metric == "kl_div":
                return PairedSums(kl_SC, full.sum(1))
            return PairedSums(kl_SC, (kl_ablated_CT * full).sum(1), offset=1.0, sign=-1.0)
        if metric == "ce_loss_with_sae":
            return PairedSums(torch.stack([(ce_CT * short).sum(1) for ce_CT, _ in losses]), short.sum(1))
        delta_SC = torch.stack([((ce_CT - clean_CT) * short).sum(1) for ce_CT, _ in losses])
        if metric == "delta_ce":
            return PairedSums(delta_SC, short.sum(1))
        return PairedSums(delta_SC, ((ablated_CT - clean_CT) * short).sum(1), offset=1.0, sign=-1.0)

    def _losses(self, saes: Sequence[ExportedSAE]) -> list[tuple[Tensor, Tensor]]:
        """Return each SAE's cross-entropy [C, T-1] and KL divergence [C, T]; the clean and ablated ones are kept."""
        first_time = self._clean is None
        clean_parts: list[tuple[Tensor, Tensor, Tensor]] = []
        sae_parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in saes]
        for start in range(0, self._tokens_CT.shape[0], self._step):
            tokens = self._tokens_CT[start : start + self._step].to(self._model.device)
            mask = self._mask_CT[start : start + self._step]
            clean_logits = self._start.clean(tokens)
            if first_time:
                ablated = self._start.spliced(
                    tokens, lambda a: ablation(a, head_index=self._head_index, mean_D=self._mean_D)
                )
                clean_parts.append(
                    (_cross_entropy(clean_logits, tokens), _cross_entropy(ablated, tokens), _kl(clean_logits, ablated))
                )
            for parts, sae in zip(sae_parts, saes, strict=True):
                logits = self._start.spliced(tokens, replacement(sae, mask, head_index=self._head_index))
                parts.append((_cross_entropy(logits, tokens), _kl(clean_logits, logits)))
        if first_time:
            self._clean = tuple(torch.cat(p) for p in zip(*clean_parts, strict=True))  # type: ignore[assignment]
        return [(torch.cat([ce for ce, _ in parts]), torch.cat([kl for _, kl in parts])) for parts in sae_parts]

    def _summarise(self, ce_CT: Tensor, kl_CT: Tensor, *, spread: bool) -> dict[str, float]:
        assert self._clean is not None
        clean_CT, ablated_CT, kl_ablated_CT = self._clean
        full, short = self._mask_CT, self._mask_CT[:, :-1]  # the last position predicts nothing
        ce, clean, ablated = (float(t[short].mean()) for t in (ce_CT, clean_CT, ablated_CT))
        kl, kl_ablated = float(kl_CT[full].mean()), float(kl_ablated_CT[full].mean())
        tokens_C = short.sum(1)
        delta_C, possible_C = ((t * short).sum(1) for t in (ce_CT - clean_CT, ablated_CT - clean_CT))
        found = {
            "delta_ce": ce - clean,
            "delta_ce_stderr": ratio_stderr(delta_C, tokens_C),
            "ce_loss_with_sae": ce,
            "ce_loss_without_sae": clean,
            "ce_loss_with_ablation": ablated,
            "ce_loss_score": (ablated - ce) / (ablated - clean),
            "kl_div": kl,
            "kl_div_with_ablation": kl_ablated,
            "kl_div_score": (kl_ablated - kl) / kl_ablated,
        }
        if spread:
            kl_C, kl_ablated_C = ((t * full).sum(1) for t in (kl_CT, kl_ablated_CT))
            ce_C, clean_C, ablated_C = ((t * short).sum(1) for t in (ce_CT, clean_CT, ablated_CT))
            found |= {
                # 1 - delta / possible: the error of a ratio, whatever constant it is taken from.
                "ce_loss_score_stderr": ratio_stderr(delta_C, possible_C),
                "ce_loss_with_sae_stderr": ratio_stderr(ce_C, tokens_C),
                "ce_loss_without_sae_stderr": ratio_stderr(clean_C, tokens_C),
                "ce_loss_with_ablation_stderr": ratio_stderr(ablated_C, tokens_C),
                "kl_div_stderr": ratio_stderr(kl_C, full.sum(1)),
                "kl_div_with_ablation_stderr": ratio_stderr(kl_ablated_C, full.sum(1)),
                "kl_div_score_stderr": ratio_stderr(kl_C, kl_ablated_C),
            }
        return found

    def _difference(self, ce_CT: Tensor, first_CT: Tensor) -> dict[str, float]:
        short = self._mask_CT[:, :-1]
        difference_C, tokens_C = ((ce_CT - first_CT) * short).sum(1), short.sum(1)
        return {
            "delta_ce_minus_first": float(difference_C.sum() / tokens_C.sum()),
            "delta_ce_minus_first_stderr": ratio_stderr(difference_C, tokens_C),
        }


def _cross_entropy(logits_CTV: Tensor, tokens_CT: Tensor) -> Tensor:
    """Return the loss of predicting each next token, float64 [C, T-1]."""
    vocabulary = logits_CTV.shape[-1]
    logits_NV = logits_CTV[:, :-1].reshape(-1, vocabulary)
    target_N = tokens_CT[:, 1:].reshape(-1)
    pieces = [
        torch.nn.functional.cross_entropy(rows.float(), target, reduction="none")
        for rows, target in zip(torch.split(logits_NV, _LOGIT_ROWS), torch.split(target_N, _LOGIT_ROWS), strict=True)
    ]
    return torch.cat(pieces).double().reshape(tokens_CT.shape[0], -1).cpu()


def _kl(clean_CTV: Tensor, other_CTV: Tensor) -> Tensor:
    """Return KL(clean || other) at each position, float64 [C, T]."""
    shape = clean_CTV.shape
    clean_NV, other_NV = clean_CTV.reshape(-1, shape[-1]), other_CTV.reshape(-1, shape[-1])
    pieces = []
    for p, q in zip(torch.split(clean_NV, _LOGIT_ROWS), torch.split(other_NV, _LOGIT_ROWS), strict=True):
        log_p, log_q = p.float().log_softmax(-1), q.float().log_softmax(-1)
        pieces.append((log_p.exp() * (log_p - log_q)).sum(-1))
    return torch.cat(pieces).double().reshape(shape[:2]).cpu()
