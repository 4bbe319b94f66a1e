"""Checkpoints written while training continues: a copy is taken at the block boundary, a thread of low priority writes it."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saesweep.runs.checkpoints import Cancelled, CheckpointStore, tensor_bytes

COST_SHARE = 0.02
"""Checkpoints take at most this share of the time where the file names no interval."""
MIN_SECONDS = 10.0
"""However cheap they are: less work than this is not worth one."""
_ASSUMED_BYTES_PER_SECOND = 1e9
"""What the first one is expected to cost before any has been measured."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that is on disk, and what it cost."""

    block: int
    stream_tokens: int
    seconds: float
    """From the block boundary until it was on disk."""
    cost_seconds: float
    """What training lost by it: the time it stood still, and the processor time of the thread that wrote."""
    n_bytes: int


class CheckpointWriter:
    """Writes the checkpoints of one run, one at a time.

    Args:
        store: Where they go.
        in_background: Copy and write on a thread; otherwise training waits, and no copy is needed.
        min_seconds: The least time between two; None: as their cost demands.
    """

    def __init__(self, store: CheckpointStore, *, in_background: bool, min_seconds: float | None) -> None:
        self._store = store
        self._in_background = in_background
        self._min_seconds = min_seconds
        self._snapshot: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._error: BaseException | None = None
        self._written: list[Written] = []
        self._cost_seconds: float | None = None
        self._last_started = time.monotonic()

    def is_due(self, tensors: Callable[[], Mapping[str, Tensor]]) -> bool:
        """Return whether it is time for the next one; never while one is being written, unless the file sets the interval.

        Args:
            tensors: What it would hold: how large the first one will be decides when it is due.
        """
        passed = time.monotonic() - self._last_started
        if self._min_seconds is not None:
            return passed >= self._min_seconds
        if passed < MIN_SECONDS or (self._thread is not None and self._thread.is_alive()):
            return False
        cost = self._cost_seconds
        if cost is None:
            cost = tensor_bytes(tensors()) / _ASSUMED_BYTES_PER_SECOND
        return passed >= cost / COST_SHARE

    def save(self, block: int, stream_tokens: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Begin to write a checkpoint; what the one before met is raised here."""
        self.wait()
        self._last_started = started = time.monotonic()
        encoded = self._store.encode(state)  # now: it holds references to what training changes
        is_copied = self._in_background and self._copy(tensors)
        blocked = time.monotonic() - started
        work = self._snapshot if is_copied else tensors

        def write() -> None:
            before = time.thread_time()
            self._store.save_encoded(block, encoded, work, is_cancelled=self._cancelled.is_set)
            seconds = time.monotonic() - started
            cost = blocked + (time.thread_time() - before) if is_copied else seconds
            self._cost_seconds = cost
            self._written.append(Written(block, stream_tokens, seconds, cost, tensor_bytes(work)))

        if is_copied:
            self._thread = threading.Thread(target=self._run, args=(write,), name="saesweep-checkpoint", daemon=True)
            self._thread.start()
        else:
            write()

    def finished(self) -> list[Written]:
        """Return the checkpoints that have reached the disk since this was last asked.

        Raises:
            OSError: One could not be written.
        """
        self._raise()
        found, self._written = self._written, []
        return found

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            OSError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def close(self, *, cancel: bool) -> None:
        """Give the memory of the copy back, once nothing is written from it any more.

        Args:
            cancel: Leave a checkpoint that is being written: the one before it stays the newest.
        """
        if cancel:
            self._cancelled.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._snapshot = {}

    def _run(self, write: Callable[[], None]) -> None:
        with suppress(OSError, AttributeError):  # training comes first; not every system has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        try:
            write()
        except Cancelled:
            pass
        # Raised where training would have met it; a thread has no caller to tell.
        except BaseException as error:
            self._error = error

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _copy(self, tensors: Mapping[str, Tensor]) -> bool:
        """Copy to the CPU, into the memory of the copy before where shapes agree; return whether memory sufficed."""
        needed: dict[Any, list[str]] = defaultdict(list)
        for name, tensor in tensors.items():
            needed[tuple(tensor.shape), tensor.dtype].append(name)
        pools: dict[Any, list[Tensor]] = defaultdict(list)
        for buffer in self._snapshot.values():
            key = (tuple(buffer.shape), buffer.dtype)
            if len(pools[key]) < len(needed.get(key, ())):
                pools[key].append(buffer)
        self._snapshot = {}  # what no tensor of now fits into is given back before anything new is asked for
        found: dict[str, Tensor] = {}
        try:
            for name, tensor in tensors.items():
                pool = pools[tuple(tensor.shape), tensor.dtype]
                buffer = pool.pop() if pool else torch.empty(tensor.shape, dtype=tensor.dtype)
                found[name] = buffer.copy_(tensor.detach())
        except (MemoryError, RuntimeError):  # no memory for a copy: training waits for this one
            return False
        self._snapshot = found
        return True
