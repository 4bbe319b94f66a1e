"""The commands that read a run directory, and what every one of them must do: end, with an exit code and without a traceback."""

from __future__ import annotations

import contextlib
import io
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saesweep.cli import main
from tests.fuzz.watch import watched

READERS = ("leaderboard", "details", "json", "watch", "report", "export", "export trial", "push", "push pareto")
READERS += ("eval", "eval run", "features", "validate")
RESUMES = ("run", "run", "run", "plan from cfg", "warm start", "references", "pretrained")
"""Those that read a run, and those that train from one."""
_SECONDS = 300
"""No command takes that long on these runs, however busy the machine: it hangs."""


def command(name: str, run: Path, out: Path) -> list[str]:
    """Return the arguments of a command on a run directory that may write in `out`."""
    experiment = str(run / "experiment.yaml")
    new = ["run", experiment, "--run-dir", str(out / "new"), "--display", "none", "--set", "name=new"]
    return {
        "leaderboard": ["leaderboard", str(run)],
        "details": ["leaderboard", str(run), "--details"],
        "json": ["leaderboard", str(run), "--json"],
        "watch": ["leaderboard", str(run), "--watch"],
        "report": ["report", str(run), "--no-features", "--no-png", "--to", str(out / "report")],
        "export": ["export", str(run), "--to", str(out / "sae")],
        "export trial": ["export", str(run), "--trial", "0", "--to", str(out / "sae")],
        "push": ["push", str(run), "--repo", "a/b", "--dry-run"],
        "push pareto": ["push", str(run), "--repo", "a/b", "--dry-run", "--pareto"],
        "eval": ["eval", str(run / "best"), "--json"],
        "eval run": ["eval", str(run), "--experiment", experiment, "--json"],
        "features": ["features", str(run), "--to", str(out / "features.html")],
        "validate": ["validate", experiment],
        "plan from cfg": ["plan", experiment, "--set", f"base.from_cfg={run / 'best'}"],
        "run": ["run", experiment, "--run-dir", str(run), "--display", "none"],
        "warm start": [*new, "--set", f"search.warm_start=[{run}]"],
        "references": [*new, "--set", f"evaluation.references=[{run / 'best'}]"],
        "pretrained": [*new, "--set", f"base.from_pretrained_path={run / 'best'}"],
    }[name]


def run_command(argv: list[str], *folders: Path) -> str:
    """Run a command in this process and return what it printed.

    Raises:
        AssertionError: It did not end as commands do.
    """
    printed = io.StringIO()
    code: Any = None
    tempfile.tempdir = str(folders[0])
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        watched(*folders),
        within_seconds(_SECONDS, " ".join(argv)),
    ):
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


class Hang(BaseException):
    """A command did not end; nothing in it may catch this."""


@contextlib.contextmanager
def within_seconds(seconds: int, what: str) -> Iterator[None]:
    """Fail where the block takes longer.

    Raises:
        AssertionError: It does.
    """

    def expire(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    except Hang as error:
        raise AssertionError(f"{what}: still not at its end after {seconds} s") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
