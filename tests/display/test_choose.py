"""Which display is chosen, and the two that need no table."""

from __future__ import annotations

import io
import json
import math

import pytest

from saesweep.display import DISPLAY_KINDS, make_display
from saesweep.display.choose import SilentDisplay
from saesweep.display.json_lines import JsonDisplay
from saesweep.display.live import LiveDisplay
from saesweep.display.plain import PlainDisplay
from saesweep.errors import UserError
from saesweep.events import Note, TrialMeasured

from .runs import STARTED, block, ended


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AsciiTerminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "stream", "env", "expected"),
    [
        ("auto", Terminal, {}, LiveDisplay),
        ("auto", Terminal, {"CI": "false"}, LiveDisplay),
        ("auto", io.StringIO, {}, PlainDisplay),
        ("auto", Terminal, {"CI": "true"}, PlainDisplay),
        ("auto", Terminal, {"TERM": "dumb"}, PlainDisplay),
        ("auto", AsciiTerminal, {}, PlainDisplay),
        ("auto", Terminal, {"SAESWEEP_DISPLAY": "json"}, JsonDisplay),
        ("auto", io.StringIO, {"SAESWEEP_DISPLAY": "live"}, LiveDisplay),
        ("auto", io.StringIO, {"SAESWEEP_DISPLAY": "auto"}, PlainDisplay),
        ("none", Terminal, {"SAESWEEP_DISPLAY": "json"}, SilentDisplay),
        ("plain", Terminal, {}, PlainDisplay),
        ("live", io.StringIO, {}, LiveDisplay),
    ],
)
def test_choice(kind, stream, env, expected):
    assert type(make_display(kind, stream(), env)) is expected


@pytest.mark.parametrize("kind", ["tui", "Live"])
def test_wrong_kinds_are_user_errors(kind):
    with pytest.raises(UserError, match=f"'{kind}'.*auto, live, plain, json, none"):
        make_display(kind, io.StringIO(), {})
    with pytest.raises(UserError, match=f"SAESWEEP_DISPLAY is '{kind}'"):
        make_display("auto", io.StringIO(), {"SAESWEEP_DISPLAY": kind})


def test_live_on_an_ascii_stream_is_refused_with_the_fix():
    with pytest.raises(UserError, match="PYTHONIOENCODING=utf-8"):
        make_display("live", AsciiTerminal(), {})


def test_json_is_one_strict_object_per_event():
    stream = io.StringIO()
    with make_display("json", stream, {}) as display:
        display(STARTED)
        display(TrialMeasured(number=3, tokens=5, metrics={"l0": math.nan, "mse": math.inf}))
        display(block(eta_seconds=math.inf))
        display(ended())

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["RunStarted", "TrialMeasured", "BlockDone", "RunEnded"]
    assert lines[1]["metrics"] == {"l0": None, "mse": None}
    assert lines[2]["eta_seconds"] is None
    assert lines[2]["losses"] == {"0": 12.5}
    assert lines[3]["rows"][0]["params"]["sae.k"] == 32


def test_none_is_silent(capsys):
    with make_display("none") as display:
        for event in (STARTED, block(), Note(level="warning", message="x"), ended()):
            display(event)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [kind for kind in DISPLAY_KINDS if kind != "auto"])
def test_every_display_takes_any_order_of_events(kind):
    """A resumed or failing run may start with any event."""
    stream = io.StringIO()
    with make_display(kind, stream, {}) as display:
        for event in (ended(), block(rows=()), STARTED, ended(rows=()), block()):
            display(event)
