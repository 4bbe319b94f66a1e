"""Weights & Biases: one run per trial, grouped by experiment. Everything that may wait happens on other threads."""

from __future__ import annotations

import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saesweep.errors import UserError, first_line
from saesweep.events import (
    Event,
    Note,
    RunEnded,
    RunStarted,
    SnapshotSaved,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
    TrialTrained,
)
from saesweep.files import read_json_object
from saesweep.runs import write_json
from saesweep.specs.logger import LoggerSpec
from saesweep.tracking.sweep_tables import log_sweep
from saesweep.tracking.wandb_runs import OpenRun, RunOpener, RunSettings, trial_name

CLOSE_SECONDS = 120.0
"""How long the end of a run waits for W&B to take what is left."""
FLUSH_SECONDS = 18.0
"""W&B's process writes its local files every 15 seconds (measured, 0.31), and at their ends."""
THREAD_NAME = "saesweep-wandb"


def check_wandb(env: Mapping[str, str] | None = None) -> None:
    """Find out before any training whether W&B can be used at all. Nothing is sent.

    Raises:
        UserError: W&B is to be used online and there is no key.
    """
    import wandb

    mode = (os.environ if env is None else env).get("WANDB_MODE", "online")
    if mode in ("offline", "disabled", "dryrun"):
        return
    wandb.setup(wandb.Settings(silent=True))  # the terminal belongs to the display
    try:
        found = wandb.login(prompt=False, verify=False)
    except (wandb.errors.UsageError, ValueError) as error:  # a key that cannot be one
        raise UserError(f"base.logger.log_to_wandb: {first_line(error)}") from error
    if not found:
        raise UserError(
            "base.logger.log_to_wandb: no Weights & Biases key; run `wandb login`, set WANDB_API_KEY, or log offline "
            "with WANDB_MODE=offline (upload later with `wandb sync`)"
        )


class WandbTracker:
    """Listens to a run and logs it; a call only puts the event into a queue.

    Args:
        run_dir: The run directory; W&B's own files go to `wandb/` in it.
        experiment: Name of the experiment, which groups its trials.
        logger: Project, names and what to log.
        n_trials: Trials of the experiment; with one, `wandb_id` and `run_name` are used as they are.
        config_of: From a trial's searched parameters to the full configuration of its run.
        batch_tokens_of: From the same to the tokens per training step.
        sae_folder: From a trial's number to the folder of its exported SAE.
        notify: Called with a note about a failure, on the thread that emits events.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        experiment: str,
        logger: LoggerSpec,
        n_trials: int,
        config_of: Callable[[Mapping[str, Any]], dict[str, Any]],
        batch_tokens_of: Callable[[Mapping[str, Any]], int],
        sae_folder: Callable[[int], Path],
        notify: Callable[[Note], None],
    ) -> None:
        identity = _identity(run_dir, experiment)
        self._settings = RunSettings(
            directory=run_dir,
            project=logger.wandb_project,
            entity=logger.wandb_entity,
            group=identity["group"],
            id_prefix=logger.wandb_id or identity["id_prefix"],
            experiment=experiment,
            run_name=logger.run_name,
            is_single=n_trials == 1,
            log_weights=logger.log_weights_to_wandb,
        )
        self._frequency = logger.wandb_log_frequency
        self._config_of = config_of
        self._batch_tokens_of = batch_tokens_of
        self._sae_folder = sae_folder
        self._notify = notify
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._warned: set[str] = set()
        self._opener = RunOpener(self._settings, self._failures.put)
        self._trials: dict[int, _TrialThread] = {}
        self._sweep: threading.Thread | None = None
        self._goals: tuple[str, ...] = ()

    def __call__(self, event: Event) -> None:
        """Queue an event; at the end of the run, wait for what is left."""
        if isinstance(event, TrialStarted) and event.number not in self._trials:
            config = {**self._config_of(event.params), "trial": event.number, "params": dict(event.params)}
            batch_tokens = self._batch_tokens_of(event.params)
            self._trials[event.number] = _TrialThread(
                open_run=lambda: self._opener.open(
                    event.number,
                    trial_name(event.architecture, event.sparsity, event.params),
                    config,
                    [event.architecture],
                    batch_tokens=batch_tokens,
                ),
                min_tokens=self._frequency * batch_tokens,
                export=self._sae_folder(event.number),
                warn=self._failures.put,
            )
        elif (
            isinstance(event, (TrialTrained, TrialMeasured, SnapshotSaved, TrialEnded)) and event.number in self._trials
        ):
            self._trials[event.number].events.put(event)
        elif isinstance(event, RunStarted):
            self._goals = event.goals
        elif isinstance(event, RunEnded):
            if event.status == "complete" and not self._settings.is_single:
                self._log_sweep(event)
            self.close()
        self._forward_warnings()

    def close(self, timeout_seconds: float | None = None) -> None:
        """Wait until W&B has everything, or give up: its local files are complete either way."""
        deadline = time.monotonic() + (CLOSE_SECONDS if timeout_seconds is None else timeout_seconds)
        for trial in self._trials.values():
            trial.events.put(None)
        threads = [trial.thread for trial in self._trials.values()] + ([self._sweep] if self._sweep is not None else [])
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._failures.put(
                "Weights & Biases has not taken everything yet; "
                f"upload the rest with `wandb sync {self._settings.directory / 'wandb'}/*run-*`"
            )
        self._forward_warnings()

    def _log_sweep(self, event: RunEnded) -> None:
        """Log the sweep as a whole, on a thread of its own."""

        def work() -> None:
            with warning_on_failure(self._failures.put):
                log_sweep(self._opener.open_sweep(), event, self._goals)

        self._sweep = threading.Thread(target=work, name=THREAD_NAME, daemon=True)
        self._sweep.start()

    def _forward_warnings(self) -> None:
        while not self._failures.empty():
            message = self._failures.get()
            if message not in self._warned:  # a service that is gone fails at every point
                self._warned.add(message)
                self._notify(Note(level="warning", message=message))


@contextmanager
def warning_on_failure(warn: Callable[[str], None]) -> Iterator[None]:
    """Tell of what W&B raises: a tracker must never end a run, whatever a client library does."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        warn(f"Weights & Biases: {reason}; the metrics are also in trials/*/metrics.jsonl")


class _TrialThread:
    """Logs one trial. A thread each, so that a trial whose end waits for the network holds up no other."""

    def __init__(
        self, *, open_run: Callable[[], OpenRun], min_tokens: int, export: Path, warn: Callable[[str], None]
    ) -> None:
        self._open_run = open_run
        self._min_tokens = min_tokens
        self._last_tokens: int | None = None
        self._export = export
        self._warn = warn
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        run: OpenRun | None = None
        with warning_on_failure(self._warn):
            run = self._open_run()
        if run is None:
            return
        while (event := self.events.get()) is not None:
            with warning_on_failure(self._warn):
                self._handle(run, event)
            if isinstance(event, TrialEnded):
                break
        else:  # the process ends before the trial does: it continues in the same run
            with warning_on_failure(self._warn):
                run.finish()

    def _handle(self, run: OpenRun, event: Event) -> None:
        if isinstance(event, TrialTrained):
            if self._last_tokens is None or event.tokens - self._last_tokens >= self._min_tokens:
                self._last_tokens = event.tokens
                run.log(event.values, tokens=event.tokens)
        elif isinstance(event, TrialMeasured):
            run.log_measured(event.metrics, event.densities, tokens=event.tokens)
        elif isinstance(event, SnapshotSaved):
            run.upload_snapshot(
                Path(event.path), tokens=event.tokens, is_final=event.is_final, replicate=event.replicate
            )
        elif isinstance(event, TrialEnded):
            is_complete = event.status == "complete"
            summary = {"status": event.status, "reason": event.reason, "tokens": event.tokens}
            try:
                run.log_ending(summary, self._export if is_complete else None, tokens=event.tokens)
                if is_complete:
                    run.upload(self._export)
            finally:  # a refused artifact leaves no run open
                run.finish(failed=event.status == "failed")


def is_uploading() -> bool:
    """Return whether W&B has still not taken everything of a tracker in this process."""
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


def abandon_uploads(seconds: float = FLUSH_SECONDS) -> None:
    """Have W&B write its local files, then end its process. Only for a process that is about to end.

    W&B's process would keep trying to reach the network, and hold the terminal's pipes open, long after this one. Ended
    without the teardown it would drop what it has not written yet.
    """
    import psutil
    import wandb

    thread = threading.Thread(target=wandb.teardown, daemon=True)
    thread.start()
    thread.join(seconds)
    for child in psutil.Process().children():
        if child.name().startswith("wandb-core"):
            child.kill()


def _identity(run_dir: Path, experiment: str) -> dict[str, str]:
    """Return what names this run directory's runs on W&B: the same for every start, another for every directory."""
    file = run_dir / "wandb.json"
    if file.exists():
        fix = "remove it, and the run is logged under new names"
        found = read_json_object(file, fix=fix)
        if not all(isinstance(found.get(key), str) for key in ("group", "id_prefix")):
            raise UserError(f"{file}: damaged, it names no group and id_prefix; {fix}")
        return found
    token = secrets.token_hex(4)
    identity = {"group": f"{experiment}-{token}", "id_prefix": token}
    write_json(file, identity)
    return identity
