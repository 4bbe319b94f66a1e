"""The language model running ahead on its own thread: the same batches, bounded, and a clean end."""

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saesweep.activations.background import BackgroundIterator
from saesweep.models import load_model
from tests.models.tiny import D_VOCAB, run_of

from .fakes import EchoModel, ids_of, map_documents, numbered, stream_of

TEXTS = numbered([40, 3, 90, 17, 64, 8, 120, 33, 71, 5, 66, 48] * 3)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "saesweep-ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert threads() == []


@pytest.mark.parametrize("ahead", [True, 1, 7])
def test_batches_are_those_without_it_also_after_a_resume(ahead: bool | int) -> None:
    plain, stream = stream_of(map_documents(TEXTS)), stream_of(map_documents(TEXTS), passes_ahead=ahead)
    states = []
    expected = []
    for _ in range(60):
        assert stream.state() == plain.state()
        states.append(stream.state())
        expected.append(ids_of(plain, 1))
        assert ids_of(stream, 1) == expected[-1]
    for position in (0, 13, 59):
        stream.load_state(states[position])  # in use: the thread is far ahead of this
        assert ids_of(stream, 1) == expected[position]
        other = stream_of(map_documents(TEXTS), passes_ahead=ahead)
        other.load_state(states[position])
        assert ids_of(other, 1) == expected[position]
        other.close()
    stream.close()


@pytest.mark.parametrize("ahead", [1, 4])
def test_it_runs_ahead_and_no_further_than_asked(ahead: int) -> None:
    model, plain_model = EchoModel(), EchoModel()
    stream = stream_of(map_documents(TEXTS), model=model, passes_ahead=ahead)
    plain = stream_of(map_documents(TEXTS), model=plain_model)
    for _ in range(10):
        stream.next_batch()
        plain.next_batch()
        deadline = time.monotonic() + 5
        while len(model.forwards) < len(plain_model.forwards) + ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(model.forwards) == len(plain_model.forwards) + ahead
    stream.close()
    assert threads() == []


class FailingModel(EchoModel):
    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        if len(self.forwards) == 30:
            raise RuntimeError("CUDA error: something")
        return super().activations(tokens_NT, hooks)


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    plain = stream_of(map_documents(TEXTS), model=FailingModel())
    ahead = stream_of(map_documents(TEXTS), model=FailingModel(), passes_ahead=True)
    count = 0
    while True:
        try:
            expected = ids_of(plain, 1)
        except RuntimeError:
            break
        assert ids_of(ahead, 1) == expected
        count += 1
    assert count > 5
    with pytest.raises(RuntimeError, match="CUDA error: something"):
        ahead.next_batch()
    ahead.close()


def test_a_stream_that_is_not_closed_ends_with_its_last_reader() -> None:
    stream = stream_of(map_documents(TEXTS), passes_ahead=True)
    stream.next_batch()
    assert len(threads()) == 1
    del stream
    gc.collect()
    assert threads() == []


def test_the_model_serves_other_readers_meanwhile(llama: Path) -> None:
    """Hooks are set on the modules: an evaluation's splice must not reach the forward passes of the stream."""
    model = load_model(run_of(model_name=str(llama)))
    tokens = torch.randint(3, D_VOCAB, (4, 16), generator=torch.Generator().manual_seed(0))
    clean = model.activations(tokens, ["model.layers.1"])["model.layers.1"]
    spliced = model.logits(tokens, replace=("model.layers.0", torch.neg))

    def passes() -> Iterator[Tensor]:
        for _ in range(60):
            yield model.activations(tokens, ["model.layers.1"])["model.layers.1"]

    ahead = BackgroundIterator(passes(), ahead=3)
    for found in ahead:
        assert torch.equal(model.logits(tokens, replace=("model.layers.0", torch.neg)), spliced)
        assert torch.equal(found, clean)
    ahead.close()


def test_the_end_of_the_source_is_the_end() -> None:
    ahead = BackgroundIterator(iter([1, 2, 3]), ahead=2)
    assert list(ahead) == [1, 2, 3]
    assert list(ahead) == []
    ahead.close()
    closed = BackgroundIterator(iter(range(100)), ahead=2)
    assert next(closed) == 0
    closed.close()
    closed.close()
    assert list(closed) == []
