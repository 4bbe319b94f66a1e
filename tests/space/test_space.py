"""Conditions, names and points of a space, and what is one value."""

from typing import Any

import pytest

from saesweep.errors import UserError
from saesweep.space import Parameter, Space, all_points, grid_points, grid_size, space_size
from saesweep.specs import ParameterSpec


def parameter(path: str, when: Any = None, **range_: Any) -> Parameter:
    return Parameter(path=path, spec=ParameterSpec.model_validate(range_), when=when or {})


ARCHITECTURE = parameter("sae.architecture", choice=("topk", "standard", "gated"))
K = parameter("sae.k", int=(4, 64), when={"sae.architecture": ("topk",)}, grid=(8, 32))
L1_STANDARD = parameter("sae.l1_coefficient", float=(0.5, 30), when={"sae.architecture": ("standard",)}, grid=(1, 5))
L1_GATED = parameter("sae.l1_coefficient", float=(0.1, 2), when={"sae.architecture": ("gated",)}, grid=(0.5,))
LR = parameter("lr", float=(1e-5, 1e-2), log=True, grid=(1e-4, 1e-3))
SPACE = Space((ARCHITECTURE, K, L1_STANDARD, L1_GATED, LR))


def active(space: Space, values: dict[str, Any]) -> set[str]:
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
    space = Space((ARCHITECTURE, K, parameter("lr_end", float=(0, 1), when={"sae.k": (None, 8)})))
    assert "lr_end" not in active(space, {"sae.architecture": "gated"})
    assert "lr_end" in active(space, {"sae.architecture": "topk", "sae.k": 8})


def test_a_parameter_follows_those_that_its_condition_names() -> None:
    a, b = parameter("a", int=(1, 2), when={"b": (1,)}), parameter("b", int=(1, 2), when={"a": (1,)})
    for wrong in ((K, ARCHITECTURE), (K,), (a, b)):
        with pytest.raises(ValueError, match="does not come after"):
            Space(wrong)
    with pytest.raises(ValueError, match="two ranges have the same condition"):
        Space((ARCHITECTURE, L1_GATED, L1_GATED))


def test_strata_are_the_choices_of_an_unconditional_parameter() -> None:
    assert SPACE.strata("sae.architecture") == [{"sae.architecture": a} for a in ("topk", "standard", "gated")]
    assert SPACE.is_conditional()
    assert not SPACE.is_conditional(("sae.architecture",))
    for path in ("lr", "sae.k", "nothing"):
        with pytest.raises(UserError, match="not an unconditional choice"):
            SPACE.strata(path)


def test_description_names_every_range() -> None:
    described = SPACE.describe()
    assert described["lr"] == {"float": [1e-5, 1e-2], "log": True, "step": None, "when": {}}
    assert described["sae.architecture"] == {"choice": ["topk", "standard", "gated"], "when": {}}
    assert {name for name in described if "l1" in name} == {
        "sae.l1_coefficient|sae.architecture=standard",
        "sae.l1_coefficient|sae.architecture=gated",
    }


def test_64_is_64_point_0_and_1_is_not_true() -> None:
    """A range, a choice and a condition take a number however it is written; nothing takes true for a number."""
    for spec in (K.spec, ParameterSpec(choice=(16, 64)), ParameterSpec(choice=(16.0, 64.0))):
        assert spec.contains(64)
        assert spec.contains(64.0)
        assert not spec.contains(64.5)
    assert not ParameterSpec(choice=(1, 2)).contains(True)
    assert not ParameterSpec.model_validate({"int": (0, 2)}).contains(True)
    child = parameter("lr", float=(0, 1), when={"sae.k": (64.0,)})
    assert child.is_active({"sae.k": 64})
    assert not parameter("lr", float=(0, 1), when={"flag": (1,)}).is_active({"flag": True})
    assert ParameterSpec(choice=(64, 64.0)).problems() == [("choice", "names a value twice; list each once")]
    assert ParameterSpec(choice=(1, True)).problems() == []


def test_steps_count_from_the_lower_bound() -> None:
    stepped = ParameterSpec.model_validate({"float": (0.1, 0.85), "step": 0.25})
    assert [x for x in (0.1, 0.35, 0.5, 0.6, 0.85, 1.1) if stepped.contains(x)] == [0.1, 0.35, 0.6, 0.85]
    assert stepped.values() == [0.1, 0.35, 0.6, 0.85]
    integers = ParameterSpec.model_validate({"int": (16, 64), "step": 16})
    assert [n for n in range(70) if integers.contains(n)] == list(integers.values()) == [16, 32, 48, 64]
    assert integers.contains(32.0)
    assert not integers.contains(32.5)


def test_points_of_a_grid() -> None:
    found = list(grid_points(SPACE.parameters))
    assert found[0] == {"sae.architecture": "topk", "sae.k": 8, "lr": 1e-4}
    assert len(found) == grid_size(SPACE.parameters) == (2 + 2 + 1) * 2
    own = list(grid_points(SPACE.parameters, {"sae.architecture": "gated", "lr": 0.5}))
    assert own == [{"sae.architecture": "gated", "sae.l1_coefficient": 0.5, "lr": 0.5}]
    assert list(grid_points(SPACE.parameters, {"sae.architecture": "gated", "sae.k": 8})) == []  # never together


def test_size_where_a_condition_names_a_range_of_integers() -> None:
    k, low = parameter("sae.k", int=(4, 6)), parameter("flag", choice=(1, 2), when={"sae.k": (4, 5)})
    assert space_size((k, low)) == len(all_points((k, low), {}) or ()) == 2 + 2 + 1
    assert space_size((*SPACE.parameters,)) is None
    assert all_points((parameter("x", float=(0, 1), step=1e-9),), {}) is None  # not listed first
