"""Packing: what SAELens' concat_and_batch_sequences gives, and resuming inside a document."""

import random
from typing import Any

import pytest

from saesweep.activations.packing import Packer, Packing

from .fakes import packing_of

BOS, SEP = 0, 1
DOCUMENTS = [[7, 8, 9, 10], [BOS, 5, 6], [2], [SEP, 3, 4, 2, 5]]


def pack(packing: Packing, documents: list[list[int]]) -> list[list[int]]:
    packer = Packer(packing)
    return [context for tokens in documents for context, _ in packer.pack(tokens)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # Written down from SAELens 6.54's own output for these documents, context 4.
        ({}, [[7, 8, 9, 10], [0, 5, 6, 2], [1, 3, 4, 2]]),
        ({"begin_token": BOS}, [[0, 7, 8, 9], [0, 10, 0, 5], [0, 6, 2, 1], [0, 3, 4, 2]]),
        ({"begin_token": BOS, "separator_token": BOS}, [[0, 7, 8, 9], [0, 10, 0, 5], [0, 6, 0, 2], [0, 1, 3, 4]]),
        ({"separator_token": SEP}, [[7, 8, 9, 10], [0, 5, 6, 1], [2, 1, 3, 4]]),
        ({"begin_token": BOS, "concatenate": False}, [[0, 7, 8, 9], [0, 1, 3, 4]]),
        ({"concatenate": False}, [[7, 8, 9, 10], [1, 3, 4, 2]]),
    ],
)
def test_packs_as_sae_lens(fields: dict[str, Any], expected: list[list[int]]) -> None:
    assert pack(packing_of(4, **fields), DOCUMENTS) == expected


def test_any_context_is_a_place_to_resume() -> None:
    for trial in range(200):
        rng = random.Random(trial)
        packing = packing_of(
            rng.randint(2, 9),
            begin_token=rng.choice([None, BOS]),
            separator_token=rng.choice([None, BOS, SEP]),
            concatenate=rng.random() < 0.7,
        )
        documents = [[rng.randint(0, 5) for _ in range(rng.randint(0, 25))] for _ in range(8)]
        whole = pack(packing, documents)
        packer, positions = Packer(packing), []
        for number, tokens in enumerate(documents):
            positions += [(number, offset) for _, offset in packer.pack(tokens)]
        for done, (number, offset) in enumerate(positions, start=1):
            again = Packer(packing)
            rest = [context for context, _ in again.pack(documents[number], offset)]
            rest += [context for tokens in documents[number + 1 :] for context, _ in again.pack(tokens)]
            assert rest == whole[done:]


def test_tokenised_rows_are_cut_into_contexts_and_nothing_is_added() -> None:
    packing = packing_of(3, is_tokenized=True, begin_token=BOS, separator_token=SEP)
    assert pack(packing, [[4, 5, 6, 7, 8, 9, 2], [3, 3, 3]]) == [[4, 5, 6], [7, 8, 9], [3, 3, 3]]
    assert pack(packing, [[4, 5]]) == []
