"""The datasets of a run, opened: one, or those of a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saesweep.activations.documents import BASE, HELD_OUT, Documents, open_documents
from saesweep.activations.packing import Packing
from saesweep.activations.rows import RowFilter
from saesweep.activations.settings import token_settings

if TYPE_CHECKING:
    from saesweep.specs.base_run import BaseRun
    from saesweep.specs.experiment import EvaluationSpec


@dataclass(frozen=True)
class Text:
    """One dataset of a run."""

    documents: Documents
    packing: Packing
    """How its documents become contexts."""
    share: float = 1.0
    """Its share of the tokens; the shares of a run sum to 1."""


@dataclass(frozen=True)
class Named:
    """One dataset of a run, not opened yet."""

    run: BaseRun
    """The run with this dataset alone."""
    share: float
    """Its share of the tokens."""
    block: str
    """What its fields are named after in messages: `base.`, `base.datasets[1].` or `evaluation.dataset.`."""

    def open(self, n_token_ids: int) -> Documents:
        """Open its documents.

        Raises:
            UserError: As `open_documents`.
        """
        return open_documents(self.run, n_token_ids=n_token_ids, block=self.block)


def training_texts(run: BaseRun) -> Iterator[Named]:
    """Yield the datasets that a run trains on, in the order of the file."""
    for index, (share, own) in enumerate(run.by_dataset):
        yield Named(own, share, f"base.datasets[{index}]." if run.datasets else BASE)


def held_out_text(run: BaseRun, evaluation: EvaluationSpec) -> Named | None:
    """Return the dataset that both held-out parts are taken from; None where they are split off those that train."""
    return None if evaluation.dataset is None else Named(evaluation.text_of(run), 1.0, HELD_OUT)


def packed(
    run: BaseRun, tokenizer: Any, opened: list[tuple[float, Documents]], n_token_ids: int
) -> tuple[list[Text], RowFilter]:
    """Return opened datasets, each with its share, with how they are packed and which positions count.

    Raises:
        UserError: As `token_settings`.
    """
    settings = [token_settings(run, tokenizer, documents.is_tokenized, n_token_ids) for _, documents in opened]
    texts = [Text(documents, own, share) for (share, documents), (own, _) in zip(opened, settings, strict=True)]
    return texts, settings[0][1]
