"""A study that is opened for another space: every trial stays, in the words of the new one, whenever it is killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import event

from saesweep.errors import UserError
from saesweep.space import Space
from saesweep.study import read_study

from .spaces import LR, open_study, parameter


class Killed(BaseException):
    """The process is gone."""


def space(choices: tuple[Any, ...], k_when: tuple[str, ...]) -> Space:
    """Return a choice of any JSON values beside two ranges of k under conditions, whose Optuna names hold those."""
    kinds = parameter("sae.architecture", choice=("topk", "batchtopk", *k_when[1:]))
    wide = parameter("sae.k", int=(4, 64), when={"sae.architecture": k_when})
    narrow = parameter("sae.k", int=(4, 8), when={"sae.architecture": ("batchtopk",)})
    return Space((kinds, parameter("flag", choice=choices), wide, narrow, LR))


BEFORE = space((1, None, [1, 2]), ("topk",))
AFTER = space((True, [1, 2], "x", 1, None), ("topk", "gated"))  # 1 and true are one value to Optuna


def asked(path: Path, n: int = 6, **changes: Any) -> list[Any]:
    """Ask and end trials: complete, pruned and running ones."""
    with open_study(path, **{"space": BEFORE, **changes}) as study:
        for number in range(n):
            study.ask(number)
            study.report(number, 1000, [float(number)])
            if number % 3 == 0:
                study.tell(number, "complete", [0.1 * number], constraints={"l0_max": 1.0}, attrs={"tokens": 7})
            elif number % 3 == 1:
                study.tell(number, "pruned", attrs={"reason": "rung"})
        return study.trials()


@pytest.mark.parametrize("sampler", ["tpe", "random", "optuna.samplers.NSGAIISampler"])
def test_every_trial_stays_and_what_was_added_is_suggested(tmp_path: Path, sampler: str) -> None:
    before = asked(tmp_path / "s.db", sampler=sampler)
    with open_study(tmp_path / "s.db", space=AFTER, sampler=sampler) as study:
        assert study.trials() == before
        found = [study.ask(number) for number in range(6, 30)]
    assert {repr(params["flag"]) for params in found} >= {"True", "'x'"}
    assert "gated" in {params["sae.architecture"] for params in found}
    assert read_study(tmp_path / "s.db", AFTER)[:6] == before
    plain = optuna.load_study(study_name="test", storage=f"sqlite:///{tmp_path / 's.db'}").trials
    for name in {name for trial in plain for name in trial.params}:
        assert len({repr(trial.distributions[name]) for trial in plain if name in trial.params}) == 1


def test_a_trial_outside_is_named_and_nothing_changes(tmp_path: Path) -> None:
    before = asked(tmp_path / "s.db")
    numbers = [record.number for record in before if record.params["flag"] is None]
    smaller = space((1, [1, 2]), ("topk",))
    message = rf"trials? {', '.join(map(str, numbers))}: space.flag is None, which is outside choice \[1, \[1, 2\]\]"
    with pytest.raises(UserError, match=message):
        open_study(tmp_path / "s.db", space=smaller)
    with open_study(tmp_path / "s.db", space=BEFORE) as study:
        assert study.trials() == before


@pytest.mark.parametrize("owner", [None, "me"])
def test_a_kill_before_any_commit_leaves_one_whole_study(tmp_path: Path, owner: str | None) -> None:
    before, kills = asked(tmp_path / "whole.db", n=3, owner=owner), 0
    while opens_until_killed(tmp_path, kills, owner):
        with open_study(tmp_path / "s.db", space=AFTER, owner=owner) as study:
            assert study.trials() == before
        storage = RDBStorage(f"sqlite:///{tmp_path / 's.db'}")
        assert optuna.get_all_study_names(storage) == ["test"]
        storage.engine.dispose()
        kills += 3
    assert kills > 10


def opens_until_killed(folder: Path, commits: int, owner: str | None) -> bool:
    """Move a copy of the study until so many commits have been made; return whether that was before the end."""
    shutil.copy(folder / "whole.db", folder / "s.db")
    done = 0

    def commit(_: Any) -> None:
        nonlocal done
        done += 1
        if done > commits:
            raise Killed

    event.listen(sqlalchemy.Engine, "commit", commit)
    try:
        open_study(folder / "s.db", space=AFTER, owner=owner).close()
    except Killed:
        return True
    finally:
        event.remove(sqlalchemy.Engine, "commit", commit)
    return False
