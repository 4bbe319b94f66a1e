"""Which SAEs a feature page shows, and the text that it shows them on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saesweep.errors import UserError
from saesweep.evaluation.compare import settings_of
from saesweep.evaluation.published import hook_of, read_hook
from saesweep.events import Row
from saesweep.experiment import AsWritten, Experiment, load_experiment, only_stream, stream_of, streams_of
from saesweep.report.data import RunData
from saesweep.saes import ExportedSAE, load_sae_folder, open_sae
from saesweep.saes.folder import CFG_FILE


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One SAE of the page."""

    name: str
    """Such as `trial 7` or what the user named."""
    architecture: str
    """As it was trained, where that is known."""
    sparsity: str
    sae: ExportedSAE
    hook: str


@dataclass(frozen=True, kw_only=True)
class FeatureSource:
    """SAEs and the experiment whose held-out text they read."""

    title: str
    experiment: Experiment
    shown: tuple[Shown, ...]
    """One, or two that stand side by side."""
    hooks: tuple[str, ...]
    """What the model is read at: those of a run, as they decide together which positions count."""
    notes: tuple[str, ...] = ()


def why_no_features(run: RunData) -> str | None:
    """Return why a run can have no feature page; None where it can."""
    if run.best is None or not (run.directory.best / CFG_FILE).exists():
        return "There is no feature page: no SAE is exported yet."
    if load_experiment(run.directory.experiment_file, env=AsWritten()).base_run().is_synthetic:
        return "There is no feature page: synthetic activations have no text."
    return None


def from_run(run: RunData, *, allow_code_execution: bool = False) -> FeatureSource:
    """Return a run's best SAE, and beside it another one of the front.

    Args:
        run: A run with an exported SAE.
        allow_code_execution: Let the run's file say that code beside the model may run; a run directory can be a
            stranger's.

    Raises:
        UserError: The run has no text or no exported SAE.
    """
    best = run.best
    why_not = why_no_features(run)
    if best is None or why_not is not None:
        raise UserError(f"{run.directory.path}: {why_not}")
    whole = load_experiment(run.directory.experiment_file, is_own=allow_code_execution)
    shown = [_of_trial(best, run.directory.best)]
    rival = rival_of(run)
    if rival is not None:
        shown.append(_of_trial(rival, run.directory.trial_sae(rival.number)))
    experiment = stream_of(streams_of(whole), best.params).experiment
    return FeatureSource(
        title=f"{run.board.name}: features",
        experiment=experiment,
        shown=tuple(shown),
        hooks=experiment.hook_names(),
    )


def rival_of(run: RunData) -> Row | None:
    """Return the finished trial to show beside the best: of the front, of another architecture, near in L0, where there is one."""
    best = run.best
    assert best is not None
    others = [
        row
        for row in run.complete
        if row.number != best.number
        and row.feasible
        and (row.hook, row.stream) == (best.hook, best.stream)
        and (run.directory.trial_sae(row.number) / CFG_FILE).exists()
    ]

    def distance(row: Row) -> tuple[bool, bool, float, int]:
        here, there = best.metrics.get("l0", math.nan), row.metrics.get("l0", math.nan)
        ratio = abs(math.log(here / there)) if here > 0 and there > 0 else math.inf
        is_behind = not row.on_front if len(run.board.goals) > 1 else False
        return is_behind, row.architecture == best.architecture, ratio, row.number

    return min(others, key=distance, default=None)


def _of_trial(row: Row, folder: Path) -> Shown:
    sae = load_sae_folder(folder)
    return Shown(
        name=f"trial {row.number}",
        architecture=row.architecture,
        sparsity=row.sparsity,
        sae=sae,
        hook=read_hook(sae, row.hook),
    )


def from_paths(
    sources: Sequence[str | Path],
    *,
    experiment: str | Path | None = None,
    overrides: Sequence[str] = (),
    hook: str | None = None,
) -> FeatureSource:
    """Return exported SAEs of any tool that saesweep reads, as `saesweep eval` reads them.

    Args:
        sources: One folder, `params.npz` or Hub id, or two to show side by side.
        experiment: Model, dataset and held-out tokens; by default those of the first SAE that names them.
        overrides: `path=value` texts over the experiment.
        hook: Read every SAE here; by default each at the hook that its metadata name.

    Raises:
        UserError: An SAE cannot be had, or nothing says which model and text it belongs to.
    """
    if not 1 <= len(sources) <= 2:
        raise UserError(f"a feature page shows one SAE, or two side by side; {len(sources)} are named")
    saes = [open_sae(source) for source in sources]
    settings, notes = settings_of(sources, saes, experiment, overrides)
    settings = only_stream(settings)
    if settings.base_run().is_synthetic:
        raise UserError(f"{sources[0]}: synthetic activations have no text; give --model, --hook and --dataset")
    shown = [
        Shown(
            name=str(source),
            architecture=str(sae.metadata.get("training_architecture") or sae.architecture),
            sparsity="",
            sae=sae,
            hook=hook or hook_of(sae, settings, str(source)),
        )
        for source, sae in zip(sources, saes, strict=True)
    ]
    return FeatureSource(
        title=f"Features of {' and '.join(own.name for own in shown)}",
        experiment=settings,
        shown=tuple(shown),
        hooks=tuple(dict.fromkeys(own.hook for own in shown)),
        notes=tuple(notes),
    )
