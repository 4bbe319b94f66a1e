"""From a model and documents to the stream and the held-out parts: what every source that computes rows has in common."""

# Shape suffix legend: N = contexts, T = tokens per context

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saesweep.activations.held_out import HeldOutActivations
from saesweep.activations.mixture import MixedSource
from saesweep.activations.rows import NormLimit, RowFilter
from saesweep.activations.split import Split, split_documents
from saesweep.activations.stream import ActivationStream
from saesweep.activations.texts import Text
from saesweep.activations.tokens import ContextSource, TokenSource
from saesweep.models.base import LanguageModel
from saesweep.models.device import resolve_device

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec


@dataclass(frozen=True, kw_only=True)
class LiveParts:
    """What training and evaluation read."""

    stream: ActivationStream
    select: HeldOutActivations
    test: HeldOutActivations


def open_live(
    run: BaseRun,
    evaluation: EvaluationSpec,
    *,
    model: LanguageModel,
    d_in: Mapping[str, int],
    head_index: int | None,
    texts: Sequence[Text],
    rows: RowFilter,
    held_out: Text | None = None,
) -> LiveParts:
    """Split the documents and prepare the stream; the first batch asked for runs the model.

    Args:
        run: The base run.
        evaluation: Sizes of the held-out parts.
        model: Gives the rows, and has the tokenizer.
        d_in: The hooks and their widths.
        head_index: The head to keep at hooks with a head axis.
        texts: The datasets.
        rows: Which positions count.
        held_out: Another dataset that both held-out parts are taken from.

    Raises:
        UserError: The dataset is too small, or a device is not there.
    """
    device = resolve_device(run.device)
    store = run.act_store_device
    split = split_documents(
        texts,
        model.tokenizer,
        select_tokens=evaluation.select_tokens,
        test_tokens=evaluation.test_tokens,
        seed=run.seed,
        held_out=held_out,
    )
    norm_limit = None
    if run.max_activation_norm_multiple is not None:
        norm_limit = NormLimit.measure(
            run.max_activation_norm_multiple,
            model=model,
            hooks=list(d_in),
            head_index=head_index,
            rows=rows,
            tokens_NT=split.select_NT[: run.store_batch_size_prompts],
        )
    stream = ActivationStream(
        model=model,
        d_in=d_in,
        head_index=head_index,
        source=_source(split, texts, model, run),
        rows=rows,
        window_tokens=run.window_tokens,
        batch_tokens=run.train_batch_size_tokens,
        forward_contexts=run.store_batch_size_prompts,
        seed=run.seed,
        dtype=getattr(torch, run.dtype),
        device=device,
        store_device=device if store is None else resolve_device(store, place="base.act_store_device"),
        norm_limit=norm_limit,
        passes_ahead=run.prefetch_llm_batches,
        pairs=run.neighbour_pairs,
    )

    def part(tokens_NT: Tensor) -> HeldOutActivations:
        return HeldOutActivations(
            model=model,
            hooks=list(d_in),
            head_index=head_index,
            tokens_NT=tokens_NT,
            rows=rows,
            forward_contexts=run.eval_batch_size_prompts or run.store_batch_size_prompts,
            batch_tokens=run.train_batch_size_tokens,
            device=device,
            norm_limit=norm_limit,
        )

    return LiveParts(stream=stream, select=part(split.select_NT), test=part(split.test_NT))


def _source(split: Split, texts: Sequence[Text], model: LanguageModel, run: BaseRun) -> ContextSource:
    sources = [
        TokenSource(train, model.tokenizer, text.packing) for train, text in zip(split.train, texts, strict=True)
    ]
    return sources[0] if len(sources) == 1 else MixedSource(sources, [text.share for text in texts], run.context_size)
