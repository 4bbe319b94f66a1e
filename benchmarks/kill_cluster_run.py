"""What `kill_cluster.py` runs and kills: a cluster of two Ray nodes, the command, and what is left of each trial."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.driver.postgres import PASSWORD, PASSWORD_VARIABLE, Server

KINDS = ("worker", "driver", "node", "database", "cluster")
DEADLINE_SECONDS = 600.0
"""A sweep that makes no progress for so long hangs."""


class TwoNodes:
    """Two Ray nodes of one processor each; the first one has Ray's head, and the driver joins there."""

    def __init__(self) -> None:
        self._cluster: Any = None
        self._second: Any = None

    def __enter__(self) -> TwoNodes:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        """Where the driver joins."""
        found: str = self._cluster.address
        return found

    def start(self) -> None:
        """Start both nodes."""
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.add_second()

    def stop(self) -> None:
        """End both at once."""
        if self._second is not None:
            self.lose_second()
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def add_second(self) -> None:
        """Start the second node."""
        self._second = self._cluster.add_node(num_cpus=1)

    def lose_second(self) -> None:
        """End all processes of the second node."""
        node, self._second = self._second, None
        self._cluster.remove_node(node, allow_graceful=False)

    @property
    def has_second(self) -> bool:
        """Whether the second node is there."""
        return self._second is not None

    def workers(self) -> list[psutil.Process]:
        """Return the processes of our workers."""
        found = []
        for node in self._cluster.list_all_nodes():
            for started in node.all_processes["raylet"]:
                try:
                    below = psutil.Process(started.process.pid).children(recursive=True)
                    found += [one for one in below if "RayActor" in " ".join(one.cmdline())]
                except psutil.Error:  # it has just ended
                    continue
        return found


def command(file: Path, run_dir: Path) -> list[str]:
    """Return the one command that starts and resumes."""
    return [sys.executable, "-m", "saesweep", "run", str(file), "--run-dir", str(run_dir), "--display", "none"]


def environment(nodes: TwoNodes | None) -> dict[str, str]:
    """Return the environment of the command."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", PASSWORD_VARIABLE: PASSWORD}
    own.pop("RAY_ADDRESS", None)
    return own if nodes is None else own | {"RAY_ADDRESS": nodes.address}


def run_once(run_dir: Path, tree: dict[str, Any], nodes: TwoNodes | None = None) -> None:
    """Run a sweep to its end, undisturbed."""
    subprocess.run(
        command(_written(run_dir, tree), run_dir), check=True, env=environment(nodes), timeout=DEADLINE_SECONDS
    )


def _written(run_dir: Path, tree: dict[str, Any]) -> Path:
    file = run_dir.with_suffix(".json")
    file.write_text(json.dumps(tree))
    return file


@dataclass(frozen=True)
class Kill:
    """One kill."""

    at: float
    """Share of the sweep that was done."""
    kind: str
    what: str
    """What was killed and how, and for how long it stayed away."""


@dataclass
class Disturbed:
    """One sweep, and what is done to it."""

    run_dir: Path
    nodes: TwoNodes
    server: Server
    dice: random.Random
    kills: list[Kill] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    starts: int = 0
    _driver: subprocess.Popen[bytes] | None = None
    _back: list[tuple[float, str]] = field(default_factory=list)
    """When what stays away comes back."""
    _read_bytes: int = 0
    _done: float = 0.0
    _progressed_at: float = 0.0

    def run(self, tree: dict[str, Any], plan: Sequence[tuple[float, str]]) -> None:
        """Run the sweep to its end; start the command again whenever it has ended before.

        Args:
            tree: The experiment.
            plan: The kills: what is done of the sweep by then, and what is killed.
        """
        file, waiting = _written(self.run_dir, tree), list(plan)
        self._start(file)
        while True:
            time.sleep(0.05)
            self._bring_back()
            self._look()
            assert self._driver is not None
            code = self._driver.poll()
            if code == 0:
                break
            if code is not None:
                self._note("", f"the command ended with code {code}: {self._last_words()}")
                if code not in (2, 130):
                    self.problems.append(
                        f"the command ended with code {code}, which nobody had killed: {self._last_words()}"
                    )
                self._start_again(file)
            elif waiting and self._done >= waiting[0][0] and self._is_time():
                self._kill(waiting.pop(0)[1], file)
            if time.monotonic() - self._progressed_at > DEADLINE_SECONDS:
                self.problems.append(f"no progress for {DEADLINE_SECONDS:.0f} s")
                self._driver.kill()
                self._driver.wait()
                break
        while self._back:
            self._bring_back()
        if waiting:
            self.problems.append(f"{len(waiting)} kills were not made: the sweep had ended")

    # ---------------------------------------------------------------- kills

    def _is_time(self) -> bool:
        """Return whether to kill now: at any moment of the block that follows the one that has made it due."""
        return self.dice.random() < 0.05

    def _kill(self, kind: str, file: Path) -> None:
        assert self._driver is not None
        if kind == "worker":
            found = self.nodes.workers()
            if not found:  # none has begun yet: the next one to fall is the driver
                kind = "driver"
            else:
                process = self.dice.choice(sorted(found, key=lambda one: one.pid))
                self._note(kind, f"SIGKILL to process {process.pid}, one of {len(found)}")
                process.kill()
        if kind == "node" and not self.nodes.has_second:
            kind = "driver"
        if kind == "database" and any(what == "database" for _, what in self._back):
            kind = "driver"
        if kind == "node":
            seconds = self._away(kind, 0, 30)
            self._note(kind, f"all processes of the second node; back after {seconds:.0f} s")
            self.nodes.lose_second()
        elif kind == "database":
            seconds = self._away(kind, 0, 10)
            self._note(kind, f"SIGQUIT to the server; back after {seconds:.0f} s")
            self.server.stop()
        elif kind == "cluster":
            self._note(kind, "all processes of both nodes; the driver must notice")
            self._back = [(when, what) for when, what in self._back if what != "node"]
            self.nodes.stop()
            began = time.monotonic()
            try:
                code = self._wait(120)
                self._note(
                    "",
                    f"the driver ended after {time.monotonic() - began:.0f} s with code {code}: {self._last_words()}",
                )
            except subprocess.TimeoutExpired:
                self.problems.append("the driver did not end within 120 s of the end of its cluster")
                self._driver.kill()
                self._driver.wait()
            self.nodes.start()
            self._start_again(file)
        elif kind == "driver":
            chosen = self.dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            self._note(kind, chosen.name)
            self._driver.send_signal(chosen)
            try:
                self._wait(120)
            except subprocess.TimeoutExpired:
                self.problems.append(f"the driver did not end within 120 s of {chosen.name}")
                self._driver.kill()
                self._driver.wait()
            self._start_again(file)

    def _wait(self, seconds: float) -> int:
        """Wait for the driver to end, and bring back meanwhile what it may wait for; return its code.

        Raises:
            subprocess.TimeoutExpired: It has not ended.
        """
        assert self._driver is not None
        deadline = time.monotonic() + seconds
        while (code := self._driver.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self._driver.args, seconds)
            self._bring_back()
            time.sleep(0.05)
        return code

    def _away(self, what: str, low: float, high: float) -> float:
        seconds = self.dice.uniform(low, high)
        self._back.append((time.monotonic() + seconds, what))
        return seconds

    def _bring_back(self) -> None:
        for when, what in [one for one in self._back if one[0] <= time.monotonic()]:
            self._back.remove((when, what))
            self.server.start() if what == "database" else self.nodes.add_second()

    # ---------------------------------------------------------------- the command

    def _start(self, file: Path) -> None:
        self.starts += 1
        said = self.run_dir.with_suffix(".err").open("ab")
        with said:
            self._driver = subprocess.Popen(
                command(file, self.run_dir),
                env=environment(self.nodes),
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        self._progressed_at = time.monotonic()

    def _start_again(self, file: Path) -> None:
        """Start the command again once everything is there that it needs."""
        while self._back:
            time.sleep(0.05)
            self._bring_back()
        self._start(file)

    def _last_words(self) -> str:
        lines = self.run_dir.with_suffix(".err").read_text(errors="replace").splitlines()
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")

    def _look(self) -> None:
        """Read how much of the sweep is done."""
        path = self.run_dir / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        self._read_bytes += len(whole) + bool(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if event["event"] == "BlockDone":
                self._done = event["sae_tokens"] / event["expected_sae_tokens"]
                self._progressed_at = time.monotonic()

    def _note(self, kind: str, what: str) -> None:
        if kind:
            self.kills.append(Kill(self._done, kind, what))
        number = f"{len(self.kills):>3}" if kind else "   "
        print(f"{number}  {100 * self._done:5.1f}%  {kind:<9} {what}", flush=True)


# ---------------------------------------------------------------- what is left of the trials


@dataclass(frozen=True)
class Ended:
    """One trial as a run left it."""

    params: dict[str, Any]
    joined_at_tokens: int
    has_moved: bool
    metrics: dict[str, float]
    problems: tuple[str, ...]


def ended_as(run_dir: Path, url: str | None, study: str) -> dict[int, Ended]:
    """Return every trial of a run by number, with what is wrong about its end.

    Args:
        run_dir: The run.
        url: The database of its study; None where that is not looked at.
        study: Name of the study.
    """
    board = json.loads((run_dir / "leaderboard.json").read_text())
    assert board["status"] == "complete", board["status"]
    stored = None if url is None else _stored(url, study)
    told = Counter(
        event["number"]
        for event in map(json.loads, (run_dir / "events.jsonl").read_text().splitlines())
        if event["event"] == "TrialEnded"
    )
    found = {}
    for row in board["rows"]:
        number = row["number"]
        record = json.loads((run_dir / "trials" / f"{number:04d}" / "trial.json").read_text())
        log = (run_dir / "trials" / f"{number:04d}" / "metrics.jsonl").read_text().splitlines()
        steps = [line["tokens"] for line in map(json.loads, log) if line["kind"] == "train"]
        problems = []
        if (row["status"], record["status"]) != ("complete", "complete"):
            problems.append(f"trial {number} is {row['status']} on the board and {record['status']} in its record")
        if steps != sorted(set(steps)) or steps[-1] != row["tokens"]:
            problems.append(f"the log of trial {number} repeats or lacks a stretch")
        if told[number] > 1:
            problems.append(f"trial {number} was said to have ended {told[number]} times")
        if stored is not None and stored.get(number) != "COMPLETE":
            problems.append(f"trial {number} is {stored.get(number)} in the study")
        if number in found:
            problems.append(f"trial {number} is twice on the board")
        found[number] = Ended(
            params=record["params"],
            joined_at_tokens=row["joined_at_tokens"],
            has_moved=bool(record.get("moves")),
            metrics=row["metrics"],
            problems=tuple(problems),
        )
    if stored is not None and stored.keys() != found.keys():
        raise AssertionError(f"the study holds trials {sorted(stored)}, and the board {sorted(found)}")
    return found


def _stored(url: str, name: str) -> dict[int, str]:
    from saesweep.study.storage import load_plain_study

    return {trial.number: trial.state.name for trial in load_plain_study(url, name).get_trials(deepcopy=False)}
