"""What a person sees in the first seconds of `saesweep run`, and how long nothing moves: measured in a pseudo-terminal.

    python benchmarks/first_seconds.py experiments/quickstart.yaml --columns 80 120 200
    python benchmarks/first_seconds.py my.yaml --set search.trials=4 --resume 20 --screens screens/

Prints a Markdown table: seconds to the first output, to the first change after it, and the longest silence. `--resume`
interrupts each run by Ctrl-C after so many seconds and measures the run that resumes it too. The command and its clock
start together, so that the start of Python counts.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import signal
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = 40


@dataclass(frozen=True)
class Recording:
    """What came out of a pseudo-terminal, and when."""

    columns: int
    pieces: tuple[tuple[float, str], ...]
    """(seconds since the start, text)."""
    exit_code: int
    seconds: float

    @property
    def first_output(self) -> float:
        """Seconds to the first visible character."""
        return next((at for at, text in self.pieces if _visible(text)), float("inf"))

    @property
    def first_movement(self) -> float:
        """Seconds to the first output after that."""
        return next((at for at, _ in self.pieces if at > self.first_output + 0.05), float("inf"))

    @property
    def longest_silence(self) -> float:
        """Seconds of the longest time without output, from the start to the end."""
        times = [0.0, *(at for at, _ in self.pieces), self.seconds]
        return max(after - before for before, after in pairwise(times))

    @property
    def text(self) -> str:
        """All of the output."""
        return "".join(text for _, text in self.pieces)


def record(
    command: list[str],
    *,
    columns: int,
    interrupt_after: float | None = None,
    interrupt_at: str = "",
    env: dict[str, str] | None = None,
) -> Recording:
    """Run a command in a pseudo-terminal.

    Args:
        command: The command.
        columns: Width of the terminal.
        interrupt_after: Press Ctrl-C once after so many seconds.
        interrupt_at: Press Ctrl-C once this text has come, where it is not empty.
        env: Environment variables beside those of this process.
    """
    began = time.monotonic()
    child, master = pty.fork()
    if child == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        surroundings = {name: value for name, value in os.environ.items() if name not in ("CI", "SAESWEEP_DISPLAY")}
        os.execvpe(command[0], command, {**surroundings, "TERM": "xterm-256color", **(env or {})})
    if interrupt_after is not None:
        signal.signal(signal.SIGALRM, lambda *_: os.write(master, b"\x03"))
        signal.setitimer(signal.ITIMER_REAL, interrupt_after)
    pieces = []
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        pieces.append((time.monotonic() - began, data.decode(errors="replace")))
        if interrupt_at and interrupt_at in "".join(text for _, text in pieces[-2:]):
            os.write(master, b"\x03")
            interrupt_at = ""
    signal.setitimer(signal.ITIMER_REAL, 0)
    _, status = os.waitpid(child, 0)
    os.close(master)
    return Recording(columns, tuple(pieces), os.waitstatus_to_exitcode(status), time.monotonic() - began)


def _visible(text: str) -> bool:
    """Return whether there is more in a piece than what moves or hides the cursor."""
    plain, in_control = [], False
    for character in text:
        if character == "\x1b":
            in_control = True
        elif in_control:
            in_control = not (character.isalpha())
        else:
            plain.append(character)
    return bool("".join(plain).strip())


def main() -> None:
    """Record and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default=str(ROOT / "experiments/quickstart.yaml"))
    parser.add_argument("--columns", type=int, nargs="+", default=[80, 120, 200])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--resume", type=float, help="interrupt after so many seconds, and measure the resumed run too")
    parser.add_argument("--screens", type=Path, help="keep each recording there, as JSON lines of (seconds, text)")
    args = parser.parse_args()
    print("| run | columns | first output (s) | first movement (s) | longest silence (s) | whole (s) | exit code |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for columns in args.columns:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "saesweep", "run", args.experiment, "--run-dir", f"{folder}/run"]
            for override in args.overrides:
                command += ["--set", override]
            env = {"PYTHONPATH": str(ROOT)}
            runs = [("run", args.resume)] if args.resume is None else [("interrupted", args.resume), ("resumed", None)]
            for name, after in runs:
                found = record(command, columns=columns, interrupt_after=after, env=env)
                print(
                    f"| {name} | {columns} | {found.first_output:.1f} | {found.first_movement:.1f} | "
                    f"{found.longest_silence:.1f} | {found.seconds:.0f} | {found.exit_code} |",
                    flush=True,
                )
                if args.screens is not None:
                    args.screens.mkdir(parents=True, exist_ok=True)
                    lines = "\n".join(json.dumps(piece) for piece in found.pieces)
                    (args.screens / f"{name}-{columns}.jsonl").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
