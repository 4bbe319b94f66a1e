"""Everything that is to be measured on one GPU, in one command of less than 9 minutes, with the table at the end.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --smoke --json smoke.json        # every section on the CPU, at tiny shapes: shows that it runs

What must be installed beforehand, since nothing is downloaded: this interpreter needs PyTorch for CUDA with Triton, a C compiler
for Triton, saesweep's own dependencies and pytest; the interpreter of `--peer-python` needs PyTorch for CUDA, pydantic, SAELens
6.54.12 and, for its column, dictionary_learning 0.1.0 (`make bench-env` installs these versions, on a CPU build where the index
has one). It may be a script that sets PYTHONPATH and starts one. Without SAELens its columns say so.

Sections, in this order, each with a share of the time; what that does not suffice for is "not measured (time)":

- `steps`: ms of a whole training step with Adam, per SAE; SAELens one after another and as multi trainer with its `autocast`, at S
  also without; dictionary_learning at M and XL. All take turns on the same activations; medians of the turns.
- `launches`: operators that a step starts and values that it reads, with one SAE and with all (Triton kernels are no operators;
  the profiler counts them), the waits that PyTorch reports, the GPU's busy share, and a step against its floor: encoder product,
  Adam's bytes, and the pre-activations read and written once.
- `memory`: what the planner says against the allocator's peak, 1 to 32 SAEs; without a GPU against what a step would allocate.
- `exactness`: gradients against float64; two runs, same bits.
- `end_to_end`: a sweep of 16 SAEs on a random model of Gemma-2-2B's shape, against SAELens' multi runner.
- `tests`: `pytest -m gpu`.

Every figure is in the JSON file as soon as it is there. Exit code 1 where a section failed otherwise than by time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from cohort_setup import COUNTED, Setup
from gpu_end_to_end import TINY, Shape, place
from gpu_table import table
from subject import Subject

HERE = Path(__file__).resolve().parent
LATE = "not measured (time)"


@dataclass(frozen=True)
class Case:
    """A shape whose step is measured, and how many times as fast as SAELens it is to be."""

    size: str
    slots: int
    architecture: str
    phase: str = "sparse"
    goal: float | None = None

    def setup(self, device: str, *, autocast: bool = False) -> Setup:
        """Return it as the workers take it."""
        return Setup(self.size, self.architecture, self.phase, 0.0, self.slots, device=device, autocast=autocast)


STEPS = (
    Case("XL", 8, "topk", goal=3.0),
    Case("XL", 8, "batchtopk", goal=3.0),
    Case("XL", 8, "standard", "sparse", goal=2.0),
    Case("XL", 8, "standard", "dense", goal=1.2),
    Case("XL", 8, "jumprelu", "sparse", goal=2.0),
    Case("XL", 8, "jumprelu", "dense", goal=1.2),
    Case("XL", 8, "gated", "sparse", goal=2.0),
    Case("XL", 8, "gated", "dense", goal=1.2),
    Case("M", 8, "topk", goal=5.0),
    Case("S", 32, "topk", goal=20.0),
    Case("wide", 1, "topk"),
    Case("M", 8, "batchtopk"),
)
LAUNCHES = tuple(
    Case(size, slots, architecture)
    for size, slots in (("S", 32), ("M", 8), ("XL", 8))
    for architecture in ("topk", "batchtopk", "standard")
)
MEMORY = tuple(
    Case(size, slots, architecture, "dense")
    for architecture in ("topk", "standard")
    for size, counts in (("S", (1, 32)), ("M", (1, 2, 4, 8, 16, 32)), ("XL", (1, 8, 32)), ("wide", (1, 4)))
    for slots in counts
)
EXACTNESS = tuple(Case("M", 2, name) for name in (*COUNTED[:3], "standard", "jumprelu", "gated"))
SECONDS = {"steps": 215, "launches": 50, "memory": 35, "exactness": 35, "end_to_end": 110, "tests": 60}
"""Of each section; the last one gets what is left."""


class LateError(Exception):
    """The time of a section is over."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise a LateError in the context when the time is over."""

    def late(number: int, frame: FrameType | None) -> None:
        raise LateError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Session:
    """The two processes, the results so far, and the time that is left."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.device = "cpu" if args.smoke else "cuda"
        self.deadline = time.monotonic() + 60 * args.minutes
        self.results: dict[str, Any] = {"command": sys.argv[1:], "about": {}, "sections": {}}
        self._processes: dict[str, Subject] = {}

    def ask(self, side: str, command: dict[str, Any]) -> dict[str, Any]:
        """Let a side carry out a command; a side that is not running is started."""
        if side not in self._processes:
            python = sys.executable if side == "ours" else str(self.args.peer_python)
            self._processes[side] = Subject(side, [python, str(HERE / "gpu_worker.py"), side], ours=side == "ours")
            self.results["about"][side] = self._processes[side].about
        try:
            return self._processes[side].ask(json.dumps(command))
        except SystemExit as died:
            del self._processes[side]
            return {"error": str(died).strip().splitlines()[-1]}

    def note(self, section: str, case: str, found: dict[str, Any]) -> None:
        """Keep a result, on disk too."""
        self.results["sections"].setdefault(section, {})[case] = found
        self.args.json.write_text(json.dumps(self.results, indent=1) + "\n")
        print(f"{section} {case}: {json.dumps(found)[:200]}", flush=True)

    def is_known(self, section: str, case: str) -> bool:
        """Return whether a result is there."""
        return case in self.results["sections"].get(section, {})

    def stop(self) -> None:
        """End the processes, also ones that are busy."""
        for process in self._processes.values():
            process.kill()
        self._processes.clear()

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()


def name_of(case: Case) -> str:
    """Return what a case is called in the results."""
    phase = "" if case.architecture in COUNTED else f" {case.phase}"
    return f"{case.size} {case.architecture}{phase} N={case.slots}"


def steps(session: Session, cases: tuple[Case, ...]) -> None:
    """Let all subjects of each case take turns."""
    for case in cases:
        subjects = [("saesweep", "ours", False)]
        if case.architecture not in COUNTED:
            subjects.append(("saesweep autocast", "ours", True))
        if session.args.peer_python is not None:
            subjects += [("saelens autocast", "peers", True), ("saelens_multi autocast", "peers", True)]
            if case.size in ("S", "tiny"):
                subjects += [("saelens", "peers", False), ("saelens_multi", "peers", False)]
            if case.architecture == "topk" and case.size in ("M", "XL", "tiny"):
                subjects.append(("dictionary_learning", "peers", False))
        found: dict[str, Any] = {"goal": case.goal}
        turns: dict[str, int] = {}
        for side in ("ours", "peers"):
            if any(one == side for _, one, _ in subjects):
                session.ask(side, {"drop": True})
        for subject, side, autocast in subjects:
            setup = case.setup(session.device, autocast=autocast).to_json()
            built = session.ask(side, {"build": subject, "subject": subject.split()[0], "setup": setup})
            first = built if "error" in built else session.ask(side, {"steps": 2, "of": subject})
            found[subject] = {**built, "turns": []}
            if "error" in first:
                found[subject]["error"] = first["error"]
            else:
                a_step = first["ms"] * built["saes"]
                turns[subject] = max(2, round(1e3 * session.args.turn_seconds / max(a_step, 1e-3)))
        for _ in range(session.args.rounds):
            for subject, side, _ in subjects:
                if subject in turns:
                    turn = session.ask(side, {"steps": turns[subject], "of": subject})
                    found[subject]["turns"].append(turn.get("ms"))
        for subject in turns:
            found[subject]["ms"] = statistics.median(found[subject]["turns"])
        session.note("steps", name_of(case), found)


def looks(section: str, names: tuple[str, ...]) -> Callable[[Session, tuple[Case, ...]], None]:
    """Return a section that calls functions of `gpu_ours.py` for each case."""

    def run(session: Session, cases: tuple[Case, ...]) -> None:
        session.ask("ours", {"drop": True})
        for case in cases:
            found: dict[str, Any] = {}
            for name in names:
                setup = case.setup(session.device).to_json()
                answer = session.ask("ours", {"look": name, "setup": setup})
                # Two of them may have nothing to say, each for a reason of its own.
                found |= {f"{name}_{key}" if key in ("error", "not_measured") else key: v for key, v in answer.items()}
            session.note(section, name_of(case), found)

    return run


def end_to_end(session: Session, _: tuple[Case, ...]) -> None:
    """Run both sweeps in a process that can be ended."""
    session.stop()  # their memory is needed
    peer = "" if session.args.peer_python is None else str(session.args.peer_python)
    device, tiny = session.device, "1" if session.args.smoke else "0"
    topk = session.results["sections"].get("steps", {}).get(name_of(STEPS[0]), {}).get("saesweep", {})
    # The run need not spend half a minute on what was measured for this shape.
    kernels = {"SAESWEEP_KERNELS": json.dumps(topk["kernels"])} if "kernels" in topk else {}
    shape = TINY if session.args.smoke else Shape()
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryDirectory(dir=place(shape)) as work:
        command = [sys.executable, str(HERE / "gpu_end_to_end.py"), device, tiny, work, peer]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env=os.environ | kernels,
        )
        assert process.stdout is not None
        with ended_with(process), process.stdout:
            for line in process.stdout:
                side, found = json.loads(line)
                session.note("end_to_end", side, found)
            process.wait()
        if process.returncode:
            errors.seek(0)
            session.note("end_to_end", "set-up", {"error": errors.read().strip()[-500:]})


def tests(session: Session, _: tuple[Case, ...]) -> None:
    """Run the tests that need a GPU; where time ends them, what had passed is kept."""
    # Others' modules may need what this machine has not got.
    files = [str(file) for file in sorted((HERE.parent / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    marks = ["--collect-only", "-m", "gpu"] if session.args.smoke else ["-m", "gpu"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *marks, *files]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, cwd=HERE.parent, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            with ended_with(process):
                process.wait()
        finally:
            said.seek(0)
            lines = [line for line in said.read().splitlines() if line.strip()] or [""]
            failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
            found: dict[str, Any] = {"summary": lines[-1], "failed": failed[:20]}
            if process.returncode not in (0, -signal.SIGKILL):
                found["error"] = f"exit code {process.returncode}"
            session.note("tests", "pytest -m gpu", found)


@contextmanager
def ended_with(process: subprocess.Popen[str]) -> Iterator[None]:
    """End a process, and those that it started, where the context is left before it has ended."""
    try:
        yield
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


SECTIONS: dict[str, tuple[Callable[[Session, tuple[Case, ...]], None], tuple[Case, ...]]] = {
    "steps": (steps, STEPS),
    "launches": (looks("launches", ("launches", "profile", "floor")), LAUNCHES),
    "memory": (looks("memory", ("memory",)), MEMORY),
    "exactness": (looks("exactness", ("exactness", "same_bits")), EXACTNESS),
    "end_to_end": (end_to_end, ()),
    "tests": (tests, ()),
}


def tiny(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """Return what `--smoke` makes of a section's cases: one of each architecture and phase, at a size for CPUs."""
    small = (replace(case, size="tiny", slots=min(case.slots, 2), goal=None) for case in cases)
    return tuple(dict.fromkeys(small))


def parse() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="results as they come (default: gpu.json)")
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter with SAELens (default: .venv-bench/bin/python, if it is there)"
    )
    parser.add_argument("--no-peers", action="store_true", help="measure this package alone")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=8.7, help="when everything must have ended (default: 8.7)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each subject (default: 3)")
    parser.add_argument("--turn-seconds", type=float, default=0.4, help="length of a turn (default: 0.4)")
    parser.add_argument("--smoke", action="store_true", help="every section on the CPU at tiny shapes")
    args = parser.parse_args()
    if unknown := set(args.sections.split(",")) - set(SECTIONS):
        parser.error(f"--sections: {', '.join(sorted(unknown))} is not one of {', '.join(SECTIONS)}")
    usual = HERE.parent / ".venv-bench" / "bin" / "python"
    if args.no_peers:
        args.peer_python = None
    elif args.peer_python is None:
        args.peer_python = usual if usual.exists() else None
    elif not args.peer_python.exists():
        parser.error(f"--peer-python: {args.peer_python} does not exist")
    if args.smoke:
        args.rounds, args.turn_seconds = 1, 0.01
    return args


def main() -> int:
    """Measure, print the table, and return the exit code."""
    args = parse()
    if not args.smoke:
        import torch

        if not torch.cuda.is_available():
            raise SystemExit("gpu.py: this machine has no CUDA device; --smoke shows on a CPU that everything runs")
    session = Session(args)
    wanted = args.sections.split(",")
    for section, (run, cases) in SECTIONS.items():
        if section not in wanted:
            continue
        is_last = section == wanted[-1]
        seconds = min(session.left() - 5, session.left() if is_last or args.smoke else SECONDS[section])
        todo = tiny(cases) if args.smoke else cases
        started = time.monotonic()
        try:
            with at_most(seconds):
                run(session, todo)
        except LateError:
            session.stop()
            missing = [name_of(case) for case in todo if not session.is_known(section, name_of(case))]
            for name in missing or [section]:
                session.note(section, name, {"late": LATE})
        session.results["about"][f"{section}_seconds"] = round(time.monotonic() - started, 1)
    session.stop()
    args.json.write_text(json.dumps(session.results, indent=1) + "\n")
    print("\n" + table(session.results))
    return int(has_failed(session.results))


def has_failed(results: dict[str, Any]) -> bool:
    """Return whether ours failed anywhere; a peer that does not run is a peer's matter."""
    for section, cases in results["sections"].items():
        for case, found in cases.items():
            mine = [found[name] for name in found if name.startswith("saesweep")] if section == "steps" else [found]
            if case != "saelens_multi" and any(key.endswith("error") for one in mine for key in one):
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
