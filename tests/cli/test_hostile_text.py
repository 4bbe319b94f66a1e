"""Nothing that a file holds steers the terminal, and nothing in it makes a message endless."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from saesweep.cli import main
from saesweep.display.saved import read_leaderboard, show_leaderboard
from saesweep.errors import UserError
from saesweep.events import EventBus, Note
from saesweep.messages import presentable, printable, shortened
from tests.display.runs import row

EVIL = "\x1b]0;owned\x07\x1b[31mred\x9b2J\r\u202e"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def test_escapes_are_shown_as_text() -> None:
    assert printable("a\x1b[31mb\tc\nd\x9b\u202e") == "a\\x1b[31mb\tc\nd\\x9b\\u202e"


def test_long_lines_and_many_lines_are_cut() -> None:
    assert len(shortened("x" * 10_000_000)) < 3000
    assert shortened("x" * 10_000_000).endswith("more characters)")
    assert shortened("y\n" * 10_000).count("\n") < 500
    assert shortened("short\ntext") == "short\ntext"


@pytest.mark.parametrize("value", [EVIL, "z" * 1_000_000], ids=["escapes", "endless"])
def test_mistakes_in_a_file(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        json.dumps({"name": "a", "base": {"lr": value, value[:900]: 1, "dataset_path": "x"}, value[:900]: 2})
    )
    assert main(["validate", str(file)]) == 2
    said = capsys.readouterr()
    assert not OBEYED.search(said.out + said.err)
    assert max(map(len, (said.out + said.err).splitlines())) < 3000
    assert "base.lr" in said.err


def test_the_caret_stands_below_the_mistake_on_an_endless_line(tmp_path: Path) -> None:
    from saesweep.experiment import load_experiment

    file = tmp_path / "e.yaml"
    path = "p" * 3000
    file.write_text(f'{{name: a, base: {{dataset_path: {path}, lr: "abc", run_name: {path}, sae: {{d_sae: 8}}}}}}')
    with pytest.raises(UserError) as caught:
        load_experiment(file)
    lines = str(caught.value).splitlines()
    at = next(i for i, line in enumerate(lines) if "base.lr: " in line)
    assert lines[at + 1][lines[at + 2].index("^") :].startswith('"abc"')


def test_messages_of_a_run() -> None:
    seen: list[Any] = []
    EventBus(seen.append).emit(Note(level="info", message=f"dataset {EVIL}"))
    assert seen[0].message == f"dataset {presentable(EVIL)}"
    assert not OBEYED.search(seen[0].message)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_leaderboard_of_a_stranger(is_terminal: bool, tmp_path: Path) -> None:
    texts = dict.fromkeys(("architecture", "sparsity", "hook", "stream", "reason"), EVIL)
    trial = asdict(row(0, **texts, params={"dataset_path": EVIL, "lr": 0.1}))
    board = {
        "name": EVIL,
        "status": EVIL,
        "rows": [trial],
        "metrics": ["l0", EVIL],
        "goals": [f"minimize l0 {EVIL}"],
        "best": None,
        "test_metrics": {},
        "notes": [EVIL],
    }
    (tmp_path / "leaderboard.json").write_text(json.dumps(board))

    class Screen(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return is_terminal

    screen = Screen()
    show_leaderboard(read_leaderboard(tmp_path), screen, env={"TERM": "xterm", "COLUMNS": "200"})
    text = re.sub("\x1b\\[[0-9;]*m", "", screen.getvalue())  # our own colours
    assert "owned" in text
    assert "red" in text
    assert not OBEYED.search(text)
    assert "\x1b[31mred" not in screen.getvalue()
