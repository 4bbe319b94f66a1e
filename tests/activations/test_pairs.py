"""Neighbouring tokens that are shuffled as one: which make a pair, that none is torn, and what of a stream stays the same."""

import json
import random
from collections import Counter

import pytest
import torch

from saesweep.activations.rows import NormLimit, paired
from saesweep.activations.stream import ActivationStream

from .fakes import map_documents, numbered, packing_of, stream_of
from .test_norm_limit import SinkModel

TEXTS = numbered([37, 5, 60, 8, 19, 44, 90, 3, 71, 26] * 6)


def greedy(mask: list[bool]) -> list[bool]:
    found, t = [False] * len(mask), 0
    while t + 1 < len(mask):
        if mask[t] and mask[t + 1]:
            found[t] = found[t + 1] = True
            t += 1
        t += 1
    return found


def test_positions_are_paired_from_the_left() -> None:
    rng = random.Random(0)
    masks = [[rng.random() < share for _ in range(9)] for share in (0.3, 0.6, 0.9) for _ in range(40)]
    masks += [[True] * 9, [False] * 9]
    assert paired(torch.tensor(masks)).tolist() == [greedy(mask) for mask in masks]
    assert paired(torch.ones(3, 1, dtype=torch.bool)).tolist() == [[False]] * 3


def rows_of(stream: ActivationStream, n_batches: int) -> torch.Tensor:
    """Return (token id, position in its context) of every row."""
    return torch.cat([stream.next_batch()["ids"] for _ in range(n_batches)]).long()


@pytest.mark.parametrize("window_tokens", [60, 320, 1500])
@pytest.mark.parametrize("ahead", [False, True])
def test_no_pair_is_torn_and_every_token_is_served_once_an_epoch(window_tokens: int, ahead: bool) -> None:
    texts = numbered([16] * 120)
    stream = stream_of(map_documents(texts), window_tokens=window_tokens, passes_ahead=ahead, pairs=True)
    served: Counter[int] = Counter()
    while stream.epoch < 1:
        batch = stream.next_batch()["ids"].long()
        assert batch.shape == (24, 2)
        assert torch.equal(batch[1::2, 0], batch[0::2, 0] + 1)  # ids are numbered through
        assert torch.equal(batch[1::2, 1], batch[0::2, 1] + 1)
        served.update(batch[:, 0].tolist())
    assert stream.tokens_served == 24 * stream.batches_served
    waiting = [row for piece in stream.first_window() for row in piece["ids"][:, 0].long().tolist()]
    read = served + Counter(waiting)
    assert set(read) == {token for tokens in texts for token in tokens}
    assert max(read.values()) - min(read.values()) <= 1


def test_pairs_are_shuffled() -> None:
    rows = rows_of(stream_of(map_documents(TEXTS), pairs=True), 60)[0::2, 0]
    assert int((rows[1:] == rows[:-1] + 2).sum()) < 0.05 * len(rows)


def test_continues_bit_for_bit_and_not_as_a_stream_of_single_tokens() -> None:
    def stream(pairs: bool = True) -> ActivationStream:
        return stream_of(map_documents(TEXTS), hooks=["ids", "twice"], pairs=pairs)

    whole, states, batches = stream(), [], []
    for _ in range(120):
        states.append(json.loads(json.dumps(whole.state())))
        batches.append(whole.next_batch())
    for done in (0, 1, 7, 50, 95, 117):
        again = stream()
        again.load_state(states[done])
        for expected in batches[done : done + 3]:
            found = again.next_batch()
            assert all(torch.equal(found[hook], expected[hook]) for hook in ("ids", "twice"))
    with pytest.raises(ValueError, match="2 for pairs"):
        stream(pairs=False).load_state(states[5])


def test_a_token_without_a_neighbour_is_left_out() -> None:
    begin = packing_of(8, begin_token=999_999)
    stream = stream_of(map_documents(TEXTS), packing=begin, excluded=[999_999], pairs=True)
    rows = rows_of(stream, 40)
    assert set(rows[:, 1].tolist()) == {1, 2, 3, 4, 5, 6}  # 7 is alone
    assert torch.equal(rows[1::2, 1], rows[0::2, 1] + 1)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_norm_limit_takes_the_neighbour_along(ahead: bool) -> None:
    limit = NormLimit({"ids": 1e5})
    stream = stream_of(map_documents(TEXTS), norm_limit=limit, passes_ahead=ahead, pairs=True, model=SinkModel())
    rows = rows_of(stream, 40)
    assert not bool((rows[:, 0] % 3 == 0).any())
    assert torch.equal(rows[1::2, 1], rows[0::2, 1] + 1)
