"""Checks of a run's model and data before any training: configuration, tokenizer, first documents; no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from saesweep.activations.columns import Conversation, Document
from saesweep.activations.documents import Documents, MapDocuments
from saesweep.activations.encoding import BEYOND_EMBEDDING, encode_documents, note_refused
from saesweep.activations.keys import key_permutation
from saesweep.activations.packing import Packer, no_document_is_long_enough
from saesweep.activations.pretokenize.metadata import check_vocabulary
from saesweep.activations.settings import synthetic_d_in, token_settings
from saesweep.activations.texts import Named, held_out_text, training_texts
from saesweep.activity import doing
from saesweep.errors import UserError
from saesweep.models.device import resolve_device, slow_half_precision
from saesweep.models.inspection import ModelFacts, inspect_model
from saesweep.models.library import locate
from saesweep.models.pretrained import loading_kwargs, read_tokenizer

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec

_SAMPLE_DOCUMENTS = 256
"""Documents looked at to estimate the number of tokens."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What is known about a run's model and data before training."""

    model: ModelFacts | None
    """The language model; None for synthetic or cached activations."""
    d_in: dict[str, int]
    """Width of the activations at every hook."""
    warnings: tuple[str, ...]
    """What the user should know, and may well want."""


def check_source(
    run: BaseRun, evaluation: EvaluationSpec, hooks: Sequence[str], *, training_tokens: int, offline: bool = False
) -> SourceFacts:
    """Inspect the model, read the first documents, find their column, tokenise and pack them, and compare sizes.

    Args:
        run: The base run.
        evaluation: Sizes of the held-out parts.
        hooks: Hook names.
        training_tokens: Rows that the longest trial trains on.
        offline: Look for a Hub model in the local cache only.

    Raises:
        UserError: The model or dataset cannot be had or used, a hook does not exist, `context_size` is beyond the
            model, or the dataset is too small for the held-out parts.
    """
    if run.is_synthetic:
        return SourceFacts(model=None, d_in=dict.fromkeys(hooks, synthetic_d_in(run)), warnings=())
    if run.use_cached_activations:
        from saesweep.activations.cache.open import check_cache

        cache = check_cache(run, evaluation, hooks, training_tokens=training_tokens)
        return SourceFacts(model=None, d_in=cache.d_in, warnings=cache.warnings)
    doing(f"checking {run.model_name} and its hooks")
    model = inspect_model(run, hooks, offline=offline)
    tokenizer = read_tokenizer(locate(run), loading_kwargs(run.model_from_pretrained_kwargs), offline=offline)
    warnings = []
    # A device that is named may be another machine's; what is chosen here is here.
    slow = slow_half_precision(model, resolve_device("auto").type if run.device == "auto" else run.device)
    if slow is not None:
        warnings.append(slow)
    inspected = []
    for named in training_texts(run):
        text = _inspect_text(named, tokenizer, model.n_token_ids)
        inspected.append(text)
        warnings += [*text.warnings, *_compare_sizes(named, text, evaluation, training_tokens)]
    if (
        run.prepend_bos
        and tokenizer.bos_token_id is None
        and not all(text.documents.is_tokenized for text in inspected)
    ):
        warnings.append("base.prepend_bos: the tokenizer has no BOS token, so contexts begin without one")
    if (held_out_source := held_out_text(run, evaluation)) is not None:
        warnings += _check_held_out(held_out_source, evaluation, tokenizer, model.n_token_ids)
    return SourceFacts(model=model, d_in=model.hooks, warnings=tuple(warnings))


@dataclass(frozen=True)
class _TextFacts:
    """What the first documents of a dataset show."""

    documents: Documents
    tokens: int | None
    """Tokens in the dataset, estimated; None where its size is not known."""
    rows_per_context: int
    warnings: list[str]


def _inspect_text(named: Named, tokenizer: Any, n_token_ids: int) -> _TextFacts:
    """Read, tokenise and pack the first documents of a dataset.

    Raises:
        UserError: It cannot be had or used.
    """
    run = named.run
    doing(f"checking {run.dataset_path}")
    documents = named.open(n_token_ids)
    warnings = list(documents.notes)
    if documents.is_tokenized:
        warnings += check_vocabulary(run, tokenizer, named.block)
    packing, rows = token_settings(run, tokenizer, documents.is_tokenized, n_token_ids)
    sample = _encoded_sample(documents, tokenizer, run.seed, n_token_ids)
    documents.unreadable.check_sample(len(sample))
    packer = Packer(packing)
    contexts = sum(1 for tokens in sample for _ in packer.pack(tokens))
    is_whole = isinstance(documents, MapDocuments) and len(sample) == documents.size
    if contexts == 0 and not packing.concatenate and not documents.is_tokenized:
        # As with rows that cannot be used, a sample is enough: what hardly any document fills gives no dataset.
        name = documents.name if is_whole else f"the {len(sample)} of {documents.name} looked at"
        raise UserError(no_document_is_long_enough(name, run.context_size))
    if contexts == 0 and is_whole:
        raise UserError(
            f"base.context_size: {documents.name} does not fill one context of {run.context_size} tokens; "
            "lower context_size or use a larger dataset"
        )
    if documents.unreadable.count:
        warnings.append(documents.unreadable.sample_warning(len(sample)))
    return _TextFacts(documents, _estimate(documents, sample), rows.rows_per_context, warnings)


def _estimate(documents: Documents, sample: Sequence[Sequence[int]]) -> int | None:
    """Return the tokens in a dataset, from a sample of its documents; None where their number is not known."""
    return round(sum(map(len, sample)) * documents.size / len(sample)) if isinstance(documents, MapDocuments) else None


def _compare_sizes(named: Named, text: _TextFacts, evaluation: EvaluationSpec, training_tokens: int) -> list[str]:
    """Return what to say where a dataset is read several times to give its share of the training.

    Raises:
        UserError: It is too small for the held-out parts.
    """
    if text.tokens is None:
        return []
    name, share = text.documents.name, "" if named.share == 1 else f"its share of {named.share:.3g} of "
    held_out = 0
    if evaluation.dataset is None:
        held_out = round(named.share * (evaluation.select_tokens + evaluation.test_tokens))
    if text.tokens <= held_out:
        raise UserError(
            f"evaluation: {name} has about {text.tokens} tokens, not more than {share}select_tokens "
            f"({evaluation.select_tokens}) and test_tokens ({evaluation.test_tokens}) together, and training needs "
            "the rest; lower them or use a larger dataset"
        )
    per_epoch = round((text.tokens - held_out) * text.rows_per_context / named.run.context_size)
    required = round(named.share * training_tokens)
    if per_epoch >= required:
        return []
    return [
        f"base.training_tokens: {name} has about {per_epoch} activations to train on, so {share}{training_tokens} take "
        f"about {required / max(1, per_epoch):.1f} epochs"
    ]


def _check_held_out(held_out_source: Named, evaluation: EvaluationSpec, tokenizer: Any, n_token_ids: int) -> list[str]:
    """Refuse a dataset of the held-out parts that cannot be read, or is too small for them; return what to know of it."""
    doing(f"checking {held_out_source.run.dataset_path}")
    documents = held_out_source.open(n_token_ids)
    warnings = list(documents.notes)
    sample = _encoded_sample(documents, tokenizer, held_out_source.run.seed, n_token_ids)
    documents.unreadable.check_sample(len(sample))
    if documents.unreadable.count:
        warnings.append(documents.unreadable.sample_warning(len(sample)))
    estimate = _estimate(documents, sample)
    if estimate is not None and estimate < (needed := evaluation.select_tokens + evaluation.test_tokens):
        raise UserError(
            f"evaluation.dataset: {documents.name} has about {estimate} tokens, fewer than the {needed} of select_tokens and "
            "test_tokens together; lower them or use a larger dataset"
        )
    return warnings


def _sample(documents: Documents, seed: int) -> list[Document]:
    if isinstance(documents, MapDocuments):
        order = key_permutation(documents.size, seed, "split")
        return documents.read(order[:_SAMPLE_DOCUMENTS].tolist())
    return list(islice(documents.iterate(0), _SAMPLE_DOCUMENTS))


def _encoded_sample(documents: Documents, tokenizer: Any, seed: int, n_token_ids: int) -> list[list[int]]:
    """Return the token ids of the first documents.

    Raises:
        UserError: The model's own tokenizer gives an id that the model has no embedding for: later in the run such a
            document is left out, but where a sample has one, what is left out is no accident.
    """
    count = note_refused(documents.unreadable)

    def refused(document: str | Conversation, reason: str) -> None:
        if reason.startswith(BEYOND_EMBEDDING):
            raise UserError(f"base.model_name: {reason}")
        count(document, reason)

    return encode_documents(tokenizer, _sample(documents, seed), refused, n_token_ids=n_token_ids)
