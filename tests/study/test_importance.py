"""Importances within groups that share their parameters, and choices compared at equal L0."""

import math
import random
from pathlib import Path
from typing import Any

import pytest

from saesweep.space import Space
from saesweep.study import MIN_TRIALS, Study, importances, load_plain_study, marginals

from .spaces import parameter

SPACE = Space(
    (
        parameter("sae.architecture", choice=("topk", "standard")),
        parameter("lr", float=(0.0, 1.0)),
        parameter("beta", float=(0.0, 1.0)),
        parameter("sae.k", float=(0.0, 1.0), when={"sae.architecture": ("topk",)}),
    )
)


def told(path: Path, n_trials: int, value: Any) -> dict[int, str]:
    """Fill a study with random trials; return the architecture of each."""
    architectures = {}
    with Study.open(
        str(path), name="s", directions=("maximize",), space=SPACE, sampler="random", seed=0, fingerprint="f"
    ) as study:
        for number in range(n_trials):
            params = study.ask(number)
            architectures[number] = params["sae.architecture"]
            study.tell(number, "complete", [value(params)])
    return architectures


def test_a_parameter_of_one_architecture_is_weighed_within_it(tmp_path: Path) -> None:
    # Within topk only k matters; over all trials, of the common parameters, lr does, through standard.
    def value(params: dict[str, Any]) -> float:
        return -abs(params["sae.k"] - 0.7) if "sae.k" in params else -3 * abs(params["lr"] - 0.2)

    architectures = told(tmp_path / "study.db", 80, value)
    found = importances(load_plain_study(str(tmp_path / "study.db"), "s"), ["maximize x"], architectures)
    by_group = {item.group: item for item in found}
    assert list(by_group) == ["all trials", "topk"]  # standard has nothing of its own
    assert set(by_group["all trials"].shares) == {"sae.architecture", "lr", "beta"}
    within = by_group["topk"].shares
    assert set(within) == {"lr", "beta", "sae.k"}
    assert next(iter(within)) == "sae.k"
    assert within["sae.k"] > 0.6
    assert sum(within.values()) == pytest.approx(1)
    assert by_group["topk"].n_trials == sum(name == "topk" for name in architectures.values())


def test_too_few_trials_have_no_importance(tmp_path: Path) -> None:
    architectures = told(tmp_path / "study.db", MIN_TRIALS - 1, lambda params: params["lr"])
    found = importances(load_plain_study(str(tmp_path / "study.db"), "s"), ["maximize x"], architectures)
    assert found
    assert not any(item.shares for item in found)


def test_a_choice_is_compared_at_equal_l0_even_where_its_values_differ_in_l0() -> None:
    # delta_ce = L0^-0.8 times 1.2 for "a": yet "a" looks better by itself, because its trials are denser.
    rng = random.Random(0)
    params, metrics = [], []
    for i in range(40):
        choice = "a" if i % 2 else "b"
        l0 = math.exp(rng.uniform(3, 5)) if choice == "a" else math.exp(rng.uniform(2, 4))
        params.append({"choice": choice})
        noise = math.exp(rng.gauss(0, 0.01))
        metrics.append({"l0": l0, "delta_ce": l0**-0.8 * (1.2 if choice == "a" else 1.0) * noise})
    mean = {c: sum(m["delta_ce"] for p, m in zip(params, metrics, strict=True) if p["choice"] == c) for c in "ab"}
    assert mean["a"] < mean["b"]
    (found,) = marginals("choice", "delta_ce", params, metrics)
    assert found.is_ratio
    effects = {e.value: e for e in found.effects}
    assert effects["a"].effect == pytest.approx(math.sqrt(1.2) - 1, abs=0.01)
    assert effects["b"].effect == pytest.approx(1 / math.sqrt(1.2) - 1, abs=0.01)
    assert 0 < effects["a"].stderr < 0.01
    assert effects["a"].n_trials == 20


def test_what_cannot_be_distinguished_has_no_effect() -> None:
    params = [{"choice": "a" if i < 4 else "b"} for i in range(8)]
    metrics = [{"l0": 10.0 if i < 4 else 20.0, "mse": 1.0} for i in range(8)]  # L0 is the choice
    assert marginals("choice", "mse", params, metrics)[0].effects == ()
    assert marginals("choice", "mse", params[:3], metrics[:3])[0].effects == ()


def test_values_without_a_common_range_of_l0_are_not_compared() -> None:
    # topk at L0 16, standard at 118 to 135: a difference "at equal L0" would be the straight line's, not the trials'.
    params = [{"choice": name} for name in ["topk"] * 4 + ["standard"] * 4 + ["gated"] * 4 + ["jumprelu"] * 4]
    l0s = [15.8, 16.0, 16.1, 16.2, 118, 120, 130, 135, 20, 60, 90, 110, 25, 50, 80, 100]
    metrics = [{"l0": l0, "explained_variance": 0.5 + 0.01 * i} for i, l0 in enumerate(l0s)]
    (found,) = marginals("choice", "explained_variance", params, metrics)
    assert {effect.value for effect in found.effects} == {"standard", "gated", "jumprelu"}  # 110 is within 10% of 118
    assert found.apart == (("topk", (pytest.approx(15.8), pytest.approx(16.2))),)
    (nothing,) = marginals("choice", "explained_variance", params[:8], metrics[:8])
    assert nothing.effects == ()
    assert [value for value, _ in nothing.apart] == ["topk", "standard"]
