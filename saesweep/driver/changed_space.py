"""Continuing a run with another space: allowed where every trial so far keeps all of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saesweep.driver.history import last_saved
from saesweep.driver.outside import study_owner, study_place
from saesweep.errors import UserError
from saesweep.experiment import AsWritten, Experiment, describe_changes, load_experiment, space_changes, streams_of
from saesweep.runs import RunDirectory
from saesweep.study import check_inside, named, trials_of


@dataclass(frozen=True)
class SpaceChange:
    """What is searched now and was not before, or the other way round."""

    changes: tuple[str, ...]
    """One `path: old -> new` for each difference."""
    fingerprints: tuple[str, ...]
    """Of the experiment before and now."""
    n_trials: int
    """Trials that the run has had."""

    @property
    def message(self) -> str:
        """What to say about it."""
        return (
            f"the run continues with another space ({'; '.join(self.changes)}); its {self.n_trials} "
            f"trial{'s' * (self.n_trials != 1)} so far keep their numbers, settings and results"
        )

    def untried(self, n_trials: int) -> str:
        """Return what to say where no trial is left to try it with."""
        return (
            f"the space has changed ({'; '.join(self.changes)}), but all {n_trials} trials of the search have been run: "
            "with a higher search.trials the same command continues and tries it"
        )


def change_of_space(directory: RunDirectory, experiment: Experiment) -> SpaceChange | None:
    """Return how the space differs from the one that the run directory was last continued with; None where it does not.

    Raises:
        UserError: The directory holds the run of another experiment, or a trial of it would get other settings.
    """
    if not directory.experiment_file.exists():
        return None
    before = load_experiment(directory.experiment_file, env=AsWritten())
    fixed = describe_changes(before.written, experiment.written)
    searched = space_changes(before.written, experiment.written)
    if not fixed and not searched:
        return None
    trials, reasons = dict[int, Mapping[str, Any]](), list[str]()
    if not fixed:
        trials = _trials(experiment, directory)
        reasons = _left_out(before, experiment, trials)
    if fixed or reasons:
        raise UserError(
            f"{directory.path}: holds the run of another experiment; what differs:\n"
            + "\n".join(f"  {line}" for line in [*fixed, *searched, *reasons])
            + "\nundo the changes to resume it, or give this one its own folder with --run-dir (or another `name`)"
        )
    return SpaceChange(tuple(searched), (before.fingerprint(), experiment.fingerprint()), len(trials))


def _trials(experiment: Experiment, directory: RunDirectory) -> dict[int, Mapping[str, Any]]:
    """Return the settings of every trial of a run by number, from its checkpoint and its study.

    Args:
        experiment: As it is now: the study may have moved, and only this one knows the password of its database.
        directory: The run directory.
    """
    saved = last_saved(directory)
    kept = {} if saved is None else {trial["number"]: trial["params"] for trial in saved["trials"]}
    place, owner = study_place(experiment, directory), study_owner(experiment, directory)
    return {**trials_of(place, experiment.spec.name, owner), **kept}


def _left_out(before: Experiment, now: Experiment, trials: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Return a line for each reason why trials cannot stay as they are."""
    try:
        check_inside(now.space, trials)
    except UserError as error:
        return str(error).splitlines()
    earlier = load_experiment(before.written, env=now.environment)
    other = [n for n, params in trials.items() if _settings(earlier, params) != _settings(now, params)]
    if other:
        return [f"{named(other)} by_architecture would give other settings"]
    return _renamed_streams(earlier, now, trials.values())


def _settings(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    return experiment.resolve(params).model_dump()


def _renamed_streams(before: Experiment, now: Experiment, trials: Sequence[Mapping[str, Any]] | Any) -> list[str]:
    """Return which activation streams would lose their folders."""
    folders = {(stream.label, stream.folder) for stream in streams_of(now)}
    lost = [
        stream
        for stream in streams_of(before)
        if (stream.label, stream.folder) not in folders and any(stream.has(params) for params in trials)
    ]
    return [
        f"the activation stream {stream.label!r}, which has trials, would get another name or place among the streams: "
        "write added values after those that were there"
        for stream in lost[:1]
    ]
