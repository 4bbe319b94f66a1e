"""Opening the file or database that holds the study."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.storages import RDBStorage
from sqlalchemy import make_url

from saesweep.errors import STUDY_FIX, UserError, fault_of, first_line

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
        with translate_damage(shown(path_or_url)):
            # A file that Optuna makes now has its own version; to check that, it would read its migrations from disk again.
            return RDBStorage(url, engine_kwargs=engine, skip_compatibility_check=is_new)
    except (ImportError, RuntimeError) as error:
        reason = first_line(error)
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
def translate_damage(path_or_url: str) -> Iterator[None]:
    """Translate what a damaged or locked study does to its reader into one message.

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
        reason = first_line(getattr(error, "orig", None) or error)[:300]
        message = (fault_of(error) or "").replace(
            "(study.db) ", ""
        ) or f"damaged, or no Optuna study ({type(error).__name__}: {reason}); {STUDY_FIX}"
        raise UserError(f"{path_or_url}: {message}") from error


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
    with translate_damage(str(path)), closing(sqlite3.connect(path, timeout=SQLITE_TIMEOUT_SECONDS)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise ValueError(str(found))


def close_storage(storage: RDBStorage) -> None:
    """Close a storage's session and its pooled connections."""
    storage.remove_session()
    storage.engine.dispose()


def load_plain_study(path_or_url: str, name: str) -> optuna.Study:
    """Return Optuna's own view of a study, for its plots and importances; nothing is written.

    Raises:
        UserError: The storage cannot be opened, or holds no study of this name.
    """
    silence_optuna()
    if "://" not in path_or_url:
        refuse_empty(Path(path_or_url))
    storage = open_storage(path_or_url)
    with translate_damage(path_or_url):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise UserError(f"{path_or_url}: holds no study named {name!r}") from None
        study.get_trials(deepcopy=False)  # what is damaged is met here, and not by a plot
        return study
