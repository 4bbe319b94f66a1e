"""Every file of a run directory, damaged in every way, through every command that reads it, in this process."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import saesweep
from saesweep.cli import main
from saesweep.events import BlockDone, Event
from tests.fuzz.damage import damage_bytes, damage_json, damage_json_lines, damage_safetensors
from tests.fuzz.watch import watched
from tests.sweep.studies import small_sweep

_SECRET = "what a link points to"
_READERS = ("leaderboard", "details", "json", "report", "export", "push", "push pareto", "eval", "eval run", "validate")
_RESUMES = ("run", "run", "run", "plan from cfg")


def tiny_sweep(*, confirm: bool) -> dict[str, Any]:
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
    """A finished run, an interrupted one, one with a confirmation and one interrupted in it, and a place for copies.

    Args:
        folder: Where they lie; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = {name: folder / name for name in ("finished", "begun", "confirmed", "confirming")}
        # A file that a link may point to, which no command may print or write.
        self.secret = folder / "secret"
        if not folder.exists():
            self._make()
        self.files = {name: self._files(run) for name, run in self.runs.items()}

    def _make(self) -> None:
        self.folder.mkdir(parents=True)
        plain, confirmed = tiny_sweep(confirm=False), tiny_sweep(confirm=True)
        saesweep.run(plain, run_dir=self.runs["finished"])
        interrupted(plain, self.runs["begun"], 4)
        saesweep.run(confirmed, run_dir=self.runs["confirmed"])
        total = sum(
            '"BlockDone"' in line for line in (self.runs["confirmed"] / "events.jsonl").read_text().splitlines()
        )
        interrupted(confirmed, self.runs["confirming"], total - 1)
        self.secret.write_text(_SECRET)

    @staticmethod
    def _files(run: Path) -> list[Path]:
        return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name != "report.html")


def _damaged(draw: Any, content: bytes, name: str) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        return damage_bytes(draw, content)
    if name.endswith(".json"):
        return damage_json(draw, content)
    if name.endswith(".jsonl") and content:
        return damage_json_lines(draw, content)
    if name.endswith(".safetensors"):
        return damage_safetensors(draw, content)
    if name.endswith(".db"):
        return _flipped(draw, content)
    return damage_bytes(draw, content)


def _flipped(draw: Any, content: bytes) -> bytes:
    """Flip bytes of a database where it holds any: most of a page is zeros."""
    used = [i for i, byte in enumerate(content) if byte]
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 30))):
        damaged[used[draw(st.integers(0, len(used) - 1))]] = draw(st.integers(0, 255))
    return bytes(damaged)


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


def _command(name: str, run: Path, out: Path) -> list[str]:
    experiment = str(run / "experiment.yaml")
    return {
        "leaderboard": ["leaderboard", str(run)],
        "details": ["leaderboard", str(run), "--details"],
        "json": ["leaderboard", str(run), "--json"],
        "report": ["report", str(run), "--no-features", "--no-png", "--to", str(out / "report")],
        "export": ["export", str(run), "--to", str(out / "sae")],
        "push": ["push", str(run), "--repo", "a/b", "--dry-run"],
        "push pareto": ["push", str(run), "--repo", "a/b", "--dry-run", "--pareto"],
        "eval": ["eval", str(run / "best"), "--json"],
        "eval run": ["eval", str(run), "--experiment", experiment, "--json"],
        "validate": ["validate", experiment],
        "plan from cfg": ["plan", experiment, "--set", f"base.from_cfg={run / 'best'}"],
        "run": ["run", experiment, "--run-dir", str(run), "--display", "none"],
    }[name]


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
    name = draw(st.sampled_from(_RESUMES if resume else _READERS))
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
        said = run_command(_command(name, run, out), Path(folder))
        assert _SECRET not in said, said
    assert world.secret.read_text() == _SECRET


def run_command(argv: list[str], *folders: Path) -> str:
    """Run a command in this process and return what it printed.

    Raises:
        AssertionError: It did not end as commands do.
    """
    printed = io.StringIO()
    code: Any = None
    tempfile.tempdir = str(folders[0])
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), watched(*folders):
        try:
            code = main(argv)
        except SystemExit as error:
            code = error.code
        finally:
            tempfile.tempdir = None
    said = printed.getvalue()
    for bad in ("Traceback", "bug in saesweep"):
        assert bad not in said, f"{' '.join(argv)}\n{said}"
    assert code in (0, 1, 2), f"{' '.join(argv)}: exit code {code}\n{said}"
    assert code != 2 or said.strip(), f"{' '.join(argv)}: exit code 2 without a word"
    return said


def reading(draw: Any, world: RunDirectories) -> None:
    """Any file of a run directory, through the commands that read it."""
    damaged_run_directory(draw, world, resume=False)


def resuming(draw: Any, world: RunDirectories) -> None:
    """Any file of a run directory, when the run is resumed."""
    damaged_run_directory(draw, world, resume=True)


RUN_TARGETS: dict[str, tuple[Callable[[Any, RunDirectories], None], float]] = {
    "run directory": (reading, 6),
    "resumed directory": (resuming, 1),
}
"""What is damaged, how, and its share of the inputs."""
