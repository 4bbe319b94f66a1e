"""What the run's data fields mean for packing, rows and widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saesweep.activations.encoding import check_chat_template, check_embedded, excluded_tokens, special_token
from saesweep.activations.packing import Packing
from saesweep.activations.rows import RowFilter
from saesweep.specs.synthetic import DEFAULT_D_IN

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun


def token_settings(run: BaseRun, tokenizer: Any, is_tokenized: bool, n_token_ids: int) -> tuple[Packing, RowFilter]:
    """Return how documents are packed and which positions count, with SAELens' meaning of the run's fields.

    Args:
        run: The base run.
        tokenizer: The model's.
        is_tokenized: Whether documents are token ids already.
        n_token_ids: Rows of the model's token embedding.

    Raises:
        UserError: Special tokens are to be left out and the tokenizer has none; chat formatting without a template; a
            token that contexts begin with or documents are separated by is beyond the embedding.
    """
    check_chat_template(run, tokenizer)
    packing = Packing(
        context_size=run.context_size,
        begin_token=special_token(tokenizer, "bos") if run.prepend_bos else None,
        separator_token=special_token(tokenizer, run.sequence_separator_token),
        concatenate=not run.disable_concat_sequences,
        is_tokenized=is_tokenized,
        n_token_ids=n_token_ids,
    )
    if not is_tokenized:
        check_embedded(tokenizer, packing.begin_token, n_token_ids, "prepend_bos")
        check_embedded(tokenizer, packing.separator_token, n_token_ids, "sequence_separator_token")
    rows = RowFilter(
        context_size=run.context_size,
        seqpos_slice=run.seqpos_slice,
        excluded=excluded_tokens(run, tokenizer),
    )
    return packing, rows


def synthetic_d_in(run: BaseRun) -> int:
    """Width of synthetic activations: `sae.d_in`, or 64."""
    return DEFAULT_D_IN if run.sae.d_in is None else run.sae.d_in
