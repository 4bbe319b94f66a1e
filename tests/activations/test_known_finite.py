"""Whether batches are finite is known from the rows that entered the window: a training step asks the device for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.counting import Counting
from saesweep.activations.stream import ActivationStream
from saesweep.worker.batches import FiniteBatches

from .fakes import EchoModel, map_documents, numbered, stream_of

TEXTS = numbered([16] * 120)


class SpoiltModel(EchoModel):
    """Gives NaN, or what float16 cannot hold, at some tokens."""

    def __init__(self, bad: Sequence[int], value: float = float("nan"), hook: str = "ids") -> None:
        super().__init__()
        self._bad, self._value, self._hook = torch.tensor(bad), value, hook

    def activations(self, tokens_NT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        found = {hook: rows_NTD.clone() for hook, rows_NTD in super().activations(tokens_NT, hooks).items()}
        found[self._hook][..., 1][torch.isin(tokens_NT, self._bad)] = self._value
        return found


def is_finite(batch: dict[str, Tensor]) -> bool:
    return all(bool(rows.isfinite().all()) for rows in batch.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("hook", ["ids", "twice"])
def test_no_batch_with_nan_is_taken_for_finite(value: float, hook: str) -> None:
    model = SpoiltModel([7003, 41_012], value, hook)
    stream = stream_of(map_documents(TEXTS), window_tokens=160, hooks=["ids", "twice"], model=model)
    found = []
    for _ in range(80):
        batch = stream.next_batch()
        found.append((is_finite(batch), stream.is_known_finite))
    assert sum(not finite for finite, _ in found) >= 2
    assert all(finite for finite, known in found if known)
    assert sum(known for _, known in found) > 20  # only while a bad row may wait is there doubt
    assert any(known for _, known in found[-10:])


def test_ordinary_activations_are_known_to_be_finite_after_a_resume_too() -> None:
    stream = stream_of(map_documents(TEXTS))
    for _ in range(30):
        stream.next_batch()
        assert stream.is_known_finite
    again = stream_of(map_documents(TEXTS))
    again.load_state(stream.state())
    again.next_batch()
    assert again.is_known_finite


def test_what_a_narrower_type_cannot_hold_is_looked_at() -> None:
    model = SpoiltModel([7003], 1e6)
    stream = stream_of(map_documents(TEXTS), dtype=torch.float16, model=model)
    found = [(is_finite(stream.next_batch()), stream.is_known_finite) for _ in range(60)]
    assert not all(finite for finite, _ in found)
    assert not any(known for _, known in found)


def served(stream: ActivationStream, n_batches: int) -> tuple[list[Tensor], int]:
    batches = FiniteBatches(stream, max_skipped=10, warn=lambda message: None)
    return [batches.next_batch()["ids"] for _ in range(n_batches)], batches.skipped


def test_the_same_batches_are_skipped_as_where_each_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def new_stream() -> ActivationStream:
        return stream_of(map_documents(TEXTS), window_tokens=160, model=SpoiltModel([7003, 7004, 41_012]))

    found, skipped = served(new_stream(), 60)
    monkeypatch.setattr(ActivationStream, "is_known_finite", False)
    want, all_skipped = served(new_stream(), 60)
    assert skipped == all_skipped >= 2
    assert all(torch.equal(one, other) for one, other in zip(found, want, strict=True))


def test_batches_are_served_without_asking_the_device() -> None:
    stream = stream_of(map_documents(TEXTS), window_tokens=1500)
    batches = FiniteBatches(stream, max_skipped=0, warn=lambda message: None)
    batches.next_batch()
    loads = 0
    for _ in range(40):
        interval = stream.state()["interval"]
        with Counting() as counted:
            batches.next_batch()
        if stream.state()["interval"] == interval:
            assert not counted.host_reads
        else:  # the next rows enter the window
            loads += 1
            assert counted.host_reads
    assert 0 < loads < 10
