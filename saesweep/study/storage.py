"""Opening the file or database that holds the study."""

from __future__ import annotations

import logging
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import RDBStorage
from sqlalchemy import make_url

from saesweep.errors import UserError
from saesweep.faults import STUDY_FIX, fault_of
from saesweep.study.samplers import Direction

SQLITE_TIMEOUT_SECONDS = 60
"""How long to wait for a dashboard that reads the same file."""
SETUP_KEY = "saesweep:setup"
FINGERPRINT_KEY = "saesweep:fingerprint"
OWNER_KEY = "saesweep:run"


def silence_optuna() -> None:
    """Leave Optuna's messages to the program's own logging: its handler would tear the live display."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    # Below WARNING there is one line for each in-memory copy, that is, for each suggestion.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logger = logging.getLogger("optuna")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())


def open_storage(path_or_url: str) -> RDBStorage:
    """Open a SQLite file (created where missing) or a database URL.

    Raises:
        UserError: When the file is no study, another Optuna version wrote it, or the database cannot be reached.
    """
    is_url = "://" in path_or_url
    is_new = not is_url and not Path(path_or_url).exists()
    if not is_url:
        _check_file(Path(path_or_url))
    url = path_or_url if is_url else f"sqlite:///{Path(path_or_url).absolute()}"
    # A server drops connections that have been idle: each is tried before it is used.
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        engine = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    try:
        with damage_told(shown(path_or_url)):
            # A file that Optuna makes now has its own version; to check that, it would read its migrations from disk again.
            return RDBStorage(url, engine_kwargs=engine, skip_compatibility_check=is_new)
    except (ImportError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{shown(path_or_url)}: not a storage that Optuna can open: {reason}") from error


def shown(path_or_url: str) -> str:
    """Return the place of a study without the password that it may hold."""
    if "://" not in path_or_url:
        return path_or_url
    try:
        return make_url(path_or_url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return f"{path_or_url.partition('://')[0]}://..."


@contextmanager
def damage_told(path_or_url: str) -> Iterator[None]:
    """Turn what a damaged or locked study does to its reader into one message.

    Raises:
        UserError: The block failed as it does where the storage holds something that Optuna did not write.
    """
    try:
        yield
    except UserError:
        raise
    except (
        sqlite3.Error,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        reason = (str(getattr(error, "orig", None) or error) or type(error).__name__).splitlines()[0][:300]
        told = (fault_of(error) or "").replace(
            "(study.db) ", ""
        ) or f"damaged, or no Optuna study ({type(error).__name__}: {reason}); {STUDY_FIX}"
        raise UserError(f"{path_or_url}: {told}") from error


def refuse_empty(path: Path) -> None:
    """Refuse a study's file that holds nothing: Optuna would make a new study of it where somebody only wants to look.

    Raises:
        UserError: It is empty.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise UserError(f"{path}: empty; {STUDY_FIX}")


def _check_file(path: Path) -> None:
    """Let SQLite check a file that is there: an index that lost rows would be read without any error."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with damage_told(str(path)), closing(sqlite3.connect(path, timeout=SQLITE_TIMEOUT_SECONDS)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise ValueError(str(found))


def open_study(
    storage: RDBStorage,
    *,
    name: str,
    directions: Sequence[Direction],
    setup: Mapping[str, Any],
    fingerprint: str,
    owner: str | None = None,
    metric_names: Sequence[str] = (),
) -> optuna.Study:
    """Create the study, or open it where it was made by the same experiment; its values are named for whoever looks at it.

    Args:
        storage: Where it is kept.
        name: Its name there.
        directions: One per objective.
        setup: The space and the search.
        fingerprint: Hash of everything else that decides results.
        owner: The run that writes it, where other runs can reach the same storage.
        metric_names: Names of the values, for dashboards; none are set where it is empty.

    Raises:
        UserError: When the study belongs to another experiment, with what changed, or to another run.
    """
    # Every suggestion has a sampler of its own; this one keeps Optuna from modelling the space at each report.
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(
        sampler=sampler, storage=storage, study_name=name, directions=list(directions), load_if_exists=True
    )
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
        study.set_user_attr(SETUP_KEY, dict(setup))
        study.set_user_attr(FINGERPRINT_KEY, fingerprint)
        name_metrics(study, metric_names)
        return study
    before = attrs[SETUP_KEY]
    changes = _changes(_widened(before, setup), setup)
    if not changes and attrs[FINGERPRINT_KEY] != fingerprint:
        changes = [f"a setting outside the space (fingerprint {attrs[FINGERPRINT_KEY]}, now {fingerprint})"]
    if changes:
        raise UserError(
            f"the study {name!r} belongs to another experiment. Changed since:\n"
            + "\n".join(f"  {change}" for change in changes)
            + "\nRestore these settings, or give the experiment another `name`."
        )
    if before != setup:
        study.set_user_attr(SETUP_KEY, dict(setup))
    name_metrics(study, metric_names)
    return study


def name_metrics(study: optuna.Study, metric_names: Sequence[str]) -> None:
    """Name the values of a study, which dashboards and Optuna's plots show; studies of earlier versions get them too."""
    if metric_names and study.metric_names != list(metric_names):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(metric_names))


def _widened(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the earlier setup with the new bounds of the ranges that have only become wider, without a `step`."""
    space = dict(before["space"])
    for name, old in space.items():
        new = after["space"].get(name, {})
        for kind in ("float", "int"):
            if kind in old and kind in new and not old["step"]:
                (low, high), (new_low, new_high) = old[kind], new[kind]
                if new_low <= low and high <= new_high:
                    space[name] = {**old, kind: new[kind]}
    return {**before, "space": space}


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


def close_storage(storage: RDBStorage) -> None:
    """Close a storage's session and its pooled connections."""
    storage.remove_session()
    storage.engine.dispose()
