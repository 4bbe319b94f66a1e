"""A subject of a benchmark in its own process, which answers every line that it is sent with a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Subject:
    """The process; its first line says what it is.

    Args:
        name: For messages.
        command: What to start.
        env: Environment variables besides those of this process.
        ours: Whether the subject is this repository's code, which it must then find.
    """

    def __init__(self, name: str, command: list[str], *, ours: bool, env: dict[str, str] | None = None) -> None:
        self.name = name
        environment = os.environ | (env or {})
        if ours:
            environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), environment.get("PYTHONPATH", "")])
        # A file, because nobody empties a pipe while the subject prints its progress bars.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment
        )
        try:
            self.about = self._read()
        except BaseException:  # a limit on its time, for instance
            self.kill()
            raise

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.communicate("quit\n")

    def kill(self) -> None:
        """End the process whatever it is doing."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self._errors.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found
