"""Weights & Biases: one run per trial, grouped by experiment. Everything that may wait happens on a thread of its own."""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saesweep.errors import UserError
from saesweep.events import Event, Note, RunEnded, TrialEnded, TrialMeasured, TrialStarted, TrialTrained
from saesweep.runs import write_json
from saesweep.specs.logger import LoggerSpec
from saesweep.tracking.wandb_runs import RunSettings, WandbRuns

CLOSE_SECONDS = 120.0
"""How long the end of a run waits for W&B to take what is left."""
_WANTED = (TrialStarted, TrialTrained, TrialMeasured, TrialEnded, RunEnded)


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
        raise UserError(f"base.logger.log_to_wandb: {str(error).splitlines()[0]}") from error
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
        say: Told of trouble, on the thread that emits events.
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
        say: Callable[[Note], None],
    ) -> None:
        identity = _identity(run_dir, experiment)
        self._settings = RunSettings(
            directory=run_dir,
            project=logger.wandb_project,
            entity=logger.wandb_entity,
            group=identity["group"],
            id_prefix=logger.wandb_id or identity["id_prefix"],
            name_prefix=logger.run_name or experiment,
            is_single=n_trials == 1,
            log_weights=logger.log_weights_to_wandb,
        )
        self._frequency = logger.wandb_log_frequency
        self._config_of = config_of
        self._batch_tokens_of = batch_tokens_of
        self._sae_folder = sae_folder
        self._say = say
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._trouble: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._runs = WandbRuns(self._settings, self._trouble.put)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Queue an event; at the end of the run, wait for what is left."""
        if isinstance(event, _WANTED):
            self._events.put(event)
        if isinstance(event, RunEnded):
            self.close()
        self._pass_on_trouble()

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Wait until W&B has everything, or give up: its local files are complete either way."""
        self._events.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            self._trouble.put(
                f"Weights & Biases did not take everything within {timeout_seconds:.0f} s; "
                f"upload the rest with `wandb sync {self._settings.directory / 'wandb'}/*run-*`"
            )
        self._pass_on_trouble()

    def _pass_on_trouble(self) -> None:
        while not self._trouble.empty():
            self._say(Note(level="warning", message=self._trouble.get()))

    # ---------------------------------------------------------------- on the thread

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._handle(event)
            # A tracker must never end a run, whatever a client library raises; the trouble is told.
            except Exception as error:
                self._trouble.put(f"Weights & Biases: {type(error).__name__}: {error}".splitlines()[0])

    def _handle(self, event: Event) -> None:
        if isinstance(event, TrialStarted):
            config = {**self._config_of(event.params), "trial": event.number, "params": dict(event.params)}
            self._runs.start(
                event.number, config, [event.architecture], batch_tokens=self._batch_tokens_of(event.params)
            )
        elif isinstance(event, TrialTrained):
            run = self._runs.get(event.number)
            if run is not None and event.step - run.last_step >= self._frequency:
                run.last_step = event.step
                run.log(event.values, step=event.step)
        elif isinstance(event, TrialMeasured):
            run = self._runs.get(event.number)
            if run is not None:
                run.log_measured(event.metrics, tokens=event.tokens)
        elif isinstance(event, TrialEnded):
            self._end(event)
        elif isinstance(event, RunEnded):
            self._runs.finish_all()

    def _end(self, event: TrialEnded) -> None:
        run = self._runs.get(event.number)
        if run is None:
            return
        run.summarise({"status": event.status, "reason": event.reason, "tokens": event.tokens})
        if event.status == "complete":
            self._runs.log_export(event.number, self._sae_folder(event.number), tokens=event.tokens)
        self._runs.finish(event.number, failed=event.status == "failed")


def _identity(run_dir: Path, experiment: str) -> dict[str, str]:
    """Return what names this run directory's runs on W&B: the same for every start, another for every directory."""
    file = run_dir / "wandb.json"
    if file.exists():
        found: dict[str, str] = json.loads(file.read_text())
        return found
    token = secrets.token_hex(4)
    identity = {"group": f"{experiment}-{token}", "id_prefix": token}
    write_json(file, identity)
    return identity
