"""A finished or running study, to look at."""

from __future__ import annotations

from pathlib import Path

import optuna

from saesweep.errors import UserError
from saesweep.study.storage import damage_told, open_storage, refuse_empty, silence_optuna


def load_plain_study(path_or_url: str, name: str) -> optuna.Study:
    """Return Optuna's own view of a study, for its plots and importances; nothing is written.

    Raises:
        UserError: The storage cannot be opened, or holds no study of this name.
    """
    silence_optuna()
    if "://" not in path_or_url:
        refuse_empty(Path(path_or_url))
    storage = open_storage(path_or_url)
    with damage_told(path_or_url):
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise UserError(f"{path_or_url}: holds no study named {name!r}") from None
        study.get_trials(deepcopy=False)  # what is damaged is met here, and not by a plot
        return study
