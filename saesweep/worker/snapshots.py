"""Snapshots of trials in SAELens' training form (`n_checkpoints`, `save_final_checkpoint`); resuming needs none of them."""

from __future__ import annotations

from pathlib import Path

from saesweep.cohort import Slot
from saesweep.driver.trials import Trial
from saesweep.errors import UserError
from saesweep.events import EventBus, SnapshotSaved
from saesweep.experiment import Experiment, dump_yaml
from saesweep.files import read_json_object
from saesweep.runs import RunDirectory, replace_folder, write_json, write_text
from saesweep.runs.runner_cfg import SAELENS_VERSION, runner_cfg, training_sae_cfg
from saesweep.saes import save_training_form
from saesweep.specs import BaseRun
from saesweep.worker.artifacts import hook_metadata, single_run_tree
from saesweep.worker.setup import Setup

_OWNER = "saesweep.json"


class Snapshots:
    """Writes the snapshots that are due after a training step; the same ones again where a resumed run repeats the step.

    Args:
        setup: The run.
        bus: Who wants to know.
        replicates: SAEs per trial, in neighbouring slots.
    """

    def __init__(self, setup: Setup, bus: EventBus, replicates: int) -> None:
        self._setup = setup
        self._bus = bus
        self._replicates = replicates
        self._finished: set[tuple[int, int]] = set()

    def take(self, trials: dict[int, Trial]) -> None:
        """Write what is due; an SAE that is not finite any more is left out, as its trial is about to fail."""
        if not self._setup.base.keeps_snapshots:
            return
        for index, slot in self._setup.cohort.occupied():
            replicate = index % self._replicates
            # A finished SAE waits in its slot for the end of the block.
            is_final = slot.run.save_final_checkpoint and slot.is_done and (slot.trial, replicate) not in self._finished
            if is_final:
                self._finished.add((slot.trial, replicate))
            is_due = is_final or (slot.step in slot.run.snapshot_steps and not slot.is_done)
            if is_due and bool(slot.is_finite):
                self._save(slot, trials[slot.trial], replicate, is_final)

    def _save(self, slot: Slot, trial: Trial, replicate: int, is_final: bool) -> None:
        setup = self._setup
        folder = snapshot_folder(setup.directory, trial.run, trial.number, slot.tokens, replicate, is_final=is_final)
        form = setup.cohort.training_form(slot)

        def fill(target: Path) -> None:
            save_training_form(
                target,
                form,
                cfg=_cfg(trial.run),
                sparsity_F=slot.firing.frequency_F(),
                extra_files={"runner_cfg.json": runner_cfg(trial.run)},
            )
            write_text(target / "experiment.yaml", dump_yaml(single_run_tree(setup.experiment, trial)))

        replace_folder(folder, fill)
        self._bus.emit(
            SnapshotSaved(
                number=trial.number, tokens=slot.tokens, path=str(folder), is_final=is_final, replicate=replicate
            )
        )


def snapshot_folder(
    directory: RunDirectory, run: BaseRun, number: int, tokens: int, replicate: int = 0, *, is_final: bool = False
) -> Path:
    """Return where a snapshot goes: `<checkpoint_path>/<trial>/<tokens>`, or `snapshots/<tokens>` in the trial's folder."""
    name = f"final_{tokens}" if is_final else str(tokens)
    if replicate:
        name += f"-replicate-{replicate}"
    if run.checkpoint_path is None:
        return directory.trial(number) / "snapshots" / name
    return Path(run.checkpoint_path).expanduser() / f"{number:04d}" / name


def claim_checkpoint_path(experiment: Experiment, directory: RunDirectory) -> None:
    """Mark `base.checkpoint_path` as this run's, so that two runs never write over each other's snapshots.

    Raises:
        UserError: It is another run's.
    """
    chosen = experiment.base_run().checkpoint_path
    if chosen is None:
        return
    marker = Path(chosen).expanduser() / _OWNER
    mine = {"run_dir": str(directory.path.resolve()), "fingerprint": experiment.fingerprint()}
    if marker.exists():
        try:
            owner = read_json_object(marker)
        except UserError:
            owner = {}
        if owner != mine:
            raise UserError(
                f"base.checkpoint_path: {chosen} holds the snapshots of the run in {owner.get('run_dir', '(unreadable)')}; "
                f"choose another folder, or delete {marker} if that run has moved or is of no use any more"
            )
        return
    try:
        write_json(marker, mine)
    except OSError as error:
        raise UserError(f"base.checkpoint_path: {chosen} cannot be written: {error.strerror or error}") from None


def _cfg(run: BaseRun) -> dict[str, object]:
    """Return the `cfg.json` of a snapshot: SAELens' training configuration, and the metadata of an export."""
    return {
        **training_sae_cfg(run),
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": SAELENS_VERSION,
            **hook_metadata(run),
        },
    }
