"""Conditions, names and encodings of the space."""

from typing import Any

import optuna
import pytest

from saesweep.errors import UserError
from saesweep.study import ParameterView, SpaceView

from .spaces import ARCHITECTURE, L1_GATED, L1_STANDARD, LR, SPACE, K


def active(space: SpaceView, values: dict[str, Any]) -> set[str]:
    """Names of the parameters active beside these values."""
    params: dict[str, Any] = {}
    names = set()
    for parameter in space.walk(params):
        names.add(parameter.name)
        params[parameter.path] = values.get(parameter.path)
    return names


def test_conditions_choose_the_range_and_its_name() -> None:
    assert active(SPACE, {"sae.architecture": "topk"}) == {"sae.architecture", "sae.k", "lr"}
    gated = "sae.l1_coefficient|sae.architecture=gated"
    assert active(SPACE, {"sae.architecture": "gated"}) == {"sae.architecture", gated, "lr"}


def test_condition_on_an_inactive_parameter_does_not_hold() -> None:
    child = ParameterView(path="lr_end", kind="float", low=0.0, high=1.0, when={"sae.k": (None, 8)})
    space = SpaceView(parameters=(child, K, ARCHITECTURE))
    assert "lr_end" not in active(space, {"sae.architecture": "gated"})
    assert "lr_end" in active(space, {"sae.architecture": "topk", "sae.k": 8})


def test_condition_on_the_base_run() -> None:
    for architecture, expected in (("topk", {"sae.k"}), ("gated", set())):
        space = SpaceView(parameters=(K,), base={"sae.architecture": architecture})
        assert active(space, {}) == expected
        assert not space.is_conditional()
    with pytest.raises(UserError, match=r"space.sae.k: `when` names sae.architecture"):
        SpaceView(parameters=(K,))


def test_circle_and_doubles_are_refused() -> None:
    a = ParameterView(path="a", kind="int", low=1, high=2, when={"b": (1,)})
    b = ParameterView(path="b", kind="int", low=1, high=2, when={"a": (1,)})
    with pytest.raises(UserError, match="a, b refer to each other"):
        SpaceView(parameters=(a, b))
    with pytest.raises(UserError, match="two ranges have the same condition"):
        SpaceView(parameters=(ARCHITECTURE, L1_GATED, L1_GATED))
    overlap = ParameterView(path="sae.k", kind="int", low=1, high=9, when={"sae.architecture": ("topk", "gated")})
    with pytest.raises(UserError, match="two of its ranges hold at once"):
        active(SpaceView(parameters=(ARCHITECTURE, K, overlap)), {"sae.architecture": "topk"})


def test_strata_are_the_choices_of_an_unconditional_parameter() -> None:
    assert SPACE.strata("sae.architecture") == [{"sae.architecture": a} for a in ("topk", "standard", "gated")]
    assert SPACE.is_conditional()
    assert not SPACE.is_conditional(("sae.architecture",))
    for path in ("lr", "sae.k", "nothing"):
        with pytest.raises(UserError, match="not an unconditional choice"):
            SPACE.strata(path)


@pytest.mark.parametrize(
    "choices",
    [
        ("a", "b"),
        (True, False, None),
        (1, True, 1.0, "1"),
        ([1, 2], [1, 3], "[1, 2]x"),
        (0.9, 0.999),
        ([1, 2], "[1, 2]"),
    ],
)
def test_choices_survive_optuna(choices: tuple[Any, ...]) -> None:
    parameter = ParameterView(path="x", kind="choice", choices=choices, name="x")
    for choice in choices:
        stored = parameter.encode(choice)
        trial = optuna.trial.create_trial(params={"x": stored}, distributions={"x": parameter.distribution}, value=0.0)
        back = parameter.decode(trial.params["x"])
        assert back == choice


def test_steps_count_from_the_lower_bound() -> None:
    stepped = ParameterView(path="x", kind="float", low=0.1, high=1.0, step=0.25, name="x")
    assert stepped.contains(0.6)
    assert not stepped.contains(0.5)
    assert not stepped.contains(1.0)
    assert stepped.distribution == optuna.distributions.FloatDistribution(0.1, 0.85, step=0.25)
    integers = ParameterView(path="n", kind="int", low=16, high=64, step=16, name="n")
    assert [n for n in range(70) if integers.contains(n)] == [16, 32, 48, 64]
    assert integers.contains(32.0)
    assert not integers.contains(32.5)


def test_description_tells_ranges_apart() -> None:
    described = SPACE.describe()
    assert described["lr"] == {"float": [1e-5, 1e-2], "log": True, "step": None, "when": {}}
    assert described["sae.architecture"] == {"choice": ["topk", "standard", "gated"], "when": {}}
    assert L1_STANDARD.describe() != L1_GATED.describe()
    assert LR.describe() == described["lr"]
