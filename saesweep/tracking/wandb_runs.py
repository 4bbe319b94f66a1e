"""The W&B runs of a sweep: opened, logged to and finished on the tracker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.tracking.names import evaluation_names

INIT_SECONDS = 30.0
"""How long W&B may take to open a run; then the rest of the sweep is logged offline."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all runs of a sweep share."""

    directory: Path
    project: str
    entity: str | None
    group: str
    id_prefix: str
    name_prefix: str
    is_single: bool
    log_weights: bool

    def id_of(self, number: int) -> str:
        """Return the W&B id of a trial: the same after a restart, so that the run is continued."""
        return self.id_prefix if self.is_single else f"{self.id_prefix}-{number:04d}"

    def name_of(self, number: int) -> str:
        """Return the display name of a trial."""
        return self.name_prefix if self.is_single else f"{self.name_prefix}-{number}"


@dataclass
class OpenRun:
    """One trial's W&B run."""

    run: Any
    batch_tokens: int
    last_step: int = -(10**12)

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Log values at a training step."""
        self.run.log(dict(values), step=step)

    def log_measured(self, metrics: Mapping[str, float], *, tokens: int) -> None:
        """Log held-out metrics at the step that `tokens` stand for."""
        self.log(evaluation_names(metrics), step=tokens // self.batch_tokens)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Put values into the run's summary."""
        self.run.summary.update(dict(values))


class WandbRuns:
    """All open runs by trial number. A run that cannot be opened online is logged offline.

    Args:
        settings: What they share.
        tell: Told once of each kind of trouble.
    """

    def __init__(self, settings: RunSettings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._open: dict[int, OpenRun] = {}
        self._is_offline = False

    def get(self, number: int) -> OpenRun | None:
        """Return an open run; None where the trial has none."""
        return self._open.get(number)

    def start(self, number: int, config: dict[str, Any], tags: Sequence[str], *, batch_tokens: int) -> None:
        """Open a trial's run, or go on with it."""
        import wandb

        try:
            run = self._init(number, config, tags, "offline" if self._is_offline else None)
        except wandb.errors.Error as error:
            if self._is_offline:
                raise
            self._is_offline = True
            reason = str(error).strip().splitlines()[0]
            self._tell(
                f"Weights & Biases cannot be reached ({reason}); logging offline, "
                f"upload later with `wandb sync {self._settings.directory / 'wandb'}/offline-run-*`"
            )
            # W&B holds the id of a run that it failed to open.
            run = self._init(number, config, tags, "offline", id_suffix="-offline")
        self._open[number] = OpenRun(run, batch_tokens)

    def _init(self, number: int, config: dict[str, Any], tags: Sequence[str], mode: Any, *, id_suffix: str = "") -> Any:
        import wandb

        s = self._settings
        return wandb.init(
            project=s.project,
            entity=s.entity,
            group=s.group,
            id=s.id_of(number) + id_suffix,
            name=s.name_of(number),
            job_type="trial",
            tags=["saesweep", *tags],
            config=config,
            dir=str(s.directory),
            resume="allow" if mode is None else None,
            mode=mode,
            reinit="create_new",
            # The terminal belongs to the display; machine statistics would be the same for every trial.
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS, x_disable_stats=True),
        )

    def log_export(self, number: int, folder: Path, *, tokens: int) -> None:
        """Log a finished trial's firing frequencies as SAELens does, and its exported SAE as an artifact."""
        import numpy as np
        import wandb
        from safetensors.numpy import load_file

        open_run = self._open[number]
        log10_F = load_file(folder / "sparsity.safetensors")["sparsity"]
        frequency_F = 10.0 ** log10_F.astype(np.float64)
        open_run.log(
            {
                "plots/feature_density_line_chart": wandb.Histogram(log10_F.astype(float).tolist()),
                "metrics/mean_log10_feature_sparsity": float(log10_F.mean()),
                "sparsity/below_1e-5": int((frequency_F < 1e-5).sum()),
                "sparsity/below_1e-6": int((frequency_F < 1e-6).sum()),
            },
            step=tokens // open_run.batch_tokens,
        )
        artifact = wandb.Artifact(f"{self._settings.id_of(number)}_sae", type="model")
        for file in sorted(folder.iterdir()):
            if self._settings.log_weights or file.suffix != ".safetensors":
                artifact.add_file(str(file))
        open_run.run.log_artifact(artifact)

    def finish(self, number: int, *, failed: bool) -> None:
        """Close one trial's run."""
        self._open.pop(number).run.finish(exit_code=int(failed))

    def finish_all(self) -> None:
        """Close what is open: trials that an interruption left unfinished go on in the same runs."""
        for number in list(self._open):
            self.finish(number, failed=False)
