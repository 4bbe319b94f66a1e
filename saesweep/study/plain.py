"""A finished or running study, to look at."""

from __future__ import annotations

import optuna

from saesweep.errors import UserError
from saesweep.study.storage import open_storage, silence_optuna


def load_plain_study(path_or_url: str, name: str) -> optuna.Study:
    """Return Optuna's own view of a study, for its plots and importances; nothing is written.

    Raises:
        UserError: The storage cannot be opened, or holds no study of this name.
    """
    silence_optuna()
    try:
        return optuna.load_study(study_name=name, storage=open_storage(path_or_url))
    except KeyError:
        raise UserError(f"{path_or_url}: holds no study named {name!r}") from None
