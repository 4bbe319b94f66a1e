"""Every file of a run directory, damaged in every way, through every command that reads it, in this process."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import saesweep
from saesweep.events import BlockDone, Event
from tests.driver.test_several_workers import run_killed, several_workers
from tests.engines.simulated import SimulatedEngine
from tests.fuzz.commands import READERS, RESUMES, command, run_command
from tests.fuzz.damage import damage_bytes, damage_json, damage_json_lines, damage_safetensors
from tests.sweep.studies import small_sweep

_SECRET = "what a link points to"
_OF_SEVERAL = ("driver.json", "reports.jsonl", "blocks.jsonl", "workers/1/blocks.jsonl")
"""What the driver of several workers reads, beside what one worker's run has too."""


def tiny_sweep(*, confirm: bool = False, matched: bool = False) -> dict[str, Any]:
    """Return an experiment of a few blocks, whose rungs prune and whose trials end in different blocks."""
    tree = small_sweep()
    tree["base"]["training_tokens"] = 2560
    tree["base"]["sae"] |= {"d_in": 16, "d_sae": 32}
    tree["space"]["sae.k"] = {"int": [2, 8]}
    tree["space"]["sae.architecture"] = {"choice": ["topk", "standard"]}
    del tree["space"]["sae.l0_coefficient"], tree["by_architecture"]
    tree["evaluation"] = {"select_tokens": 256, "test_tokens": 256}
    tree["search"] |= {"trials": 4}
    tree["cohort"] |= {"size": 2, "block_tokens": 640, "kernels": "reference"}
    if matched:
        tree["objective"] = {"maximize": "explained_variance", "matched": {"l0": [2, 4]}}
        tree["space"] = {"sae.architecture": {"choice": ["topk", "batchtopk"]}}
        tree["search"] = {"sampler": "grid", "pruner": "none", "replicates": 2}
    if confirm:
        tree["search"]["confirm"] = {"top": 2, "replicates": 1, "training_tokens": "1x"}
    return tree


def interrupted(tree: Mapping[str, Any], run_dir: Path, after_blocks: int) -> None:
    """Run with one Ctrl-C after a number of blocks."""
    blocks = 0

    def press(event: Event) -> None:
        nonlocal blocks
        blocks += isinstance(event, BlockDone)
        if isinstance(event, BlockDone) and blocks == after_blocks:
            signal.raise_signal(signal.SIGINT)

    assert saesweep.run(tree, run_dir=run_dir, listeners=[press]).status == "interrupted"


class RunDirectories:
    """A finished run, an interrupted one, one with a confirmation and one interrupted in it, one at matched L0 with replicates,
    one of several workers whose driver was killed, and a place for copies.

    Args:
        folder: Where they lie; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = {name: folder / name for name in ("finished", "begun", "confirmed", "confirming", "matched")}
        self.several = folder / "several"
        # A file that a link may point to, which no command may print or write.
        self.secret = folder / "secret"
        if not folder.exists():
            self._make()
        self.files = {name: self._files(run) for name, run in self.runs.items()}

    def _make(self) -> None:
        self.folder.mkdir(parents=True)
        plain, confirmed = tiny_sweep(), tiny_sweep(confirm=True)
        saesweep.run(plain, run_dir=self.runs["finished"])
        interrupted(plain, self.runs["begun"], 4)
        saesweep.run(confirmed, run_dir=self.runs["confirmed"])
        total = sum(
            '"BlockDone"' in line for line in (self.runs["confirmed"] / "events.jsonl").read_text().splitlines()
        )
        interrupted(confirmed, self.runs["confirming"], total - 1)
        saesweep.run(tiny_sweep(matched=True), run_dir=self.runs["matched"])
        run_killed(SimulatedEngine(2, 2, seed=1, kill_after=9), self.several)
        self.secret.write_text(_SECRET)

    @staticmethod
    def _files(run: Path) -> list[Path]:
        return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name != "report.html")


def _damaged(draw: Any, content: bytes, name: str) -> bytes:
    damage = damage_bytes if draw(st.integers(0, 3)) == 0 else _DAMAGE.get(Path(name).suffix, damage_bytes)
    try:
        return damage(draw, content)
    except (ValueError, struct.error, RecursionError):  # it has been damaged before
        return damage_bytes(draw, content)


def _flipped(draw: Any, content: bytes) -> bytes:
    """Flip bytes of a database where it holds any: most of a page is zeros."""
    used = [i for i, byte in enumerate(content) if byte]
    if not used:
        raise ValueError("nothing to flip")
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 30))):
        damaged[used[draw(st.integers(0, len(used) - 1))]] = draw(st.integers(0, 255))
    return bytes(damaged)


_DAMAGE: dict[str, Callable[[Any, bytes], bytes]] = {
    ".json": damage_json,
    ".jsonl": damage_json_lines,
    ".safetensors": damage_safetensors,
    ".db": _flipped,
}
"""How files of a kind are damaged."""


def _replace(draw: Any, file: Path, world: RunDirectories) -> None:
    """Damage a file's content, or put something else in its place."""
    content = file.read_bytes()
    kind = draw(
        st.sampled_from(["content"] * 12 + ["folder", "link", "empty", "gone", "binary", "pipe", "huge", "deep"])
    )
    if kind == "content":
        file.write_bytes(_damaged(draw, content, file.name))
        return
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "link":
        file.symlink_to(world.secret)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "gone":
        data = {"empty": b"", "binary": b"\xff\x00\xfe\n" * 9, "huge": b"9" * 5000, "deep": b"[" * 100_000}
        file.write_bytes(data[kind])


def _rename(draw: Any, run: Path) -> None:
    """Give a folder of a run a name that looks like a number, and add one more."""
    names = st.sampled_from(["²", "-1", "1e3", "٣", "99999999999999999999999", "00000000", "x"])
    parents = [parent for parent in (run / "checkpoints", run / "trials") if parent.is_dir()]
    for parent in parents[: draw(st.integers(1, 2))]:
        (parent / draw(names)).mkdir(exist_ok=True)
        (parent / draw(names)).with_suffix(".json").write_text("{}")
        for child in sorted(parent.iterdir())[: draw(st.integers(0, 1))]:
            if child.is_dir():
                shutil.copytree(child, parent / draw(names), dirs_exist_ok=True)


def damaged_run_directory(draw: Any, world: RunDirectories, *, resume: bool) -> None:
    """Damage one file or more of a copy of a run directory, then give it to a command.

    Args:
        draw: Draws from hypothesis.
        world: Whole runs.
        resume: Resume the run (slow), or use a command that reads it.

    Raises:
        AssertionError: The command ended otherwise than it should: with a traceback, another exit code, the target of a link
            printed or written, a file touched that is not its own.
    """
    which = draw(st.sampled_from(["begun", "confirming", "begun", "confirmed"] if resume else sorted(world.runs)))
    name = draw(st.sampled_from(RESUMES if resume else READERS))
    with tempfile.TemporaryDirectory(dir=world.folder) as folder:
        run, out = Path(folder) / "run", Path(folder) / "out"
        shutil.copytree(world.runs[which], run)
        out.mkdir()
        if draw(st.integers(0, 19)) == 0:
            _rename(draw, run)
        else:
            for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
                file = run / draw(st.sampled_from(world.files[which]))
                if file.is_file() and not file.is_symlink():
                    _replace(draw, file, world)
        said = run_command(command(name, run, out), Path(folder))
        assert _SECRET not in said, said
    assert world.secret.read_text() == _SECRET


def reading(draw: Any, world: RunDirectories) -> None:
    """Any file of a run directory, through the commands that read it."""
    damaged_run_directory(draw, world, resume=False)


def resuming(draw: Any, world: RunDirectories) -> None:
    """Any file of a run directory, when the run is resumed."""
    damaged_run_directory(draw, world, resume=True)


def of_several(draw: Any, world: RunDirectories) -> None:
    """What the driver of several workers reads when it starts again; the workers train nothing."""
    with tempfile.TemporaryDirectory(dir=world.folder) as folder, several_workers(SimulatedEngine(2, 2, seed=2)):
        run = Path(folder) / "run"
        shutil.copytree(world.several, run)
        _replace(draw, run / draw(st.sampled_from(_OF_SEVERAL)), world)
        said = run_command(command("run", run, Path(folder)), Path(folder))
        assert _SECRET not in said, said
    assert world.secret.read_text() == _SECRET


RUN_TARGETS: dict[str, tuple[Callable[[Any, RunDirectories], None], float]] = {
    "run directory": (reading, 6),
    "resumed directory": (resuming, 1),
    "several workers": (of_several, 0.5),
}
"""What is damaged, how, and its share of the inputs."""
