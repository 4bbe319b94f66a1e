"""Snapshots of trials in SAELens' training form (`n_checkpoints`, `save_final_checkpoint`); resuming needs none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from saesweep.cohort import Slot
from saesweep.engines.records import SnapshotTaken
from saesweep.experiment import TrialSettings, dump_yaml
from saesweep.runs import RunDirectory, replace_folder, write_text
from saesweep.runs.runner_cfg import SAELENS_VERSION, runner_cfg, training_sae_cfg
from saesweep.saes import save_training_form
from saesweep.specs import BaseRun
from saesweep.worker.artifacts import hook_metadata, single_run_tree
from saesweep.worker.setup import Setup


class Snapshots:
    """Writes the snapshots that are due after a training step; the same ones again where a resumed run repeats the step.

    Args:
        setup: The run.
        notify: Called with each.
        replicates: SAEs per trial, in neighbouring slots.
    """

    def __init__(self, setup: Setup, notify: Callable[[SnapshotTaken], None], replicates: int) -> None:
        self._setup = setup
        self._notify = notify
        self._replicates = replicates
        self._finished: set[tuple[int, int]] = set()

    def take(self, trials: Mapping[int, TrialSettings]) -> None:
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

    def _save(self, slot: Slot, trial: TrialSettings, replicate: int, is_final: bool) -> None:
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
        self._notify(
            SnapshotTaken(
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


def _cfg(run: BaseRun) -> dict[str, object]:
    """Return the `cfg.json` of a snapshot: SAELens' training configuration, and the metadata of an export."""
    return {
        **training_sae_cfg(run),
        "architecture": run.sae.trained_in_saelens_as or run.sae.architecture,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            "sae_lens_training_version": SAELENS_VERSION,
            **hook_metadata(run),
        },
    }
