"""Studies of tests need not survive a power cut: without fsync they are ten times faster."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy


@pytest.fixture(autouse=True, scope="module")
def _no_fsync() -> Iterator[None]:
    def relax(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
