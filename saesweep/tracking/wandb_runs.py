"""One trial's W&B run: opened, logged to and finished, on the trial's own thread, under SAELens' names for metrics."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saesweep.errors import first_line
from saesweep.events import DENSITY_EDGES

_SAELENS = {"cosine_similarity": "cossim"}
"""Held-out metrics that SAELens' evaluation calls otherwise; all others have our own name."""


def evaluation_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return held-out metrics as `metrics/<name>`, in SAELens' names where it has the metric."""
    return {f"metrics/{_SAELENS.get(name, name)}": value for name, value in metrics.items()}


def trial_name(architecture: str, sparsity: str, params: Mapping[str, Any]) -> str:
    """Return what a trial is, such as `topk-k21-lr0.0025`.

    Args:
        architecture: Its architecture.
        sparsity: Its sparsity setting as the leaderboard says it.
        params: The searched parameters; those that the first two do not tell are added.
    """
    words = sparsity.replace("steered to ", "").replace("λ", "lambda").split()
    parts = [architecture, *(["".join(words[:2]), *words[2:]] if words else [])]
    for path, value in params.items():
        name = path.rpartition(".")[2]
        if path == "sae.architecture" or name in ("k", "target_l0") or name.endswith(_SPARSITY):
            continue
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{name}{text}")
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join(parts))


_SPARSITY = ("l0_coefficient", "l1_coefficient")


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
    experiment: str
    run_name: str | None
    """What the user calls it; before each trial's name where there are several."""
    is_single: bool
    log_weights: bool

    def id_of(self, number: int) -> str:
        """Return the W&B id of a trial: the same after a restart, so that the run is continued; another for one tried again."""
        return self.id_prefix if self.is_single and number == 0 else f"{self.id_prefix}-{number:04d}"

    def name_of(self, label: str) -> str:
        """Return the display name of a trial: what it is, such as `topk-k21-lr0.0025`, after the `run_name` that is given."""
        if self.is_single:
            return self.run_name or self.experiment
        return f"{self.run_name}-{label}" if self.run_name else label


class RunOpener:
    """Opens runs one at a time; once W&B could not be reached, offline.

    Args:
        settings: What the runs share.
        warn: Called when W&B cannot be reached.
    """

    def __init__(self, settings: RunSettings, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._warn = warn
        self._is_offline = False
        self._one_at_a_time = threading.Lock()

    def open(
        self, number: int, label: str, config: dict[str, Any], tags: Sequence[str], *, batch_tokens: int
    ) -> OpenRun:
        """Open a trial's run, or resume it."""
        s = self._settings
        run = self._open(s.id_of(number), s.name_of(label), config, tags, "trial")
        return OpenRun(run, s.id_of(number), batch_tokens, s.log_weights)

    def open_sweep(self) -> Any:
        """Open the run of the sweep as a whole, which stands beside those of its trials."""
        s = self._settings
        return self._open(f"{s.id_prefix}-sweep", f"{s.run_name or s.experiment}-sweep", {}, (), "sweep")

    def _open(self, run_id: str, name: str, config: dict[str, Any], tags: Sequence[str], job_type: str) -> Any:
        import wandb

        with self._one_at_a_time:
            if self._is_offline:
                return self._init(run_id, name, config, tags, job_type, "offline")
            try:
                return self._init(run_id, name, config, tags, job_type, None)
            except wandb.errors.Error as error:
                self._is_offline = True
                reason = first_line(error)
                self._warn(
                    f"Weights & Biases cannot be reached ({reason}); logging offline, "
                    f"upload later with `wandb sync {self._settings.directory / 'wandb'}/offline-run-*`"
                )
                # W&B holds the id of a run that it failed to open.
                return self._init(f"{run_id}-offline", name, config, tags, job_type, "offline")

    def _init(
        self, run_id: str, name: str, config: dict[str, Any], tags: Sequence[str], job_type: str, mode: Any
    ) -> Any:
        import wandb

        s = self._settings
        return wandb.init(
            project=s.project,
            entity=s.entity,
            group=s.group,
            id=run_id,
            name=name,
            job_type=job_type,
            tags=["saesweep", *tags],
            config=config,
            dir=str(s.directory),
            resume="allow" if mode is None else None,
            mode=mode,
            reinit="create_new",
            # The terminal belongs to the display; machine statistics would be the same for every trial.
            settings=wandb.Settings(silent=True, console="off", init_timeout=INIT_SECONDS, x_disable_stats=True),
        )


class OpenRun:
    """One trial's W&B run."""

    def __init__(self, run: Any, run_id: str, batch_tokens: int, log_weights: bool) -> None:
        self._run = run
        self._id = run_id
        self._batch_tokens = batch_tokens
        self._log_weights = log_weights

    def log(self, values: Mapping[str, Any], *, tokens: int, commit: bool = False) -> None:
        """Log values at the training step that `tokens` stand for; points of one step are joined until a commit."""
        self._run.log(dict(values), step=tokens // self._batch_tokens, commit=commit)

    def log_measured(self, metrics: Mapping[str, float], densities: Sequence[int], *, tokens: int) -> None:
        """Log held-out metrics, and how often the latents fire: counts between neighbours of `DENSITY_EDGES`."""
        import wandb

        values: dict[str, Any] = dict(evaluation_names(metrics))
        if densities:
            histogram = wandb.Histogram(np_histogram=(list(densities), list(DENSITY_EDGES)))
            values["plots/feature_density_histogram"] = histogram
        self.log(values, tokens=tokens)

    def log_ending(self, summary: Mapping[str, Any], export: Path | None, *, tokens: int) -> None:
        """Log how the trial ended, and a finished one's densities on held-out tokens, under SAELens' names."""
        self._run.summary.update(dict(summary))
        # The last point is written out now: what follows may wait for the network.
        self.log({} if export is None else _densities(export), tokens=tokens, commit=True)

    def upload(self, export: Path) -> None:
        """Log an exported SAE as an artifact. Waits for the network."""
        self._log_folder(f"{self._id}_sae", export, metadata={}, aliases=None)

    def upload_snapshot(self, folder: Path, *, tokens: int, is_final: bool, replicate: int) -> None:
        """Log a snapshot as a version of the trial's checkpoint artifact. Waits for the network."""
        if self._log_weights:  # a checkpoint is its weights
            name = f"{self._id}_checkpoint" + (f"-replicate-{replicate}" if replicate else "")
            aliases = [f"tokens-{tokens}", "latest", *["final"] * is_final]
            self._log_folder(name, folder, metadata={"tokens": tokens}, aliases=aliases)

    def _log_folder(self, name: str, folder: Path, *, metadata: dict[str, Any], aliases: list[str] | None) -> None:
        import wandb

        artifact = wandb.Artifact(name, type="model", metadata=metadata)
        for file in sorted(folder.iterdir()):
            if self._log_weights or file.suffix != ".safetensors":
                artifact.add_file(str(file))
        self._run.log_artifact(artifact, aliases=aliases)

    def finish(self, *, failed: bool = False) -> None:
        """Close the run. Waits for the network."""
        self._run.finish(exit_code=int(failed))


def _densities(export: Path) -> dict[str, Any]:
    import numpy as np
    import wandb
    from safetensors.numpy import load_file

    counted = json.loads((export / "provenance.json").read_text(encoding="utf-8"))["densities"]
    log10_F = load_file(export / "sparsity.safetensors")["sparsity"].astype(np.float64)
    return {
        "plots/feature_density_line_chart": wandb.Histogram(log10_F.tolist()),
        "metrics/mean_log10_feature_sparsity": float(log10_F.mean()),
        "sparsity/below_1e-5": int((log10_F < -5).sum()),
        "sparsity/below_1e-6": int((log10_F < -6).sum()),
        "details/density_tokens": counted["tokens"],
    }
