"""Kills a run, changes its space, kills it again, and checks that nothing that had ended is lost and that kills change nothing.

    python tests/driver/killed_changes.py --every 10

Each process kills itself right before a write: the rename of a file, or the commit of a transaction. The run itself is killed
at some of its writes; from each such state the changed run is killed once before every N-th of its writes, resumed, and
compared with the changed run that nothing disturbed. Prints a line per difference and the verdict; exits 1 where there was one.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import optuna.storages
import sqlalchemy
import torch  # noqa: F401  once, for all processes

import saesweep
import saesweep.driver.runner
import saesweep.worker.worker
from tests.fuzz.run_directories import tiny_sweep
from tests.sweep.studies import snapshot


def before(url: str) -> dict[str, Any]:
    """Return the experiment; with a URL, its study is in a database."""
    tree = tiny_sweep(confirm=False)
    tree["cohort"]["checkpoint_seconds"] = 0.4  # so that the study is ahead of the checkpoint at most kills
    tree["search"] |= {"storage": url} if url else {}
    return tree


def after(url: str) -> dict[str, Any]:
    """Return the same with an added architecture, in front, and more trials."""
    tree = copy.deepcopy(before(url))
    tree["space"]["sae.architecture"] = {"choice": ["batchtopk", "topk", "standard"]}
    tree["search"]["trials"] = 7
    return tree


def main() -> int:
    """Kill, change, kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="kill before every N-th write (default: 1)")
    args = parser.parse_args()
    kills = failures = 0
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        for url in ("", f"sqlite:///{folder}/all.db"):
            writes = _run(before(url), folder, "whole", 0)
            for first_kill in (writes // 4, writes // 2, 3 * writes // 4, writes):
                _forget(folder)
                _run(before(url), folder, "run", first_kill)
                ended = _ended(folder, url)
                _copy(folder, "run", "killed")
                total = _run(after(url), folder, "run", 0)
                expected = _everything(folder, url)
                failures += _differs(f"killed at {first_kill}: lost", ended, _ended(folder, url), only=ended)
                for number in range(1 + first_kill % args.every, total + 1, args.every):
                    _copy(folder, "killed", "run")
                    _run(after(url), folder, "run", number)
                    _run(after(url), folder, "run", 0)
                    kills += 1
                    where = f"{url.partition(':')[0] or 'file'}, killed at {first_kill}, then at {number} of {total}"
                    failures += _differs(where, expected, _everything(folder, url))
    print(f"{kills} kills: " + ("all identical" if not failures else f"{failures} differ"))
    return int(failures > 0)


def _differs(where: str, expected: dict[Any, Any], found: dict[Any, Any], only: Any = None) -> bool:
    keys = expected.keys() | found.keys() if only is None else only
    different = [key for key in keys if found.get(key) != expected.get(key)]
    for key in different[:3]:
        print(f"{where}: {key}: {str(expected.get(key))[:300]} is now {str(found.get(key))[:300]}", flush=True)
    return bool(different)


def _copy(folder: Path, source: str, target: str) -> None:
    """Copy a run directory, and the database that may be beside it."""
    shutil.rmtree(folder / target, ignore_errors=True)
    shutil.copytree(folder / source, folder / target)
    if target == "killed" and (folder / "all.db").exists():
        shutil.copy(folder / "all.db", folder / "killed.db")
    elif (folder / "killed.db").exists():
        shutil.copy(folder / "killed.db", folder / "all.db")
    for left in folder.glob("all.db-*"):
        left.unlink()


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _study(folder: Path, url: str) -> Path:
    return folder / ("all.db" if url else "run/study.db")


def _ended(folder: Path, url: str) -> dict[int, Any]:
    """Return what the study holds of each trial that has ended, by number."""
    if not _study(folder, url).exists():
        return {}
    with closing(sqlite3.connect(_study(folder, url))) as connection:
        lines = connection.execute(
            "select number, state, key, value_json from trials join trial_user_attributes using (trial_id) "
            "where state in ('COMPLETE', 'PRUNED') order by 1, 3"
        ).fetchall()
        values = connection.execute("select number, objective, value from trial_values join trials using (trial_id)")
        found = {number: [line for line in lines if line[0] == number] for number, *_ in lines}
        for number, *value in values.fetchall():
            found[number].append(value)
    return found


def _everything(folder: Path, url: str) -> dict[str, Any]:
    """Return what may not differ between two runs."""
    run = folder / "run"
    if url:
        shutil.copy(folder / "all.db", run / "study.db")
    found = snapshot(run)
    board = json.loads((run / "leaderboard.json").read_text())
    found |= {key: board[key] for key in ("status", "test_metrics", "notes")}
    with closing(sqlite3.connect(run / "study.db")) as connection:
        found["studies"] = connection.execute("select study_name from studies").fetchall()
    found["left"] = [str(path.relative_to(run)) for path in run.rglob(".*")]
    if url:
        (run / "study.db").unlink()
    return found


def _run(tree: dict[str, Any], folder: Path, name: str, kill_at: int) -> int:
    """Run in a process of its own, which kills itself before its `kill_at`-th write; return how many writes it made."""
    count = folder / "writes"
    count.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        if kill_at:
            if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) and status != 0:
                raise SystemExit(f"a run that was to be killed failed: {status}")
            return 0
        if status != 0:
            raise SystemExit(f"{name}: a run failed: {status}")
        return int(count.read_text())
    code = 1
    try:
        writes, replace = 0, os.replace

        def written(*_: Any) -> None:
            nonlocal writes
            writes += 1
            if writes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        def counted(source: Any, target: Any, **options: Any) -> None:
            written()
            replace(source, target, **options)

        os.replace = counted  # type: ignore[assignment]
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", written)
        code = 0 if saesweep.run(tree, run_dir=folder / name, display="none").status == "complete" else 3
        count.write_text(str(writes))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
