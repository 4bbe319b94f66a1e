"""Checkpoints from a copy, in the background: what is on disk is what training had, whatever it does meanwhile."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from saesweep.runs import CheckpointStore, CheckpointWriter
from saesweep.runs import checkpoint_writer as module
from saesweep.runs.checkpoints import Cancelled, write_tensors


def tensors_of_every_kind() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "w": torch.randn(5, 3),
        "transposed": torch.randn(4, 6).t(),
        "moments": torch.randn(7).bfloat16(),
        "half": torch.randn(3).half(),
        "wide": torch.randn(2, 2, dtype=torch.float64),
        "counts": torch.arange(9).reshape(3, 3),
        "small": torch.arange(5, dtype=torch.int32),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        'odd "name"/ü': torch.ones(2),
    }


def test_the_file_is_a_safetensors_file_and_its_sum_is_right(tmp_path: Path) -> None:
    tensors, file = tensors_of_every_kind(), tmp_path / "t.safetensors"
    digest = write_tensors(file, tensors, is_cancelled=lambda: False)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    found = load_file(file)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Hold every write until the second event is set; the first one says that a write has begun."""
    begun, go = threading.Event(), threading.Event()
    save = CheckpointStore.save_encoded

    def held(self: CheckpointStore, *args: Any, **kwargs: Any) -> None:
        begun.set()
        assert go.wait(20)
        save(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointStore, "save_encoded", held)
    return begun, go


def test_training_continues_and_the_checkpoint_holds_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = slow(monkeypatch)
    store = CheckpointStore(tmp_path)
    writer = CheckpointWriter(store, in_background=True, min_seconds=0)
    weights, state = torch.zeros(1000), {"trials": [{"tokens": 1}]}
    writer.save(1, 512, state, {"w": weights})
    assert begun.wait(20)
    weights.fill_(7)
    state["trials"][0]["tokens"] = 2
    assert writer.finished() == []
    assert store.load_latest()[0] is None
    go.set()
    writer.wait()
    (one,) = writer.finished()
    assert (one.block, one.stream_tokens, one.n_bytes) == (1, 512, 4000)
    assert one.cost_seconds <= one.seconds
    found, damaged = store.load_latest()
    assert found is not None
    assert (found.state, damaged) == ({"trials": [{"tokens": 1}]}, [])
    assert torch.equal(found.tensors["w"], torch.zeros(1000))


def test_the_memory_of_the_copy_is_used_again_and_given_back(tmp_path: Path) -> None:
    writer = CheckpointWriter(CheckpointStore(tmp_path), in_background=True, min_seconds=0)
    writer.save(1, 1, {}, {"0.0/w": torch.ones(64), "1.0/w": torch.ones(64), "1.0/b": torch.ones(3)})
    writer.wait()
    before = {tensor.data_ptr() for tensor in writer._snapshot.values()}
    writer.save(2, 2, {}, {"2.0/w": torch.ones(64), "0.0/w": torch.zeros(64), "2.0/b": torch.ones(3)})
    assert {tensor.data_ptr() for tensor in writer._snapshot.values()} == before
    writer.wait()
    writer.close(cancel=False)
    assert writer._snapshot == {}


def test_what_the_thread_met_is_raised_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("saesweep.runs.checkpoints.write_tensors", full)
    writer = CheckpointWriter(CheckpointStore(tmp_path), in_background=True, min_seconds=0)
    writer.save(1, 1, {}, {"w": torch.ones(4)})
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_cancelled_write_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save(1, {}, {"w": torch.ones(4)})
    begun, go = slow(monkeypatch)
    writer = CheckpointWriter(store, in_background=True, min_seconds=0)
    writer.save(2, 2, {}, {"w": torch.zeros(4)})
    assert begun.wait(20)
    threading.Timer(0.1, go.set).start()
    writer.close(cancel=True)
    found, _ = store.load_latest()
    assert found is not None
    assert found.block == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001"]


def test_cancelling_ends_within_a_piece(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Cancelled):
        write_tensors(tmp_path / "t", {"a": torch.ones(4), "b": torch.ones(4)}, is_cancelled=lambda: next(answers))


def test_without_memory_for_a_copy_training_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    writer = CheckpointWriter(store, in_background=True, min_seconds=0)

    def none_left(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(module.torch, "empty", none_left)
    writer.save(1, 1, {}, {"w": torch.ones(4)})
    (one,) = writer.finished()
    assert one.cost_seconds == one.seconds
    assert json.loads((tmp_path / "00000001" / "state.json").read_text()) == {}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return time.thread_time()


def test_the_interval_follows_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    writer = CheckpointWriter(CheckpointStore(tmp_path), in_background=False, min_seconds=None)
    large = {"w": torch.empty(500_000_000, device="meta")}  # 2 GB: 2 s at the speed assumed before any is measured
    assert not writer.is_due(lambda: large)
    clock.now += 99
    assert not writer.is_due(lambda: large)
    assert writer.is_due(lambda: {"w": torch.ones(4)})  # a small one need not wait
    clock.now += 2
    assert writer.is_due(lambda: large)
    save = CheckpointStore.save_encoded

    def takes_3_s(self: CheckpointStore, *args: Any, **kwargs: Any) -> None:
        clock.now += 3
        save(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointStore, "save_encoded", takes_3_s)
    writer.save(1, 1, {}, {"w": torch.ones(4)})
    clock.now += 146  # 149 s after it began: 3 of 150 are 2%
    assert not writer.is_due(dict)
    clock.now += 2
    assert writer.is_due(dict)


def test_the_file_may_set_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    assert CheckpointWriter(CheckpointStore(tmp_path), in_background=False, min_seconds=0).is_due(dict)
    writer = CheckpointWriter(CheckpointStore(tmp_path), in_background=False, min_seconds=30)
    clock.now += 29
    assert not writer.is_due(dict)
    clock.now += 1
    assert writer.is_due(dict)
