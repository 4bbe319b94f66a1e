"""What splicing an exported SAE into the language model does to its predictions.

Cross-entropy and KL divergence with the hook's activations replaced by the SAE's reconstruction (positions that
are left out of training keep their own), against the clean model and against zero ablation. As SAELens'
`get_recons_loss` defines them; logits in fp32. A score whose ablation changes nothing is undefined: NaN.
Shape suffixes: C contexts, T positions, D = d_in, H heads, X width of what the head reads, R positions that count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from saesweep.activity import doing
from saesweep.evaluation.predictions import Scores, rows_at_once, scores
from saesweep.evaluation.spread import ByContext, PairedSums, ratio_stderr
from saesweep.models import LanguageModel, LateStart, SplitHead, replace_activations, shape_activations
from saesweep.models.base import CPU_PIECE_TOKENS, NewOutput
from saesweep.saes import ExportedSAE
from saesweep.specs import METRICS
from saesweep.specs.joint_hooks import hooks_in, is_joint

_NO_EFFECT = 1e-6
"""Nats per token: an ablation that changes less is within the rounding of float32 logits."""


def replacement(
    sae: ExportedSAE, mask_CT: Tensor, *, head_index: int | None, read: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Return the function that replaces a hook's activations where `mask_CT` is True.

    Activations are [C, T, D], or [C, T, H, D/H] at hooks with a head axis: one head, or all of them flattened.

    Args:
        sae: Gives the reconstruction.
        mask_CT: Positions to replace.
        head_index: Head to replace; None for the whole activation.
        read: What a transcoder reads, activations of another hook in the same contexts; None: those that are replaced.
    """

    def replace(acts: Tensor) -> Tensor:
        x = acts[:, :, head_index] if head_index is not None else acts.flatten(2)
        inputs = x if read is None else read.flatten(2)
        recon = sae(inputs.to(sae.device)).to(x.device, x.dtype)
        mixed = torch.where(mask_CT.to(x.device)[..., None], recon, x)
        if head_index is None:
            return mixed.reshape(acts.shape)
        out = acts.clone()
        out[:, :, head_index] = mixed
        return out

    return replace


def joint_replacement(sae: ExportedSAE, mask_CT: Tensor, read_CTD: Tensor) -> list[NewOutput]:
    """Return the functions that replace the activations of every hook that a crosscoder reads, where `mask_CT` is True.

    All reconstructions come from clean activations, those at later hooks too: what is spliced in at earlier ones does not reach
    the encoder.

    Args:
        sae: Gives the reconstructions.
        mask_CT: Positions to replace.
        read_CTD: The clean activations at all its hooks, side by side.
    """
    recon_CTD = sae(read_CTD.to(sae.device))

    def at(recon_CTP: Tensor) -> NewOutput:
        def replace(acts: Tensor) -> Tensor:
            x = acts.flatten(2)
            return torch.where(mask_CT.to(x.device)[..., None], recon_CTP.to(x.device, x.dtype), x).reshape(acts.shape)

        return replace

    return [at(part_CTP) for part_CTP in recon_CTD.chunk(sae.n_layers, dim=-1)]


def ablation(acts: Tensor, *, head_index: int | None, mean_D: Tensor | None) -> Tensor:
    """Return zeros, or the same mean vector everywhere, in place of the activations (of one head)."""
    x = shape_activations(acts, head_index)
    new = torch.zeros_like(x) if mean_D is None else mean_D.to(x.device, x.dtype).expand_as(x)
    return replace_activations(acts, new, head_index)


class SplicedMetrics:
    """Cross-entropy and KL metrics of several SAEs at one hook, over a fixed set of contexts.

    The clean forward runs once per batch for the whole cohort (once in all where memory allows), spliced ones start at the
    hook; the ablated losses are computed once and kept. Forward passes end before the head, which then runs on a few tokens
    at a time.

    Args:
        model: A language model with a head.
        tokens_CT: Held-out contexts.
        mask_CT: Positions whose activations count.
        hook: The hook whose activations are replaced; those of a crosscoder all at once.
        rung_contexts: The first so many contexts are what a rung takes; None for all.
        head_index: Head to replace; None for the whole activation.
        contexts_per_forward: Maximum number of contexts in one forward pass.
        mean_D: What the ablation puts in place of the activations; None for zeros.
        kept_bytes: Main memory for what clean passes gave, for SAEs that are measured later.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens_CT: Tensor,
        mask_CT: Tensor,
        hook: str,
        *,
        rung_contexts: int | None = None,
        head_index: int | None = None,
        contexts_per_forward: int = 32,
        mean_D: Tensor | None = None,
        kept_bytes: int = 0,
    ) -> None:
        self._mean_D = mean_D
        self._model = model
        self._tokens_CT = tokens_CT
        self._mask_CT = mask_CT
        self._hook = hook
        self._head = SplitHead(model)
        self._start = LateStart(model, hook, self._head, kept_bytes=kept_bytes)
        self._head_index = head_index
        self._max_contexts = contexts_per_forward
        self._rung_contexts = len(tokens_CT) if rung_contexts is None else rung_contexts
        self._kept_bytes = kept_bytes
        self._inputs: dict[tuple[str, int], Tensor] = {}
        """What transcoders and crosscoders read: activations, by hook and piece, as far as memory allows."""
        self._step: int | None = None
        self._clean: list[tuple[Tensor, Tensor, Tensor]] = []
        """Clean and ablated losses and the ablation's divergence, of each piece that was measured."""

    def shortcuts_off(self) -> dict[str, str]:
        """Return which shortcuts the model did not allow in the first measurement, and why."""
        reasons = {
            "forward passes that start at the hook": self._start.reason,
            "logits of a few tokens at a time": self._head.reason if self._clean else None,
        }
        return {name: reason for name, reason in reasons.items() if reason is not None}

    @torch.no_grad()
    def measure(
        self,
        saes: Sequence[ExportedSAE],
        *,
        spread: bool = False,
        paired: bool = False,
        at_rung: bool = False,
        by_context: ByContext | None = None,
        hook_in: str | None = None,
    ) -> list[dict[str, float]]:
        """Return each SAE's delta_ce, its standard error over contexts, CE and KL scores, and the losses behind them.

        Args:
            saes: Exported SAEs of this hook.
            spread: Also return the standard error of the other metrics.
            paired: Also return `delta_ce_minus_first`: the difference to the first SAE, paired over contexts, which tells
                smaller differences from noise than the two errors do.
            at_rung: Measure on the first contexts alone, as many as a rung takes.
            by_context: Takes its metric by context, where it is one that is measured here.
            hook_in: The hook that they read, where they are transcoders; the one that is replaced when left out.
        """
        losses = self._losses(saes, hook_in, at_rung=at_rung)
        found = [self._summarise(ce_CT, kl_CT, spread=spread) for ce_CT, kl_CT in losses]
        if paired:
            for metrics, (ce_CT, _) in zip(found, losses, strict=True):
                metrics.update(self._difference(ce_CT, losses[0][0]))
        if by_context is not None and METRICS[by_context.metric].needs_lm_head:
            by_context.sums = self._by_context(losses, by_context.metric)
        return found

    def _by_context(self, losses: Sequence[tuple[Tensor, Tensor]], metric: str) -> list[PairedSums] | None:
        """Return one metric of each SAE by context; None for one that is not measured here."""
        clean_CT, ablated_CT, kl_ablated_CT = self._known(len(self._mask_CT))
        full, short = self._mask_CT, self._mask_CT[:, :-1]
        kl = [(kl_CT * full).sum(1) for _, kl_CT in losses]
        ce = [(ce_CT * short).sum(1) for ce_CT, _ in losses]
        delta = [((ce_CT - clean_CT) * short).sum(1) for ce_CT, _ in losses]
        columns = {  # numerators, denominator, and whether it is a score: 1 minus their ratio
            "kl_div": (kl, full.sum(1), False),
            "kl_div_score": (kl, (kl_ablated_CT * full).sum(1), True),
            "ce_loss_with_sae": (ce, short.sum(1), False),
            "delta_ce": (delta, short.sum(1), False),
            "ce_loss_score": (delta, ((ablated_CT - clean_CT) * short).sum(1), True),
        }
        if metric not in columns:
            return None
        numerators, denominator_C, is_score = columns[metric]
        offset, sign = (1.0, -1.0) if is_score else (0.0, 1.0)
        return [PairedSums(numerator_C[None], denominator_C, offset, sign) for numerator_C in numerators]

    def _losses(
        self, saes: Sequence[ExportedSAE], hook_in: str | None, *, at_rung: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """Return each SAE's cross-entropy [C, T-1] and KL divergence [C, T]; the clean and ablated ones are kept."""
        parts: list[list[tuple[Tensor, Tensor]]] = []
        pieces = self._pieces(at_rung)
        for number, piece in enumerate(pieces):
            first_time = number == len(self._clean)
            what = "the clean model" if first_time else f"{len(saes)} SAE{'s' * (len(saes) != 1)}"
            doing(f"measuring {what} on held-out text", number, len(pieces))
            tokens_CT, mask_CT = self._tokens_CT[piece].to(self._model.device), self._mask_CT[piece]
            clean_CTX = self._start.clean(tokens_CT, number)
            spliced = [self._start.spliced(tokens_CT, self._ablated())] if first_time else []
            read = self._read(hook_in, tokens_CT, number)
            for sae in saes:
                spliced.append(self._start.spliced(tokens_CT, self._new(sae, mask_CT, read)))
            rows_CT = mask_CT.to(clean_CTX.device)
            found = scores(
                self._head,
                clean_CTX[rows_CT],
                [states_CTX[rows_CT] for states_CTX in spliced],
                tokens_CT.roll(-1, 1)[rows_CT.to(tokens_CT.device)],
            )
            (clean_CT, _), *others = [_by_context(each, mask_CT) for each in found]
            if first_time:
                (ablated_CT, kl_ablated_CT), *others = others
                self._clean.append((clean_CT, ablated_CT, kl_ablated_CT))
            parts.append(others)
        return [
            (torch.cat([loss for loss, _ in own]), torch.cat([kl for _, kl in own])) for own in zip(*parts, strict=True)
        ]

    def _new(self, sae: ExportedSAE, mask_CT: Tensor, read: Tensor | None) -> NewOutput | list[NewOutput]:
        if read is not None and is_joint(self._hook):
            return joint_replacement(sae, mask_CT, read)
        return replacement(sae, mask_CT, head_index=self._head_index, read=read)

    def _read(self, hook_in: str | None, tokens_CT: Tensor, number: int) -> Tensor | None:
        """Return what transcoders and crosscoders read in one piece; None for SAEs, which read what they replace."""
        hook_in = hook_in or self._hook
        if hook_in == self._hook and not is_joint(hook_in):
            return None
        key = (hook_in, number)
        if key in self._inputs:
            return self._inputs[key].to(self._model.device)
        found = self._model.activations(tokens_CT, [hook_in])[hook_in]
        if found.nbytes <= self._kept_bytes:
            self._kept_bytes -= found.nbytes
            self._inputs[key] = found.cpu()
        return found

    def _known(self, n_contexts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the clean and the ablated losses and the ablation's divergence of the first contexts."""
        clean_CT, ablated_CT, kl_ablated_CT = (
            torch.cat(column)[:n_contexts] for column in zip(*self._clean, strict=True)
        )
        return clean_CT, ablated_CT, kl_ablated_CT

    def _pieces(self, at_rung: bool) -> list[slice]:
        """Return the contexts of each forward pass: as few as a CPU's caches, and logits that come whole, call for."""
        if self._step is None:
            self._head.prove(self._tokens_CT.to(self._model.device), self._hook, self._ablated())
            context, step = self._tokens_CT.shape[1], self._max_contexts
            if self._model.device.type == "cpu":
                step = min(step, CPU_PIECE_TOKENS // context)
            if not self._head.is_split:
                step = min(step, rows_at_once(self._model.d_vocab, self._model.device) // context)
            self._step = max(1, step)
        few, n_contexts = self._rung_contexts, self._tokens_CT.shape[0]
        first = [slice(start, min(start + self._step, few)) for start in range(0, few, self._step)]
        if at_rung:
            return first
        return [
            *first,
            *(slice(start, min(start + self._step, n_contexts)) for start in range(few, n_contexts, self._step)),
        ]

    def _ablated(self) -> NewOutput | list[NewOutput]:
        """Return what is put in place of the hook's activations, or of those of each hook that is read together."""
        n_hooks = len(hooks_in(self._hook))
        means = [None] * n_hooks if self._mean_D is None else self._mean_D.chunk(n_hooks)
        each: list[NewOutput] = [partial(ablation, head_index=self._head_index, mean_D=mean_D) for mean_D in means]
        return each[0] if n_hooks == 1 else each

    def _summarise(self, ce_CT: Tensor, kl_CT: Tensor, *, spread: bool) -> dict[str, float]:
        clean_CT, ablated_CT, kl_ablated_CT = self._known(len(ce_CT))
        full = self._mask_CT[: len(ce_CT)]
        short = full[:, :-1]  # the last position predicts nothing
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
            "ce_loss_score": _score(ce - clean, ablated - clean),
            "kl_div": kl,
            "kl_div_with_ablation": kl_ablated,
            "kl_div_score": _score(kl, kl_ablated),
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
        short = self._mask_CT[: len(ce_CT), :-1]
        difference_C, tokens_C = ((ce_CT - first_CT) * short).sum(1), short.sum(1)
        return {
            "delta_ce_minus_first": float(difference_C.sum() / tokens_C.sum()),
            "delta_ce_minus_first_stderr": ratio_stderr(difference_C, tokens_C),
        }


def _by_context(found: Scores, mask_CT: Tensor) -> tuple[Tensor, Tensor]:
    """Return cross-entropy [C, T-1] and divergence [C, T], 0 where nothing counts."""
    both = []
    for values_R in (found.ce_R, found.kl_R):
        values_CT = torch.zeros(mask_CT.shape, dtype=torch.float64)
        values_CT[mask_CT.cpu()] = values_R
        both.append(values_CT)
    return both[0][:, :-1], both[1]


def _score(missed: float, possible: float) -> float:
    """Return which share of what the ablation costs is not lost, NaN where it costs nothing."""
    return 1 - missed / possible if abs(possible) > _NO_EFFECT else float("nan")
