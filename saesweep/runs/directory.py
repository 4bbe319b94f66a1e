"""The run directory: who owns it, which experiment it holds, and where everything lies."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saesweep.atomic import is_temporary_name, remove_leftovers, write_json, write_text
from saesweep.errors import UserError
from saesweep.files import read_json_object, refuse_links
from saesweep.lock import take

FORMAT_VERSION = 7
"""2: checkpoints hold replicates; 4: they hold the settings and the results of every trial; 5: those apart, as the driver's;
6: slots are of a worker, of which there may be several."""

MAX_SLOTS = 1_000_000
"""More SAEs at once than any memory holds."""
_CHOICES_FIX = "restore it, or start a new run with --run-dir"


class RunDirectory:
    """Layout of `runs/<name>`. Opening takes a lock that the operating system drops with the process.

    Args:
        path: The folder; made when missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream_path = path
        """Where what belongs to one activation stream is kept: the folder itself where all trials share one."""
        self.worker_path = path
        """Where what belongs to one worker is kept: the folder itself for the first one."""
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None

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
    def costs_file(self) -> Path:
        """Where the seconds of all starts went."""
        return self.path / "costs.json"

    @property
    def choices_file(self) -> Path:
        """What was chosen by measuring or by planning memory, kept so that a resumed run chooses the same."""
        return self.worker_path / self.stream_path.relative_to(self.path) / "choices.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of a worker's checkpoints."""
        return self.worker_path / "checkpoints"

    @property
    def requests_file(self) -> Path:
        """What a worker was asked since its last checkpoints, as JSON lines."""
        return self.worker_path / "blocks.jsonl"

    @property
    def log_file(self) -> Path:
        """What a worker with a process of its own says."""
        return self.path / "workers" / f"{self.worker_path.name if self.worker_path != self.path else 0}.log"

    @property
    def driver_file(self) -> Path:
        """What the driver of several workers knows."""
        return self.path / "driver.json"

    @property
    def reports_file(self) -> Path:
        """What has been reported since `driver_file` was written, as JSON lines."""
        return self.path / "reports.jsonl"

    @property
    def fingerprints_file(self) -> Path:
        """The fingerprints of a run that has continued with another space."""
        return self.path / "fingerprints.json"

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

    def of_worker(self, folder: str) -> RunDirectory:
        """Return this directory, whose lock stays with the original, with a folder for what belongs to one worker."""
        found = copy.copy(self)
        found._lock = None
        found.worker_path = self.path / folder
        found.choices_file.parent.mkdir(parents=True, exist_ok=True)
        return found

    # --- ownership
    def open(self) -> RunDirectory:
        """Make the folder, take its lock, check its format and remove what a killed writer left.

        Raises:
            UserError: Another process runs here, the folder is not a run directory, it holds links, or another version
                wrote it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is a file; a run directory must be a folder. Choose another with --run-dir")
        marker = self.path / "run.json"
        if self.path.is_dir():
            # A process that was killed while it made the folder left its lock, and perhaps an unfinished run.json.
            strangers = [p.name for p in self.path.iterdir() if p.name != "lock" and not is_temporary_name(p.name)]
            if strangers and not marker.exists():
                raise UserError(
                    f"{self.path}: holds other files and is no run directory; "
                    "choose an empty or new folder with --run-dir"
                )
            refuse_links(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._acquire()
        try:
            if marker.exists():
                self._check_format(marker)
            remove_leftovers(self.path)
            if not marker.exists():
                write_json(marker, {"format_version": FORMAT_VERSION})
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_is_held(self) -> None:
        """Check that the folder is still the one that was opened: writing would make a new one in its place.

        Raises:
            UserError: It was removed, moved or replaced.
        """
        try:
            status = os.stat(self.path / "lock")
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            raise UserError(
                f"{self.path}: was removed, moved or replaced while the run used it; put it back to resume the run, "
                "or start a new one"
            )

    def __enter__(self) -> RunDirectory:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _acquire(self) -> None:
        path = self.path / "lock"
        self._lock = take(
            path,
            lambda holder: UserError(
                f"{self.path}: in use by {holder}; wait for it, stop it, or choose another folder with --run-dir"
            ),
        )
        status = os.fstat(self._lock)
        self._identity = (status.st_dev, status.st_ino)

    def _check_format(self, marker: Path) -> None:
        found = read_json_object(marker)
        if "format_version" not in found:
            raise UserError(f"{marker}: has no format_version; this is no run directory of saesweep")
        version = found["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{self.path}: written in format {version}, this version reads format {FORMAT_VERSION}; "
                "use the saesweep that wrote it, or another --run-dir"
            )

    # --- the experiment
    def fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprints of all experiments that the run has continued with; none where it is always the same.

        Raises:
            UserError: The file is damaged.
        """
        if not self.fingerprints_file.exists():
            return ()
        found = read_json_object(self.fingerprints_file, fix=_CHOICES_FIX).get("fingerprints")
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise UserError(f"{self.fingerprints_file}: damaged, fingerprints must be a list of texts; {_CHOICES_FIX}")
        return tuple(found)

    def add_fingerprints(self, fingerprints: Sequence[str]) -> None:
        """Note that the run is continued with another space, before anything else says so."""
        known = self.fingerprints()
        write_json(self.fingerprints_file, {"fingerprints": list(dict.fromkeys([*known, *fingerprints]))})

    # --- choices
    def choices(self) -> dict[str, Any]:
        """Return what earlier starts of this run chose.

        Raises:
            UserError: The file is damaged.
        """
        if not self.choices_file.exists():
            return {}
        found = read_json_object(self.choices_file, fix=_CHOICES_FIX)
        slots = found.get("slots", 1)
        if type(slots) is not int or not 1 <= slots <= MAX_SLOTS:
            raise UserError(
                f"{self.choices_file}: damaged, slots must be a whole number from 1 to {MAX_SLOTS} and is "
                f"{str(slots)[:40]!r}; {_CHOICES_FIX}"
            )
        if not isinstance(found.get("slots_reason", ""), str):
            raise UserError(f"{self.choices_file}: damaged, slots_reason must be text; {_CHOICES_FIX}")
        if type(found.get("slot_bytes", 0)) is not int or found.get("slot_bytes", 0) < 0:
            raise UserError(f"{self.choices_file}: damaged, slot_bytes must be a whole number from 0; {_CHOICES_FIX}")
        return found

    def save_choices(self, choices: dict[str, Any]) -> None:
        """Keep choices for later starts."""
        write_json(self.choices_file, choices)

    def save_experiment(self, text: str) -> None:
        """Write the resolved experiment."""
        write_text(self.experiment_file, text)
