"""What a block costs in a sweep that has had many trials, by counting: nothing here looks at a clock of its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from saesweep.driver import standings
from saesweep.driver.log import JsonLogListener
from saesweep.driver.progress import Pace
from saesweep.driver.publishing import SHOWN_ROWS
from saesweep.events import BlockDone, Event
from saesweep.runs import JsonLines, RunDirectory
from saesweep.scheduler import dominance
from tests.display.runs import block
from tests.engines.long_sweep import SLOTS, LongRun, long_sweep

TRIALS = 240
FRONT = {"pareto": [{"minimize": "l0"}, {"maximize": "explained_variance"}]}
ONE_GOAL = {"maximize": "explained_variance"}


@pytest.mark.parametrize("objective", [FRONT, ONE_GOAL])
def test_a_block_looks_at_the_trials_that_train_and_no_other(
    objective: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    run = LongRun(tmp_path / "run", long_sweep(TRIALS, objective), TRIALS)
    looked_at, inserted = 0, 0
    costs, insert = standings.costs, dominance.insert

    def counted_costs(*arguments: Any) -> tuple[float, ...]:
        nonlocal looked_at
        looked_at += 1
        return costs(*arguments)

    def counted_insert(*arguments: Any) -> None:
        nonlocal inserted
        inserted += 1
        insert(*arguments)

    def refused(*_: Any) -> None:
        raise AssertionError("all trials were ranked anew")

    with run.resumed(events.append) as loop:
        monkeypatch.setattr(standings, "costs", counted_costs)
        monkeypatch.setattr(standings, "insert", counted_insert)
        monkeypatch.setattr(standings, "fronts", refused)
        blocks = [event for event in events if isinstance(event, BlockDone)]
        loop._stop.requested = False

        def one_block(event: Event) -> None:
            if isinstance(event, BlockDone):
                blocks.append(event)
                loop._stop.requested = len(blocks) == 21  # a trial takes twenty

        loop._bus.subscribe(one_block)
        assert loop.run() is False
    written = (
        1  # the first block writes the leaderboard, once a second is more than this takes; the end is not in `run`
    )
    assert looked_at <= (len(blocks) + 3 * written) * 2 * SLOTS
    assert inserted == SLOTS
    assert all(len(event.rows) == SHOWN_ROWS + SLOTS for event in blocks)
    assert sum(blocks[-1].states["topk"].values()) + sum(blocks[-1].states["batchtopk"].values()) == TRIALS + SLOTS


def test_the_leaderboard_takes_a_fiftieth_of_the_time_at_most() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.is_due()
    for took, pause in ((0.001, 1.0), (0.3, 15.0), (2.0, 100.0)):
        with pace.taking():
            now += took
        now += pause * 0.99
        assert not pace.is_due()
        now += pause * 0.02
        assert pace.is_due()


def test_the_event_log_does_not_even_copy_the_rows(tmp_path: Path) -> None:
    class Untouchable:
        def __deepcopy__(self, memo: object) -> object:
            raise AssertionError("a row was copied")

    with RunDirectory(tmp_path / "run") as directory:
        JsonLogListener(directory)(block(rows=(Untouchable(),), states={"topk": {"complete": 1}}))
        (line,) = JsonLines(directory.events_file)
    assert "rows" not in line
    assert line["states"] == {"topk": {"complete": 1}}


def test_a_line_is_appended_without_reading_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"a": 1}\n' * 100_000)
    read = 0
    opened = Path.open

    def counting(path: Path, *arguments: Any, **options: Any) -> Any:
        found = opened(path, *arguments, **options)
        if isinstance(found, io.BufferedRandom):
            inner = found.read

            def counted(size: int = -1) -> bytes:
                nonlocal read
                data = inner(size)
                read += len(data)
                return data

            monkeypatch.setattr(found, "read", counted, raising=False)
        return found

    monkeypatch.setattr(Path, "open", counting)
    JsonLines(file).append({"a": 2})
    assert read == 1
    with opened(file, "ab") as log:
        log.write(b'{"torn": "' + b"x" * 9000)
    JsonLines(file).append({"a": 3})
    assert read < 20_000
    monkeypatch.undo()
    assert file.read_bytes() == b'{"a": 1}\n' * 100_000 + b'{"a": 2}\n{"a": 3}\n'


@pytest.mark.parametrize("text", [b"", b"torn", b'{"a": 1}\n', b'{"a": 1}\ntorn', b"\n" + b"x" * 10_000])
def test_what_follows_the_last_line_break_is_cut_off(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_bytes(text)
    JsonLines(file)
    assert file.read_bytes() == text[: text.rfind(b"\n") + 1]
