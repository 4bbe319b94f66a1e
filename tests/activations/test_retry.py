"""A stream that drops its connection resumes where it was."""

import logging
from collections.abc import Iterator
from importlib import import_module

import pytest

from saesweep.activations import retry
from saesweep.activations.retry import WAITS_SECONDS, resuming
from saesweep.hub import http_error

# Of httpx or httpx2, whichever the Hub's client is built on.
HTTP = import_module(http_error().__module__.split(".")[0])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    return slept


class Flaky:
    """Rows 0 to 9; the connection is lost before these rows, once for each time that they are named."""

    def __init__(self, lost: list[int], error: Exception) -> None:
        self.lost = list(lost)
        self.error = error

    def __call__(self, position: int) -> Iterator[int]:
        for row in range(position, 10):
            if row in self.lost:
                self.lost.remove(row)
                raise self.error
            yield row


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), HTTP.ReadTimeout("slow"), TimeoutError()])
def test_no_row_is_lost_or_repeated(error: Exception, waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "saesweep")
    assert list(resuming(Flaky([0, 4, 4, 4, 9], error), 0, name="some/data")) == list(range(10))
    assert waits == [1, 1, 2, 4, 1]  # longer and longer, anew after a row
    assert "some/data: the connection was lost after row 4" in caplog.text
    assert list(resuming(Flaky([5], error), 3, name="some/data")) == list(range(3, 10))


def test_it_gives_up_in_the_end(waits: list[float]) -> None:
    rows = resuming(Flaky([3] * 50, ConnectionResetError("reset")), 0, name="some/data")
    assert [next(rows) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ConnectionResetError):
        next(rows)
    assert waits == list(WAITS_SECONDS)


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), ValueError("a bad row")])
def test_what_a_retry_does_not_mend_is_raised_at_once(error: Exception, waits: list[float]) -> None:
    with pytest.raises(type(error)):
        list(resuming(Flaky([3], error), 0, name="some/data"))
    assert waits == []
