"""Where the study of a run is: a file of the run directory, or a database that the experiment names."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from saesweep.experiment import Experiment
from saesweep.files import read_json_object
from saesweep.runs import RunDirectory, write_json
from saesweep.study import rewind_in_database, rewind_study


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
