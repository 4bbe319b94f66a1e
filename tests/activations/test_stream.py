"""The shuffled stream: deterministic, resumable, complete, well mixed, within its memory."""

import json
from collections import Counter
from itertools import combinations

import pytest
import torch

from saesweep.activations.stream import ActivationStream
from saesweep.errors import UserError

from .fakes import EchoModel, ids_of, map_documents, numbered, packing_of, stream_documents, stream_of

TEXTS = numbered([37, 5, 60, 8, 19, 44, 90, 3, 71, 26] * 6)  # 2,178 tokens: about 90 batches of 24 an epoch


@pytest.mark.parametrize("kind", [map_documents, stream_documents])
def test_the_same_seed_gives_the_same_batches(kind: type) -> None:
    a, b, other = (ids_of(stream_of(kind(TEXTS), seed=seed), 40) for seed in (1, 1, 2))
    assert a == b
    assert a != other


@pytest.mark.parametrize("kind", [map_documents, stream_documents])
@pytest.mark.parametrize("window_tokens", [60, 320, 1500])
def test_continues_bit_for_bit_wherever_it_stopped(kind: type, window_tokens: int) -> None:
    n_batches = 200  # more than two epochs
    whole = stream_of(kind(TEXTS), window_tokens=window_tokens, hooks=["ids", "twice"])
    states, batches = [], []
    for _ in range(n_batches):
        states.append(json.loads(json.dumps(whole.state())))
        batches.append(whole.next_batch())
    assert whole.epoch >= 1
    for done in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, *range(80, 100), 144, 180, n_batches - 3]:
        again = stream_of(kind(TEXTS), window_tokens=window_tokens, hooks=["ids", "twice"])
        again.load_state(states[done])
        assert again.state() == states[done]
        for expected in batches[done : done + 3]:
            found = again.next_batch()
            assert all(torch.equal(found[hook], expected[hook]) for hook in ("ids", "twice"))
        assert again.state() == (states[done + 3] if done + 3 < n_batches else whole.state())
        assert again.tokens_served == 24 * again.batches_served == 24 * (done + 3)


def test_a_stream_in_use_can_be_set_back() -> None:
    stream = stream_of(map_documents(TEXTS))
    ids_of(stream, 7)
    state = stream.state()
    expected = ids_of(stream, 30)
    for _ in range(20):  # would run out of rows if old ones were not given back
        stream.load_state(state)
        assert ids_of(stream, 3) == expected[: 3 * 24]
    stream.load_state(state)
    assert ids_of(stream, 30) == expected


def test_the_state_is_small_and_belongs_to_its_settings() -> None:
    stream = stream_of(map_documents(TEXTS))
    ids_of(stream, 50)
    assert len(json.dumps(stream.state())) < 300
    for other in (
        stream_of(map_documents(TEXTS), seed=9),
        stream_of(map_documents(TEXTS), window_tokens=640),
        stream_of(map_documents(TEXTS), batch_tokens=12),
        stream_of(map_documents(TEXTS), forward_contexts=2),
    ):
        with pytest.raises(ValueError, match="was saved with"):
            other.load_state(stream.state())


@pytest.mark.parametrize("window_tokens", [60, 320, 1500])
def test_every_row_is_served_exactly_once_an_epoch(window_tokens: int) -> None:
    texts = numbered([16] * 120)  # 240 contexts, nothing is cut off at the end of an epoch
    model = EchoModel()
    stream = stream_of(map_documents(texts), window_tokens=window_tokens, model=model)
    everything = Counter(token for tokens in texts for token in tokens)
    served: Counter[int] = Counter()
    while stream.epoch < 1:  # then no row of the first epoch waits any more
        served.update(ids_of(stream, 1))
    assert set(served) == set(everything)
    # Served and waiting rows together are what the model computed: whole epochs and the start of the next one.
    waiting = [row for piece in stream.first_window() for row in piece["ids"][:, 0].long().tolist()]
    read = served + Counter(waiting)
    most = max(read.values())
    assert set(read.values()) <= {most - 1, most}
    assert read.total() == 8 * sum(contexts for contexts, _ in model.forwards)


def test_all_hooks_come_from_one_forward_pass_and_the_same_rows() -> None:
    model = EchoModel()
    stream = stream_of(map_documents(TEXTS), model=model, hooks=["ids", "twice"])
    for _ in range(20):
        batch = stream.next_batch()
        assert batch["ids"].shape == (24, 2)
        assert batch["twice"].shape == (24, 3)
        assert all(rows.is_contiguous() for rows in batch.values())
        assert torch.equal(2 * batch["ids"], batch["twice"][:, :2])
    assert {hooks for _, hooks in model.forwards} == {("ids", "twice")}
    assert max(contexts for contexts, _ in model.forwards) <= 3
    contexts = sum(contexts for contexts, _ in model.forwards)
    assert contexts * 8 <= 20 * 24 + 320 + 24  # what was served and what waits: nothing is computed twice


def test_positions_and_tokens_that_do_not_count_are_left_out() -> None:
    left_out = [tokens[1] for tokens in TEXTS]
    stream = stream_of(map_documents(TEXTS), seqpos_slice=(2, -1), excluded=left_out)
    rows = torch.cat([stream.next_batch()["ids"] for _ in range(60)]).long()
    assert set(rows[:, 1].tolist()) == {2, 3, 4, 5, 6}
    assert not set(rows[:, 0].tolist()) & set(left_out)


def test_leaving_out_everything_is_an_error() -> None:
    everything = [token for tokens in TEXTS for token in tokens]
    with pytest.raises(UserError, match="exclude_special_tokens: it leaves no activation"):
        stream_of(map_documents(TEXTS), excluded=everything).next_batch()


def test_begin_tokens_are_in_the_contexts_and_can_be_left_out() -> None:
    packing = packing_of(8, begin_token=999_999)
    stream = stream_of(map_documents(TEXTS), packing=packing)
    rows = torch.cat([stream.next_batch()["ids"] for _ in range(30)])
    assert ((rows[:, 0] == 999_999) == (rows[:, 1] == 0)).all()
    without = stream_of(map_documents(TEXTS), packing=packing, excluded=[999_999])
    assert all((without.next_batch()["ids"][:, 1] > 0).all() for _ in range(30))


def test_the_first_window_is_looked_at_and_not_served() -> None:
    stream, untouched = stream_of(map_documents(TEXTS)), stream_of(map_documents(TEXTS))
    seen = Counter(row for piece in stream.first_window() for row in piece["ids"][:, 0].long().tolist())
    assert 250 <= sum(seen.values()) <= 320
    assert max(seen.values()) == 1
    assert all(len(piece["ids"]) <= 24 for piece in stream.first_window())
    assert stream.batches_served == 0
    assert ids_of(stream, 30) == ids_of(untouched, 30)


def test_batches_have_the_type_asked_for() -> None:
    assert stream_of(map_documents(TEXTS), dtype=torch.bfloat16).next_batch()["ids"].dtype == torch.bfloat16


def test_batches_are_their_own_memory() -> None:
    stream, other = stream_of(map_documents(TEXTS)), stream_of(map_documents(TEXTS))
    for _ in range(20):
        expected = other.next_batch()["ids"].clone()
        batch = stream.next_batch()["ids"]
        assert torch.equal(batch, expected)
        batch.zero_()  # a trainer may scale in place


def same_context_share(stream: ActivationStream, n_batches: int) -> float:
    """Share of pairs of rows in a batch that come from one context (here: one document)."""
    same = pairs = 0
    for _ in range(n_batches):
        documents = (stream.next_batch()["ids"][:, 0].long() // 1000).tolist()
        pairs += len(documents) * (len(documents) - 1) // 2
        same += sum(count * (count - 1) // 2 for count in Counter(documents).values())
    return same / pairs


def test_shuffles_better_than_a_full_shuffle_of_a_buffer_of_the_same_memory() -> None:
    window_contexts = 144
    texts = numbered([8] * 4000)
    stream = stream_of(map_documents(texts), window_tokens=8 * window_contexts, batch_tokens=48)
    share = same_context_share(stream, 400)
    # Rows of G chunks of C contexts meet in an interval: 1 / (G C), where the memory holds (G+1)/2 C contexts.
    assert share == pytest.approx(1 / (8 * 32) * 7 / 8, rel=0.25)
    full_shuffle_of_the_window = 7 / (8 * window_contexts - 1)
    assert share < 0.65 * full_shuffle_of_the_window


def test_neighbours_in_a_context_are_served_far_apart() -> None:
    texts = numbered([8] * 4000)
    order = ids_of(stream_of(map_documents(texts), window_tokens=8 * 144), 400)
    place = {token: index for index, token in enumerate(order)}
    distances = [
        abs(place[a] - place[b]) for tokens in texts for a, b in combinations(tokens, 2) if a in place and b in place
    ]
    assert sum(distances) / len(distances) > 8 * 32 * 2  # over two intervals apart on average


@pytest.mark.parametrize("window_tokens", [60, 320, 5000])
def test_the_window_is_within_the_memory_asked_for(window_tokens: int) -> None:
    stream = stream_of(map_documents(numbered([8] * 2000)), window_tokens=window_tokens)
    ids_of(stream, 5)
    asked = window_tokens * 2 * 4  # two float32 columns
    assert 0.6 * asked <= stream.window_nbytes <= 1.3 * asked


def test_no_permutation_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saesweep.activations.split.SHUFFLE_DOCUMENTS", 1)
    # A stream of one-context documents: context c is document c, chunks 0 to 6 hold 4, 8, ... 28 contexts, then 32 each.
    stream = stream_of(stream_documents(numbered([8] * 4000)), window_tokens=8 * 144, batch_tokens=256)
    stream.next_batch()  # interval t serves 256 rows, an eighth of each of the chunks t to t + 7
    for _ in range(8):
        stream.next_batch()
    ages, places = [], []
    for interval in range(9, 13):
        ids = stream.next_batch()["ids"][:, 0].long()
        context, position = ids // 1000, ids % 1000
        chunk = (context - 112) // 32 + 7
        ages.append((chunk - interval).tolist())
        places.append(Counter(((context - 112) % 32 * 8 + position).tolist()))
    assert all(set(age) == set(range(8)) for age in ages)
    assert ages[0] != ages[1] != ages[2] != ages[3]  # the order in an interval
    assert all(max(place.values()) > 1 for place in places)  # which rows of a chunk a segment takes
