"""A study whose database server does not answer for a while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import IntegrityError, OperationalError

from saesweep.errors import UserError
from saesweep.study import outage
from saesweep.study.outage import Outage, outlasting


class Caller:
    """Calls a server that fails as long as there are errors."""

    def __init__(self, errors: list[Exception], dialect: str = "postgresql") -> None:
        engine = SimpleNamespace(dialect=SimpleNamespace(name=dialect))
        self._storage: Any = SimpleNamespace(engine=engine, url="postgresql://me:hunter2@database.example/optuna")
        self.errors, self.heard = errors, list[str]()

    def outage(self) -> Outage:
        return Outage(self._storage, self.heard.append)

    @outlasting
    def call(self, value: int) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return value


def refused() -> Exception:
    return OperationalError("select 1", {}, Exception("connection refused\nIs the server running?"))


def wrapped() -> Exception:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = refused()
    return error


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage.time, "sleep", lambda seconds: None)


def test_a_call_is_repeated_until_the_server_answers_and_people_are_told_once() -> None:
    caller = Caller([refused(), wrapped(), refused()])
    assert caller.call(3) == 3
    assert len(caller.heard) == 2
    assert "postgresql://me:***@database.example/optuna: the database of the study does not answer" in caller.heard[0]
    assert "(connection refused); the run waits for it" in caller.heard[0]
    assert "answers again" in caller.heard[1]


def test_a_server_that_stays_away_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(outage.time, "monotonic", lambda: next(clock))
    caller = Caller([refused() for _ in range(100)])
    with pytest.raises(
        UserError, match=r"has not answered for 10 minutes \(connection refused\); once it does"
    ) as caught:
        caller.call(1)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "dialect"),
    [(IntegrityError("insert", {}, Exception("duplicate")), "postgresql"), (refused(), "sqlite")],
)
def test_what_is_no_outage_is_raised_at_once(error: Exception, dialect: str) -> None:
    caller = Caller([error], dialect)
    with pytest.raises(type(error)):
        caller.call(1)
    assert caller.heard == []
