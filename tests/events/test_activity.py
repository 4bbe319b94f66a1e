"""What is being done reaches whoever listens, and nobody else."""

from __future__ import annotations

import threading

from saesweep.activity import doing
from saesweep.events import Activity, reporting_activity


def test_activities_need_no_listener():
    doing("loading")


def test_the_innermost_listener_hears_it_and_only_while_it_listens():
    outer: list[object] = []
    inner: list[object] = []
    with reporting_activity(outer.append):
        doing("a", 1, 2)
        with reporting_activity(inner.append):
            doing("b")
        doing("c")
    doing("d")
    assert outer == [Activity(message="a", done=1, total=2), Activity(message="c")]
    assert inner == [Activity(message="b")]


def test_another_thread_is_not_heard():
    heard: list[object] = []
    with reporting_activity(heard.append):
        thread = threading.Thread(target=doing, args=("b",))
        thread.start()
        thread.join()
    assert heard == []
