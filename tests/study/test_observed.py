"""What a sampler sees of trials: those that have ended are copied once, and suggestions are the same as from fresh copies."""

from __future__ import annotations

import optuna
import pytest

from saesweep.study.encoding import Encoding, ExpectedEnd
from saesweep.study.observed import Observations
from tests.study.spaces import SPACE, open_study

EXPECTED = {3: ExpectedEnd((0.5,), {"l0_max": 2.0})}


def trials_of(study) -> list[optuna.trial.FrozenTrial]:
    return study._study.get_trials(deepcopy=False)


def test_what_has_ended_is_copied_once_and_what_trains_each_time(tmp_path) -> None:
    with open_study(tmp_path / "study.db") as study:
        for number in range(4):
            study.ask(number)
        for number in range(3):
            study.tell(number, "complete", [float(number)])
        encoding = Encoding(SPACE)
        observations = Observations(encoding)
        before = observations.of(trials_of(study), {})
        after = observations.of(trials_of(study), EXPECTED)
        paths = SPACE.paths
        assert all(b is a for b, a in zip(before[:3], after[:3], strict=True))
        assert all(a.shown(encoding, paths) is a.shown(encoding, paths) for a in after[:3])
        assert before[3].trial.state == optuna.trial.TrialState.RUNNING
        assert (after[3].trial.state, after[3].trial.value) == (optuna.trial.TrialState.COMPLETE, 0.5)
        assert after[3].trial.constraints == {"l0_max": 2.0}
        study.tell(3, "complete", [3.0])
        assert observations.of(trials_of(study), EXPECTED)[3].trial.value == 3.0


def test_a_sampler_cannot_change_what_is_kept(tmp_path) -> None:
    """A study numbers its trials anew, and the copies that are kept stay as they were."""
    with open_study(tmp_path / "study.db") as study:
        for number in range(6):
            study.ask(number)
            study.tell(number, "complete", [float(number)])
        kept = study._observations.of(trials_of(study), {})
        shown = [one.shown(Encoding(SPACE), SPACE.paths) for one in kept]
        study.ask(6)
        assert [trial.number for trial in shown] == [-1] * 6
        assert [trial.value for trial in shown] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "optuna.samplers.NSGAIISampler"])
def test_suggestions_are_those_of_a_study_that_was_opened_again_for_each(tmp_path, sampler: str) -> None:
    def value(params) -> float:
        return float(len(str(sorted(params.items()))) % 7)

    def one(study, number: int) -> dict[str, object]:
        params = study.ask(number)
        if number % 4 != 3:  # the others continue training
            study.tell(number, "complete", [value(params)])
        return params

    with open_study(tmp_path / "kept.db", sampler=sampler, seed=3) as study:
        kept = [one(study, number) for number in range(24)]
    again = []
    for number in range(24):
        with open_study(tmp_path / "again.db", sampler=sampler, seed=3) as study:
            again.append(one(study, number))
    assert kept == again
