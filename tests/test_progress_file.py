"""`progress.json`: how far a run is, for whoever watches; never in the way of the run."""

from __future__ import annotations

import os

from saesweep.progress_file import ProgressFile, is_dead, read_progress


def test_the_latest_news_come_back(tmp_path):
    file = ProgressFile(tmp_path)
    file.write({"trials": 3})
    assert read_progress(tmp_path)["trials"] == 3
    file.write({"trials": 4})  # too soon
    assert read_progress(tmp_path)["trials"] == 3
    file.write({"trials": 5}, now=True)
    assert read_progress(tmp_path)["trials"] == 5
    assert read_progress(tmp_path)["time_seconds"] > 1e9


def test_a_torn_or_missing_file_is_no_news(tmp_path):
    assert read_progress(tmp_path) == {}
    for text in ("", '{"trials": ', "[]", "3"):
        (tmp_path / "progress.json").write_text(text)
        assert read_progress(tmp_path) == {}


def test_a_folder_that_is_gone_is_not_made_and_a_link_is_not_followed(tmp_path):
    ProgressFile(tmp_path / "gone").write({"trials": 3})
    assert not (tmp_path / "gone").exists()
    target = tmp_path / "precious"
    target.write_text("text")
    (tmp_path / "progress.json").symlink_to(target)
    ProgressFile(tmp_path).write({"trials": 3})
    assert target.read_text() == "text"


def test_a_process_that_has_ended_is_gone(tmp_path):
    lock, node = tmp_path / "lock", os.uname().nodename
    assert not is_dead(tmp_path)
    lock.write_text(f"process {os.getpid()} on {node}")
    assert not is_dead(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    lock.write_text(f"process {child} on {node}")
    assert is_dead(tmp_path)
    lock.write_text(f"process {child} on another-{node}")  # nothing is known of another machine's processes
    assert not is_dead(tmp_path)
