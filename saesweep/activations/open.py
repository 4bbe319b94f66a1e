"""From a run to its activations: the stream to train on, the held-out parts, and the model behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from saesweep.activations.held_out import HeldOut
from saesweep.activations.live import open_live
from saesweep.activations.settings import synthetic_d_in
from saesweep.activations.stream import BatchStream
from saesweep.activations.synthetic import SyntheticFeatures, SyntheticHeldOut, SyntheticStream
from saesweep.activations.texts import held_out_text, packed, training_texts
from saesweep.errors import UserError
from saesweep.models.base import LanguageModel
from saesweep.models.device import resolve_device
from saesweep.models.load import inspect_model, load_model

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec


@dataclass(frozen=True, kw_only=True)
class ActivationSource:
    """Everything that training and evaluation read."""

    stream: BatchStream
    """Training batches."""
    select: HeldOut
    """The held-out part that rungs and the ranking use."""
    test: HeldOut
    """The held-out part that is read once."""
    model: LanguageModel | None
    """The language model; None for synthetic activations."""

    def close(self) -> None:
        """Give the memory of the stream back."""
        self.stream.close()


def open_source(
    run: BaseRun,
    evaluation: EvaluationSpec,
    hooks: Sequence[str],
    *,
    with_model: bool = True,
    model: LanguageModel | None = None,
) -> ActivationSource:
    """Load the model, split the dataset and prepare the stream; the first batch asked for runs the model.

    Args:
        run: The base run.
        evaluation: Sizes of the held-out parts.
        hooks: Hook names; all of them come from one forward pass.
        with_model: Load the language model even where the activations are cached.
        model: The language model where it is loaded already.

    Raises:
        UserError: The model, a hook or the dataset cannot be had, the dataset is too small, or `sae.d_in` is not the
            width at a hook.
    """
    device = resolve_device(run.device)
    if run.is_synthetic:
        return _open_synthetic(run, evaluation, hooks, device)
    if run.use_cached_activations:
        return _open_cached(run, evaluation, hooks, with_model, model)
    facts = inspect_model(run, hooks)
    opened = [(named.share, named.open(facts.n_token_ids)) for named in training_texts(run)]
    model = load_model(run) if model is None else model
    texts, rows = packed(run, model.tokenizer, opened, facts.n_token_ids)
    held_out = None
    if (held_out_source := held_out_text(run, evaluation)) is not None:
        (held_out,), _ = packed(
            run, model.tokenizer, [(1.0, held_out_source.open(facts.n_token_ids))], facts.n_token_ids
        )
    parts = open_live(
        run,
        evaluation,
        model=model,
        d_in=facts.hooks,
        head_index=run.hook_head_index,
        texts=texts,
        rows=rows,
        held_out=held_out,
    )
    return ActivationSource(stream=parts.stream, select=parts.select, test=parts.test, model=model)


def _open_cached(
    run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str], with_model: bool, model: LanguageModel | None
) -> ActivationSource:
    from saesweep.activations.cache.open import open_cache

    parts = open_cache(run, evaluation, hooks)
    if with_model and not parts.has_tokens:
        if evaluation.probes is not None:
            raise UserError(
                "evaluation.probes: the language model is loaded for them, and cross-entropy is then measured too, but this cache "
                "of activations has no token ids for it; leave probes out, or use a cache written by `saesweep cache-activations`"
            )
        raise UserError(
            "objective: this cache of activations has no token ids to measure cross-entropy with; use "
            "explained_variance, or a cache written by `saesweep cache-activations`"
        )
    if with_model and model is None:
        model = load_model(run)
    return ActivationSource(
        stream=parts.stream, select=parts.select, test=parts.test, model=model if with_model else None
    )


def _open_synthetic(
    run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str], device: torch.device
) -> ActivationSource:
    features = SyntheticFeatures(synthetic_d_in(run), run.seed, run.synthetic)
    batch_tokens = run.train_batch_size_tokens

    def held_out(part: str, n_tokens: int) -> SyntheticHeldOut:
        return SyntheticHeldOut(
            features=features, part=part, n_tokens=n_tokens, batch_tokens=batch_tokens, seed=run.seed, device=device
        )

    stream = SyntheticStream(
        features=features,
        hooks=hooks,
        window_tokens=run.window_tokens,
        batch_tokens=batch_tokens,
        seed=run.seed,
        dtype=getattr(torch, run.dtype),
        device=device,
    )
    return ActivationSource(
        stream=stream,
        select=held_out("select", evaluation.select_tokens),
        test=held_out("test", evaluation.test_tokens),
        model=None,
    )
