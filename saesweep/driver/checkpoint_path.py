"""`base.checkpoint_path` belongs to one run, so that two runs never write over each other's snapshots."""

from __future__ import annotations

from pathlib import Path

from saesweep.errors import UserError
from saesweep.experiment import Experiment
from saesweep.files import read_json_object
from saesweep.runs import RunDirectory, write_json

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
    mine = {"run_dir": str(directory.path.resolve()), "fingerprint": experiment.fingerprint()}
    if marker.exists():
        try:
            owner = read_json_object(marker)
        except UserError:
            owner = {}
        known = (mine["fingerprint"], *directory.fingerprints())
        if owner.get("run_dir") != mine["run_dir"] or owner.get("fingerprint") not in known:
            raise UserError(
                f"base.checkpoint_path: {chosen} holds the snapshots of the run in {owner.get('run_dir', '(unreadable)')}; "
                f"choose another folder, or delete {marker} if that run has moved or is of no use any more"
            )
        return
    try:
        write_json(marker, mine)
    except OSError as error:
        raise UserError(f"base.checkpoint_path: {chosen} cannot be written: {error.strerror or error}") from None
