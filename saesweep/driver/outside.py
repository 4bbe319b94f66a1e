"""What a run uses outside of its directory: a database for its study, a folder for snapshots, a tracker."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from saesweep.errors import UserError
from saesweep.events import EventBus
from saesweep.experiment import Experiment
from saesweep.files import read_json_object
from saesweep.runs import RunDirectory, write_json
from saesweep.runs.runner_cfg import runner_cfg
from saesweep.study import rewind_in_database, rewind_study
from saesweep.tracking import WandbTracker, check_wandb


def study_place(experiment: Experiment, directory: RunDirectory) -> str:
    """Return the file or the URL of the study."""
    return experiment.spec.search.storage or str(directory.study_file)


def study_owner(experiment: Experiment, directory: RunDirectory) -> str | None:
    """Return what names the run in a database that others reach; None for a file of its own.

    The name is kept in the run directory: another run of the same experiment must not write the same study.
    """
    if experiment.spec.search.storage is None:
        return None
    file = directory.path / "study.json"
    if not file.exists():
        write_json(file, {"run": uuid.uuid4().hex})
    return str(read_json_object(file)["run"])


def rewind(experiment: Experiment, directory: RunDirectory, tokens_seen: Mapping[int, int | None]) -> None:
    """Take the study of a run back to a checkpoint.

    Args:
        experiment: The experiment.
        directory: The run directory.
        tokens_seen: Trials known at the checkpoint: what a live one had seen, None for one that had ended.
    """
    storage, owner = experiment.spec.search.storage, study_owner(experiment, directory)
    if storage is None or owner is None:
        rewind_study(directory.study_file, tokens_seen)
    else:
        rewind_in_database(storage, experiment.spec.name, owner, tokens_seen)


_OWNER = "saesweep.json"


def claim_checkpoint_path(experiment: Experiment, directory: RunDirectory) -> None:
    """Mark `base.checkpoint_path` as this run's, so that two runs never write over each other's snapshots.

    Raises:
        UserError: It is another run's.
    """
    chosen = experiment.base_run().checkpoint_path
    if chosen is None:
        return
    marker = Path(chosen).expanduser() / _OWNER
    owned = {"run_dir": str(directory.path.resolve()), "fingerprint": experiment.fingerprint()}
    if marker.exists():
        try:
            owner = read_json_object(marker)
        except UserError:
            owner = {}
        known = (owned["fingerprint"], *directory.fingerprints())
        if owner.get("run_dir") != owned["run_dir"] or owner.get("fingerprint") not in known:
            raise UserError(
                f"base.checkpoint_path: {chosen} holds the snapshots of the run in {owner.get('run_dir', '(unreadable)')}; "
                f"choose another folder, or delete {marker} if that run has moved or is of no use any more"
            )
        return
    try:
        write_json(marker, owned)
    except OSError as error:
        raise UserError(f"base.checkpoint_path: {chosen} cannot be written: {error.strerror or error}") from None


def make_tracker(experiment: Experiment, directory: RunDirectory, bus: EventBus) -> WandbTracker | None:
    """Return the experiment's tracker; None where it asks for none.

    Raises:
        UserError: It cannot work: no key for Weights & Biases.
    """
    logger = experiment.base_run().logger
    if not logger.log_to_wandb:
        return None
    check_wandb()
    return WandbTracker(
        run_dir=directory.path,
        experiment=experiment.spec.name,
        logger=logger,
        n_trials=experiment.n_trials,
        config_of=lambda params: runner_cfg(experiment.resolve(params)),
        batch_tokens_of=lambda params: experiment.resolve(params).train_batch_size_tokens,
        sae_folder=directory.trial_sae,
        notify=bus.emit,
    )
