"""Values of a space in Optuna's form, and back."""

import json
from typing import Any

import optuna
import pytest

from saesweep.space import Space
from saesweep.study.encoding import Encoding, decode_described

from .spaces import parameter


@pytest.mark.parametrize(
    "choices",
    [
        ("a", "b"),
        (True, False, None),
        (1, True, "1"),
        ([1, 2], [1, 3], "[1, 2]x"),
        (0.9, 0.999),
        ([1, 2], "[1, 2]"),
    ],
)
def test_choices_survive_optuna(choices: tuple[Any, ...]) -> None:
    space = Space((parameter("x", choice=choices),))
    encoding, described = Encoding(space), json.loads(json.dumps(space.describe()))
    for choice in choices:
        stored = encoding.encode(space.parameters[0], choice)
        trial = optuna.trial.create_trial(params={"x": stored}, distributions=encoding.distributions, value=0.0)
        for back in (encoding.decode(trial.params), decode_described(described, trial.params)):
            assert back == {"x": choice}
            assert type(back["x"]) is type(choice)


def test_a_number_is_stored_as_its_range_has_it() -> None:
    encoding = Encoding(Space((parameter("k", int=(4, 64)), parameter("l0", choice=(16, 64)))))
    for parameter_ in encoding.space.parameters:
        stored = encoding.encode(parameter_, 64.0)
        assert (stored, type(stored)) == (64, int)
    with pytest.raises(ValueError, match=r"32 is outside choice \[16, 64\]"):
        encoding.encode(encoding.space.parameters[1], 32)


def test_steps_are_optunas() -> None:
    stepped = Encoding(Space((parameter("x", float=(0.1, 0.85), step=0.25), parameter("k", int=(4, 64), log=True))))
    assert stepped.distributions == {
        "x": optuna.distributions.FloatDistribution(0.1, 0.85, step=0.25),
        "k": optuna.distributions.IntDistribution(4, 64, log=True),
    }
