"""Kills a run with a confirmation right before each of its renames, resumes it, and compares it with an undisturbed run.

    python benchmarks/kill_renames.py               every rename
    python benchmarks/kill_renames.py --every 10    every tenth

A rename is where a file or folder that was written under another name takes its place. Prints a line per kill that left a
difference or a temporary file, and the verdict; exits 1 where there was one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.run_directories import tiny_sweep
from tests.sweep.studies import snapshot


def main() -> int:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="kill before every N-th rename (default: 1)")
    parser.add_argument("--first", type=int, default=1, help="the first rename to kill before (default: 1)")
    args = parser.parse_args()
    started, kills, failures = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        if _run(whole, kill_at=0, count=folder / "renames") != 0:
            raise SystemExit("the undisturbed run failed")
        renames, expected = int((folder / "renames").read_text()), _everything(whole)
        for number in range(args.first, renames + 1, args.every):
            killed = folder / "killed"
            status = _run(killed, kill_at=number)
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
                raise SystemExit(f"the run was not killed at rename {number}: status {status}")
            kills += 1
            problem = _resume(killed, expected)
            failures += problem is not None
            if problem is not None:
                print(f"killed before rename {number} of {renames}: {problem}", flush=True)
            shutil.rmtree(killed)
    verdict = "all identical" if not failures else f"{failures} differ"
    print(f"{kills} kills of {renames} renames in {time.monotonic() - started:.0f} s: {verdict}")
    return int(failures > 0)


def _resume(run_dir: Path, expected: dict[str, Any]) -> str | None:
    """Resume a killed run; return what is wrong with the result, None where nothing is."""
    status = _run(run_dir, kill_at=0)
    if status != 0:
        return f"it could not be resumed: exit code {os.waitstatus_to_exitcode(status)}"
    left = [str(path.relative_to(run_dir)) for path in run_dir.rglob(".*")]
    if left:
        return f"left behind: {', '.join(left)}"
    found = _everything(run_dir)
    different = [name for name in expected if found.get(name) != expected[name]]
    return f"different: {', '.join(different)}" if different or found.keys() != expected.keys() else None


def _everything(run_dir: Path) -> dict[str, Any]:
    """Return what may not differ: of the search, of its confirmation, and what was exported."""
    board = json.loads((run_dir / "leaderboard.json").read_text())
    (confirmation,) = (run_dir / "confirm").iterdir()
    return {
        "search": snapshot(run_dir),
        "confirmation": snapshot(confirmation),
        "board": {key: board[key] for key in ("status", "best", "rows", "test_metrics", "notes", "confirm")},
        "exports": sorted(str(path.relative_to(run_dir)) for path in run_dir.glob("[bp]*/**/*.*")),
    }


def _run(run_dir: Path, *, kill_at: int, count: Path | None = None) -> int:
    """Run in a process of its own, which kills itself before its `kill_at`-th rename; return how it ended."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    try:
        import saesweep

        renames, replace = 0, os.replace

        def counted(source: Any, target: Any, **options: Any) -> None:
            nonlocal renames
            renames += 1
            if renames == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target, **options)

        os.replace = counted  # type: ignore[assignment]
        code = 0 if saesweep.run(tiny_sweep(confirm=True), run_dir=run_dir).status == "complete" else 3
        if count is not None:
            count.write_text(str(renames))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
