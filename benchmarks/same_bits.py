"""Whether a change of the code leaves every result as it was, to the last bit: studies, metrics, weights, boards, events.

    python benchmarks/same_bits.py record before      # on the old code
    python benchmarks/same_bits.py record after       # on the new code, same machine and thread count
    python benchmarks/same_bits.py compare before after

`record` runs small versions of the shipped experiments and of the features that go through the run loop (matched L0,
replicates, confirmation, snapshots, several streams, an interruption that is resumed) into a folder; `compare` names each
file or table that differs and exits with 1. With names after the folder only those cases run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Tree = dict[str, Any]
_SHIPPED = Path(__file__).resolve().parents[1] / "experiments"
_CLOCK = ("time_seconds", "seconds", "sae_tokens_per_second", "eta_seconds", "run_dir", "best_dir", "resume_command")
"""What a clock or a folder decides in an event."""


def _shipped(name: str, *overrides: str) -> Tree:
    from saesweep.experiment import load_experiment

    return dict(load_experiment(_SHIPPED / name, overrides=overrides).written)


def _small() -> Tree:
    from tests.sweep.studies import small_sweep

    return small_sweep()


def _matched() -> Tree:
    from tests.sweep.test_matched_run import matched_sweep

    return matched_sweep()


def _confirmed() -> Tree:
    tree = _small()
    tree["objective"] = {"maximize": "explained_variance", "subject_to": {"l0": {"max": 20}}}
    tree["search"] |= {"replicates": 2, "confirm": {"top": 2, "replicates": 2, "training_tokens": "2x"}}
    return tree


def _snapshots() -> Tree:
    tree = _small()
    tree["base"] |= {"n_checkpoints": 2, "save_final_checkpoint": True}
    tree["search"]["trials"] = 5
    return tree


def _streams() -> Tree:
    from tests.sweep.test_streams import two_streams

    return two_streams()


def _quickstart() -> Tree:
    return _shipped("quickstart.yaml", "base.training_tokens=60k", "search.trials=8", "evaluation.test_tokens=8k")


CASES: dict[str, tuple[Callable[[], Tree], int | None]] = {
    "synthetic": (lambda: _shipped("synthetic.yaml", "base.training_tokens=100k"), None),
    "quickstart": (_quickstart, None),
    "quickstart-resumed": (_quickstart, 2),
    "small": (_small, None),
    "matched": (_matched, None),
    "matched-resumed": (_matched, 7),
    "confirmed": (_confirmed, None),
    "snapshots": (_snapshots, None),
    "streams": (_streams, None),
    "streams-resumed": (_streams, 12),
}
"""By name: the experiment, and the block after which it is interrupted and resumed."""


def record(folder: Path, names: list[str]) -> None:
    """Run the cases."""
    import saesweep
    from saesweep.events import BlockDone

    print(f"saesweep of {Path(saesweep.__file__).parent}")
    for name in names or list(CASES):
        make, stop_after = CASES[name]
        started, blocks, run_dir = time.monotonic(), 0, folder / name
        if stop_after is not None:

            def press(event: Any, stop_after: int = stop_after) -> None:
                nonlocal blocks
                blocks += isinstance(event, BlockDone)
                if isinstance(event, BlockDone) and blocks == stop_after:
                    signal.raise_signal(signal.SIGINT)

            assert saesweep.run(make(), run_dir=run_dir, listeners=[press]).status == "interrupted"
        result = saesweep.run(make(), run_dir=run_dir)
        assert result.status == "complete", result.status
        print(f"{name}: {len(result.rows)} trials, {time.monotonic() - started:.1f} s")


def facts(run_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, value or hash) of everything about a run that neither clock nor folder may change."""
    from tests.sweep.studies import snapshot

    for study in sorted(run_dir.rglob("study.db")):
        for table, rows in snapshot(study.parent)["study"].items():
            yield f"{study.relative_to(run_dir)}: {table}", repr(rows)
    for file in sorted(
        p for p in run_dir.rglob("*") if p.is_file() and "checkpoints" not in p.relative_to(run_dir).parts
    ):
        name = str(file.relative_to(run_dir))
        if file.name in (
            "leaderboard.json",
            "metrics.jsonl",
            "trial.json",
            "cfg.json",
            "runner_cfg.json",
            "sparsity.json",
        ):
            yield name, file.read_text()
        elif file.suffix == ".safetensors":
            yield name, hashlib.sha256(file.read_bytes()).hexdigest()
        elif file.name == "provenance.json":
            yield name, file.read_text()
        elif file.name == "events.jsonl":
            for number, event in enumerate(_events(file)):
                yield f"{name}, event {number}", event


def _events(file: Path) -> Iterator[str]:
    for line in file.read_text().splitlines():
        event = {key: value for key, value in json.loads(line).items() if key not in _CLOCK}
        if event["event"] != "CheckpointSaved":  # when one is due, the clock decides
            text = json.dumps(event, sort_keys=True).replace(str(file.parent), "RUN")
            # What the machine has free at the time, and whether it has measured its kernels before.
            text = re.sub(r"[0-9.]+ GiB free", "some GiB free", text)
            yield re.sub(r"measured (now, kept in|earlier on this machine) [^ )]*", "measured", text)


def compare(before: Path, after: Path) -> int:
    """Print what differs and return the exit code."""
    differing = 0
    for run_dir in sorted(path for path in before.iterdir() if path.is_dir()):
        if not (after / run_dir.name).is_dir():
            print(f"{run_dir.name}: not recorded after")
            continue
        old, new = dict(facts(run_dir)), dict(facts(after / run_dir.name))
        changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        differing += len(changed)
        print(f"{run_dir.name}: {len(old)} facts, {'identical' if not changed else f'{len(changed)} DIFFER'}")
        for key in changed[:10]:
            print(f"  {key}\n    before: {str(old.get(key))[:400]}\n    after:  {str(new.get(key))[:400]}")
    return int(differing > 0)


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("folder", type=Path)
    recording.add_argument("names", nargs="*", choices=[*CASES, []])
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "compare":
        return compare(args.before, args.after)
    record(args.folder, list(args.names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
