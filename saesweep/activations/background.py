"""Runs an iterator ahead on its own thread, a bounded number of items ahead of the reader."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundIterator(Generic[T]):
    """The items of `source`, in its order, computed on another thread.

    An exception of the source is raised where its item would have come. `close` waits for the item in progress and drops
    those that were not read; it also happens when the object is collected and when the interpreter ends.

    Args:
        source: Read by the thread alone from now on.
        ahead: Maximum number of items that are computed or being computed and not read yet, at least 1.
        name: The thread's.
        patience_seconds: How long `close` waits at most; None for as long as the item in progress takes.
    """

    def __init__(
        self,
        source: Iterator[T],
        ahead: int,
        *,
        name: str = "saesweep-ahead",
        patience_seconds: float | None = None,
    ) -> None:
        self._shared: _Shared[T] = _Shared(ahead)
        # The thread knows the shared part only, so that it does not keep this object alive.
        self._thread = threading.Thread(target=_produce, args=(source, self._shared), name=name, daemon=True)
        self._finalizer = weakref.finalize(self, _stop, self._shared, self._thread, patience_seconds)
        self._ended: BaseException | None = None
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._ended is None:
            found = self._shared.items.get()
            self._shared.room.release()
            if not isinstance(found, _Failure):
                return found
            self._ended = found.error
        raise self._ended

    def close(self) -> None:
        """Stop the thread; reading afterwards raises StopIteration."""
        self._finalizer()
        self._ended = self._ended or StopIteration()


class _Failure:
    """What ended the source: an error, or StopIteration at its end."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Shared(Generic[T]):
    """What both threads see."""

    def __init__(self, ahead: int) -> None:
        # Room is taken before an item is computed, not when it is put: this bounds the memory.
        self.room = threading.Semaphore(ahead)
        self.items: queue.SimpleQueue[T | _Failure] = queue.SimpleQueue()
        self.stop = threading.Event()


def _produce(source: Iterator[T], shared: _Shared[T]) -> None:
    try:
        while True:
            shared.room.acquire()
            if shared.stop.is_set():
                return
            shared.items.put(next(source))
    except BaseException as error:  # the reader raises it, whatever it is
        shared.items.put(_Failure(error))


def _stop(shared: _Shared[T], thread: threading.Thread, patience_seconds: float | None) -> None:
    shared.stop.set()
    shared.room.release()
    if thread is not threading.current_thread():  # a collection can happen on any thread
        thread.join(patience_seconds)
