"""A model whose activation is (token id, position), and documents in which every token id occurs once."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.activations.columns import Document
from saesweep.activations.documents import MapDocuments, StreamDocuments
from saesweep.activations.packing import Packing
from saesweep.activations.rows import NormLimit, RowFilter
from saesweep.activations.split import TrainDocuments
from saesweep.activations.stream import ActivationStream
from saesweep.activations.tokens import ContextSource, TokenSource
from saesweep.models import LanguageModel
from saesweep.models.base import Splice

TOKENS_PER_DOCUMENT = 1000  # token id = document * this + place: every token of the dataset is another one


class EchoModel(LanguageModel):
    """At hook `ids` the token id and the position, at hook `twice` both doubled and a third column."""

    def __init__(self) -> None:
        super().__init__(autocast=False)
        self.tokenizer: Any = None
        self.device = torch.device("cpu")
        self.d_vocab = 1
        self.has_lm_head = False
        self.forwards: list[tuple[int, tuple[str, ...]]] = []

    def hook_names(self) -> list[str]:
        return ["ids", "twice"]

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        self.forwards.append((len(tokens_NT), tuple(hooks)))
        with self._forward_pass():
            position_NT = torch.arange(tokens_NT.shape[1]).expand_as(tokens_NT)
            ids_NTD = torch.stack([tokens_NT, position_NT], dim=-1).float()
            twice_NTD = torch.cat([2 * ids_NTD, torch.ones_like(ids_NTD[..., :1])], dim=-1)
            return {hook: {"ids": ids_NTD, "twice": twice_NTD}[hook] for hook in hooks}

    def hook_shapes(self, tokens_NT: Tensor) -> dict[str, tuple[int, ...] | None]:
        raise NotImplementedError

    def logits(self, tokens_NT: Tensor, *, replace: Splice | None = None) -> Tensor:
        raise NotImplementedError


def numbered(lengths: Sequence[int]) -> list[Document]:
    """Documents of these lengths; no token id occurs twice."""
    return [
        list(range(number * TOKENS_PER_DOCUMENT, number * TOKENS_PER_DOCUMENT + length))
        for number, length in enumerate(lengths)
    ]


def map_documents(texts: Sequence[Document], *, is_tokenized: bool = False) -> MapDocuments:
    return MapDocuments(
        name="numbers",
        size=len(texts),
        read=lambda indices: [texts[index] for index in indices],
        is_tokenized=is_tokenized,
    )


def stream_documents(texts: Sequence[Document]) -> StreamDocuments:
    def iterate(start: int) -> Iterator[Document]:
        yield from texts[start:]

    return StreamDocuments(name="numbers", iterate=iterate, is_tokenized=False)


def packing_of(context_size: int, **fields: Any) -> Packing:
    values = {"begin_token": None, "separator_token": None, "concatenate": True, "is_tokenized": False, **fields}
    return Packing(context_size=context_size, **values)


def stream_of(
    documents: MapDocuments | StreamDocuments,
    *,
    seed: int = 0,
    first: int = 0,
    context_size: int = 8,
    window_tokens: int = 320,
    batch_tokens: int = 24,
    forward_contexts: int = 3,
    model: EchoModel | None = None,
    hooks: Sequence[str] = ("ids",),
    dtype: torch.dtype = torch.float32,
    seqpos_slice: tuple[int | None, ...] = (None,),
    excluded: Sequence[int] = (),
    packing: Packing | None = None,
    norm_limit: NormLimit | None = None,
    passes_ahead: bool | int = False,
    source: ContextSource | None = None,
    pairs: bool = False,
) -> ActivationStream:
    return ActivationStream(
        model=model or EchoModel(),
        d_in={hook: {"ids": 2, "twice": 3}[hook] for hook in hooks},
        head_index=None,
        source=source or TokenSource(TrainDocuments(documents, seed, first), None, packing or packing_of(context_size)),
        rows=RowFilter(context_size=context_size, seqpos_slice=seqpos_slice, excluded=excluded),
        window_tokens=window_tokens,
        batch_tokens=batch_tokens,
        forward_contexts=forward_contexts,
        seed=seed,
        dtype=dtype,
        device=torch.device("cpu"),
        store_device=torch.device("cpu"),
        norm_limit=norm_limit,
        passes_ahead=passes_ahead,
        pairs=pairs,
    )


def ids_of(stream: ActivationStream, n_batches: int) -> list[int]:
    """Token ids of the next batches, in order."""
    return torch.cat([stream.next_batch()["ids"][:, 0] for _ in range(n_batches)]).long().tolist()
