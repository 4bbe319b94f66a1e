"""The sequence of contexts: order of epochs, resuming, and the split into three parts."""

import gc
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from saesweep.activations.documents import Documents
from saesweep.activations.split import READ_DOCUMENTS, TrainDocuments, split_documents
from saesweep.activations.texts import Text
from saesweep.activations.tokens import AHEAD_CONTEXTS, TokenSource
from saesweep.errors import UserError

from .fakes import TOKENS_PER_DOCUMENT, map_documents, numbered, packing_of, stream_documents

LENGTHS = [5, 17, 1, 40, 9, 23, 8, 8, 30, 2, 11, 19]


def source_of(documents: Documents, seed: int = 3, first: int = 0) -> TokenSource:
    return TokenSource(TrainDocuments(documents, seed, first), None, packing_of(8))


@pytest.mark.parametrize("kind", [map_documents, stream_documents])
def test_continues_at_every_context_for_three_epochs(kind: type) -> None:
    documents = kind(numbered(LENGTHS))
    whole = source_of(documents)
    states, contexts = [], []
    while whole.epoch < 3:
        states.append(json.loads(json.dumps(whole.state())))
        contexts += whole.take(1)
    for done, state in enumerate(states[:-5]):
        again = source_of(documents)
        again.load_state(state)
        assert again.take(5) == contexts[done : done + 5]


def test_each_epoch_reads_every_document_in_another_order() -> None:
    texts = numbered([8] * 50)
    source = source_of(map_documents(texts))
    epochs = [source.take(50) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != sorted(epochs[0])
    assert all(sorted(epoch) == texts for epoch in epochs)
    assert source_of(map_documents(texts), seed=4).take(50) != epochs[0]


def test_a_stream_is_reshuffled_each_epoch_and_leaves_out_what_is_held_out() -> None:
    texts = numbered([8] * 50)
    epochs = [source_of(stream_documents(texts), first=2).take(48 * 2)[part : part + 48] for part in (0, 48)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert epoch != texts[2:]
        assert sorted(epoch) == texts[2:]


def test_a_long_stream_is_shuffled_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saesweep.activations.split.SHUFFLE_DOCUMENTS", 10)
    texts = numbered([8] * 25)
    order = TrainDocuments(stream_documents(texts), 3, 2)
    epoch = list(order.iterate(0, 0))
    assert epoch != texts[2:]
    assert [sorted(epoch[start : start + 10]) for start in (0, 10, 20)] == [texts[2:12], texts[12:22], texts[22:]]
    for start in range(24):
        assert list(order.iterate(0, start)) == epoch[start:]


def test_data_that_fills_no_context_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(UserError, match="does not fill one context of 8 tokens"):
        source_of(map_documents(numbered([3, 4]))).take(1)


@pytest.mark.parametrize("kind", [map_documents, stream_documents])
def test_held_out_documents_are_in_one_part_only(kind: type) -> None:
    texts = numbered(LENGTHS * 6)
    split = split_documents([Text(kind(texts), packing_of(8))], None, select_tokens=60, test_tokens=100, seed=5)
    assert split.select_NT.shape == (8, 8)  # the fewest contexts with 60 tokens
    assert split.test_NT.shape == (13, 8)
    assert split.select_NT.dtype == torch.int64
    source = TokenSource(split.train[0], None, packing_of(8))
    train: set[int] = set()
    while source.epoch < 3:  # a later epoch's order must not bring held-out documents back
        train.update(token // TOKENS_PER_DOCUMENT for token in source.take(1)[0])
    select, test = (set((part // TOKENS_PER_DOCUMENT).flatten().tolist()) for part in (split.select_NT, split.test_NT))
    assert not select & test
    assert not (select | test) & train
    assert len(train) > len(texts) / 2


def test_the_split_depends_on_the_seed_alone() -> None:
    documents = Text(map_documents(numbered(LENGTHS * 6)), packing_of(8))

    def select(seed: int) -> torch.Tensor:
        return split_documents([documents], None, select_tokens=60, test_tokens=60, seed=seed).select_NT

    assert torch.equal(select(1), select(1))
    assert not torch.equal(select(1), select(2))


@pytest.mark.parametrize(
    ("select_tokens", "test_tokens", "said"),
    [
        (10_000, 10, r"evaluation.select_tokens: numbers ends after 12 documents \(173 tokens\)"),
        (10, 10_000, "evaluation.test_tokens: numbers ends after 12 documents"),
    ],
)
@pytest.mark.parametrize("kind", [map_documents, stream_documents])
def test_too_little_data_for_the_held_out_parts(kind: type, select_tokens: int, test_tokens: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        split_documents(
            [Text(kind(numbered(LENGTHS)), packing_of(8))],
            None,
            select_tokens=select_tokens,
            test_tokens=test_tokens,
            seed=0,
        )


def test_one_endless_document_is_to_be_split() -> None:
    with pytest.raises(
        UserError, match=r"ends after 1 documents \(5000 tokens\).* split its documents: each goes to one"
    ):
        split_documents(
            [Text(map_documents(numbered([5000])), packing_of(8))], None, select_tokens=8, test_tokens=8, seed=0
        )


def test_held_out_parts_that_leave_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="take all 2 documents"):
        split_documents(
            [Text(map_documents(numbered([8, 8])), packing_of(8))], None, select_tokens=8, test_tokens=8, seed=0
        )


class LetterTokenizer:
    """A token per letter; notes the threads that it runs on."""

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.texts = 0

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        self.threads.add(threading.current_thread().name)
        self.texts += len(texts)
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def token_threads() -> int:
    return sum(thread.name == "saesweep-tokens" for thread in threading.enumerate())


def test_tokenising_is_batched_off_the_reader_s_thread_and_bounded() -> None:
    gc.collect()  # sources of other tests
    before, tokenizer = token_threads(), LetterTokenizer()
    documents = map_documents(["abcdefgh"] * 5000)
    source = TokenSource(TrainDocuments(documents, 0, 0), tokenizer, packing_of(8))
    assert source.take(3) == [[ord(letter) for letter in "abcdefgh"]] * 3
    assert tokenizer.threads == {"saesweep-tokens"}
    assert token_threads() == before + 1
    source.close()
    assert token_threads() == before
    assert tokenizer.texts <= AHEAD_CONTEXTS + 3 + READ_DOCUMENTS
    assert source.take(1) == [[ord(letter) for letter in "abcdefgh"]]  # resumes where it was
    assert source.state()["document"] == 3
    del source
    gc.collect()
    assert token_threads() == before
