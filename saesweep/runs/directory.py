"""The run directory: who owns it, which experiment it holds, and where everything lies."""

from __future__ import annotations

import copy
import fcntl
import os
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.runs.atomic import read_json, write_json, write_text

FORMAT_VERSION = 3
"""2: checkpoints hold replicates."""


class RunDirectory:
    """Layout of `runs/<name>`. Opening takes a lock that the operating system drops with the process.

    Args:
        path: The folder; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream_path = path
        """Where what belongs to one activation stream is kept: the folder itself where all trials share one."""
        self._lock: int | None = None

    # --- places
    @property
    def experiment_file(self) -> Path:
        """The resolved experiment."""
        return self.path / "experiment.yaml"

    @property
    def study_file(self) -> Path:
        """The Optuna study."""
        return self.path / "study.db"

    @property
    def events_file(self) -> Path:
        """What happened, as JSON lines."""
        return self.path / "events.jsonl"

    @property
    def leaderboard_file(self) -> Path:
        """The leaderboard as JSON."""
        return self.path / "leaderboard.json"

    @property
    def choices_file(self) -> Path:
        """What was chosen by measuring or by planning memory, kept so that a resumed run chooses the same."""
        return self.stream_path / "choices.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Folder of the exported winner."""
        return self.path / "best"

    @property
    def pareto(self) -> Path:
        """Folder of the exported Pareto front."""
        return self.path / "pareto"

    @property
    def matched(self) -> Path:
        """Folder of the exported winners at each L0."""
        return self.path / "matched"

    def trial(self, number: int) -> Path:
        """Return the folder of one trial."""
        return self.path / "trials" / f"{number:04d}"

    def trial_sae(self, number: int) -> Path:
        """Return the folder of one trial's exported SAE."""
        return self.trial(number) / "sae"

    def of_stream(self, folder: str) -> RunDirectory:
        """Return this directory, whose lock stays with the original, with a folder for what belongs to one stream."""
        found = copy.copy(self)
        found._lock = None
        found.stream_path = self.path / "streams" / folder
        found.stream_path.mkdir(parents=True, exist_ok=True)
        return found

    # --- ownership
    def open(self) -> RunDirectory:
        """Make the folder, take its lock and check its format.

        Raises:
            UserError: Another process runs here, the folder is not a run directory, or another version wrote it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; a run directory must be a folder. Choose another with --run-dir")
        marker = self.path / "run.json"
        if self.path.is_dir() and not marker.exists() and any(p.name != "lock" for p in self.path.iterdir()):
            raise UserError(
                f"{self.path}: holds other files and is no run directory; choose an empty or new folder with --run-dir"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._acquire()
        if marker.exists():
            self._check_format(marker)
        else:
            write_json(marker, {"format_version": FORMAT_VERSION})
        return self

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunDirectory:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _acquire(self) -> None:
        path = self.path / "lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = path.read_text().strip() or "another process"
            os.close(descriptor)
            raise UserError(
                f"{self.path}: in use by {holder}; wait for it, stop it, or choose another folder with --run-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}".encode())
        self._lock = descriptor

    def _check_format(self, marker: Path) -> None:
        found = read_json(marker)
        if not isinstance(found, dict) or "format_version" not in found:
            raise UserError(f"{marker}: has no format_version; this is no run directory of saesweep")
        version = found["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{self.path}: written in format {version}, this version reads format {FORMAT_VERSION}; "
                "use the saesweep that wrote it, or another --run-dir"
            )

    # --- choices
    def choices(self) -> dict[str, Any]:
        """Return what earlier starts of this run chose.

        Raises:
            UserError: The file is damaged.
        """
        if not self.choices_file.exists():
            return {}
        found = read_json(self.choices_file)
        if not isinstance(found, dict):
            raise UserError(
                f"{self.choices_file}: must be a JSON object, got a {type(found).__name__}; start a new run"
            )
        return found

    def save_choices(self, choices: dict[str, Any]) -> None:
        """Keep choices for later starts."""
        write_json(self.choices_file, choices)

    def save_experiment(self, text: str) -> None:
        """Write the resolved experiment."""
        write_text(self.experiment_file, text)
