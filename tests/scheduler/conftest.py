import pytest

from saesweep.forecast import Table
from saesweep.scheduler import rungs

from .simulator import table


@pytest.fixture(autouse=True)
def known_table(monkeypatch: pytest.MonkeyPatch) -> Table:
    """Forecasts of these tests: values stay as they are, within 5%."""
    found = table()
    monkeypatch.setattr(rungs, "shipped_table", lambda: found)
    return found
