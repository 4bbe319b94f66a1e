"""The display of notebooks: one output, drawn at most once a second, whose end stays."""

from __future__ import annotations

import re
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest

from saesweep.display import make_display
from saesweep.display.notebook import NotebookDisplay
from saesweep.events import Activity, Note, TrialEnded

from .runs import STARTED, block, ended


class FakeClock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Cell:
    def __init__(self):
        self.drawn = []

    def update(self, html):
        self.drawn.append(html)


@pytest.fixture
def notebook(monkeypatch):
    """The modules of a kernel, as far as they are looked at."""
    cell = Cell()
    shell = SimpleNamespace(kernel=object())
    ipython, shown = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: shell
    shown.HTML = str
    shown.display = lambda html, display_id: cell
    for name, module in (("IPython", ipython), ("IPython.display", shown), ("ipykernel", ModuleType("ipykernel"))):
        monkeypatch.setitem(sys.modules, name, module)
    return cell


@pytest.mark.parametrize("kind", ["auto", "live"])
def test_a_notebook_is_recognised(notebook, kind):
    assert type(make_display(kind, env={})) is NotebookDisplay
    assert type(make_display(kind, env={"CI": "true"})) is NotebookDisplay


def test_what_was_asked_for_wins_in_a_notebook_too(notebook):
    assert type(make_display("plain", env={})).__name__ == "PlainDisplay"
    assert type(make_display("auto", env={"SAESWEEP_DISPLAY": "none"})).__name__ == "SilentDisplay"


def test_a_script_that_merely_imports_ipykernel_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: None
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert type(make_display("auto", env={})).__name__ == "PlainDisplay"


def test_progress_the_table_and_the_end(notebook):
    clock = FakeClock()
    with NotebookDisplay(clock=clock, ticking=False) as display:
        clock.seconds = 2.0
        display(Activity(message="loading builtin:tiny-lm"))
        assert "loading builtin:tiny-lm" in notebook.drawn[-1]
        display(STARTED)
        clock.seconds = 4.0
        display(block())
        assert "<table>" in notebook.drawn[-1]
        assert "17% · 152k SAE-tokens/s · ETA 3m 12s" in notebook.drawn[-1]
        before = len(notebook.drawn)
        for _ in range(10):
            display(block())
        assert len(notebook.drawn) == before  # once a second
        display(Note(level="warning", message="2 epochs <of> text"))
        assert "warning: 2 epochs &lt;of&gt; text" in notebook.drawn[-1]
        display(TrialEnded(number=4, status="failed", tokens=1, reason="NaN"))
        assert "failed" in notebook.drawn[-1]
        display(ended())
        last = notebook.drawn[-1]
        assert "SAE-tokens/s ·" not in last
        assert "best: trial 3 (batchtopk k 32) -&gt; runs/quickstart/best" in last
        assert "warning: 2 epochs" in last
        display(block())
        assert notebook.drawn[-1] == last


def test_time_passes_on_the_page(notebook):
    with NotebookDisplay() as display:
        display(Activity(message="loading"))
        deadline = time.monotonic() + 20
        while not re.search(r"loading, \d+s", notebook.drawn[-1]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert re.search(r"loading, \d+s", notebook.drawn[-1])
