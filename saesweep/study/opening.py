"""Creating the study of an experiment, or opening the one that it has made."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RDBStorage

from saesweep.errors import UserError
from saesweep.space import Space
from saesweep.study.move import move_study
from saesweep.study.rewrite import remove_unfinished_rewrite
from saesweep.study.samplers import Direction
from saesweep.study.storage import FINGERPRINT_KEY, OWNER_KEY, SETUP_KEY


def open_study(
    storage: RDBStorage,
    *,
    name: str,
    directions: Sequence[Direction],
    space: Space,
    search: Mapping[str, Any],
    fingerprint: str,
    known_fingerprints: Collection[str] = (),
    owner: str | None = None,
    metric_names: Sequence[str] = (),
) -> optuna.Study:
    """Create the study, or open it where it was made by the same experiment; its values are named for whoever looks at it.

    Where it was made for another space in which all its trials lie, it is moved to this one.

    Args:
        storage: Where it is kept.
        name: Its name there.
        directions: One per objective.
        space: The search space.
        search: What else decides suggestions.
        fingerprint: Hash of everything that decides results.
        known_fingerprints: Those that the run has had before.
        owner: The run that writes it, where other runs can reach the same storage.
        metric_names: Names of the values, for dashboards; none are set where it is empty.

    Raises:
        UserError: When the study belongs to another experiment, with what changed, or to another run.
    """
    # Every suggestion has a sampler of its own; this one keeps Optuna from modelling the space at each report.
    sampler = optuna.samplers.RandomSampler(seed=0)
    setup = {"space": space.describe(), "search": dict(search)}
    study = optuna.create_study(
        sampler=sampler, storage=storage, study_name=name, directions=list(directions), load_if_exists=True
    )
    remove_unfinished_rewrite(storage, name, owner)
    attrs = study.user_attrs
    if owner is not None and attrs.get(OWNER_KEY, owner) != owner:
        raise UserError(
            f"search.storage: the study {name!r} there belongs to another run directory; choose another `name`, or delete "
            f"it (`optuna delete-study --study-name {name}`)"
        )
    if owner is not None and OWNER_KEY not in attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(OWNER_KEY, owner)
    if FINGERPRINT_KEY not in attrs:
        if study.get_trials(deepcopy=False):
            raise UserError(f"the study {name!r} was not made by saesweep; choose another `name`")
        study.set_user_attr(SETUP_KEY, setup)
        study.set_user_attr(FINGERPRINT_KEY, fingerprint)
        name_metrics(study, metric_names)
        return study
    before = attrs[SETUP_KEY]
    changes = _changes({**before, "space": {}}, {**setup, "space": {}})
    if not changes and attrs[FINGERPRINT_KEY] not in (fingerprint, *known_fingerprints):
        changes = [f"a setting outside the space (fingerprint {attrs[FINGERPRINT_KEY]}, now {fingerprint})"]
    if not changes and before["space"] != json.loads(json.dumps(setup["space"])):
        moved = {**attrs, SETUP_KEY: setup}
        try:
            study = move_study(storage, study, space, described=before["space"], attrs=moved, owner=owner)
        except UserError as error:
            changes = [*_changes({"space": before["space"]}, {"space": setup["space"]}), *str(error).splitlines()]
    if changes:
        raise UserError(
            f"the study {name!r} belongs to another experiment. Changed since:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nRestore these settings, or give the experiment another `name`."
        )
    if attrs[FINGERPRINT_KEY] != fingerprint:
        study.set_user_attr(FINGERPRINT_KEY, fingerprint)
    name_metrics(study, metric_names)
    return study


def name_metrics(study: optuna.Study, metric_names: Sequence[str]) -> None:
    """Name the values of a study, which dashboards and Optuna's plots show; studies of earlier versions get them too."""
    if metric_names and study.metric_names != list(metric_names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metric_names))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line for each difference between two nested mappings."""
    lines: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if key in before and key in after and isinstance(old, Mapping) and isinstance(new, Mapping) and not prefix:
            lines += _changes(old, new, f"{key}.")
        elif key not in after:
            lines.append(f"{prefix}{key}: removed (was {old})")
        elif key not in before:
            lines.append(f"{prefix}{key}: added ({new})")
        else:
            lines.append(f"{prefix}{key}: was {old}, is {new}")
    return lines
