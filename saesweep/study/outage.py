"""A database server that is restarted or out of reach for a while: the study waits for it.

Every call of a `Study` may be made again, because what the storage holds already is returned or verified. So a call that has
met an outage is repeated, whether or not the server had carried it out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from saesweep.errors import UserError, first_line
from saesweep.study.storage import shown

MAX_WAIT_SECONDS = 600.0
_FIRST_PAUSE, _MAX_PAUSE = 0.2, 5.0
"""Seconds between two attempts."""

P = ParamSpec("P")
T = TypeVar("T")


class Outage:
    """One storage that may not answer for a while.

    Args:
        storage: The storage.
        warn: Tells the user.
    """

    def __init__(self, storage: RDBStorage, warn: Callable[[str], None]) -> None:
        self._storage = storage
        self._warn = warn
        self._began: float | None = None
        self._pause = _FIRST_PAUSE

    def wait(self, error: Exception) -> None:
        """Wait a moment before a call is repeated.

        Args:
            error: What the call has raised; raised again where it is about something else than the server.

        Raises:
            UserError: The server has not answered for `MAX_WAIT_SECONDS`.
        """
        reason = None if self._storage.engine.dialect.name == "sqlite" else _reason(error)
        if reason is None:
            raise error
        place = shown(self._storage.url)
        if self._began is None:
            self._began = time.monotonic()
            self._warn(f"{place}: the database of the study does not answer ({reason}); the run waits for it")
        elif time.monotonic() - self._began > MAX_WAIT_SECONDS:
            raise UserError(
                f"{place}: the database of the study has not answered for {MAX_WAIT_SECONDS / 60:.0f} minutes ({reason}); once it "
                "does, the same command resumes"
            ) from error
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, _MAX_PAUSE)

    def is_over(self) -> None:
        """Say that the server answers again, where it did not."""
        if self._began is not None:
            self._warn(f"the database of the study answers again, after {time.monotonic() - self._began:.0f} s")


def outlasting(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Repeat a method of an object that can make an `outage` until the server answers."""

    @wraps(method)
    def repeated(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        outage: Outage = self.outage()
        while True:
            try:
                found = method(self, *args, **kwargs)
            except (SQLAlchemyError, StorageInternalError) as error:
                outage.wait(error)
            else:
                outage.is_over()
                return found

    return repeated


def _reason(error: BaseException | None) -> str | None:
    """Return what a server that is out of reach has said; None where it is there and has refused something."""
    while error is not None:
        if isinstance(error, DBAPIError) and (
            isinstance(error, (OperationalError, InterfaceError)) or error.connection_invalidated
        ):
            return first_line(error.orig or error)[:200]
        error = error.__cause__
    return None
