"""What trials at one target L0 teach the sampler about the others."""

from __future__ import annotations

import math
from statistics import mean

from saesweep.space import Space
from saesweep.study import Study
from tests.study.spaces import open_study, parameter

TARGET = parameter("target_l0", choice=(16.0, 64.0))
LR = parameter("lr", float=(1e-5, 1e-1), log=True)
L1 = parameter("sae.l1_coefficient", float=(1e-2, 1e2), log=True)
SPACE = Space((TARGET, LR, L1))
BEST_LR, BEST_L1 = 1e-2, 10.0


def trial(
    study: Study, number: int, target: float, aim: tuple[str, ...], given: dict[str, float] | None = None
) -> dict[str, float]:
    """Run one trial; values at the denser target are lower throughout."""
    params = study.ask(number, {"target_l0": target}, given, aim=aim)
    miss = math.log10(params["lr"] / BEST_LR) ** 2 + math.log10(params["sae.l1_coefficient"] / BEST_L1) ** 2
    study.tell(number, "complete", [miss + 1000.0 / target])
    return params


def distances(tmp_path, aim: tuple[str, ...], *, n_own: int = 0) -> tuple[float, float]:
    """Return how far suggestions at one target are from the best settings of the other, in decades; mean of two seeds."""
    found = []
    for seed in range(2):
        with open_study(tmp_path / f"{seed}-{len(aim)}-{n_own}.db", space=SPACE, seed=seed) as study:
            for i in range(13):  # spread over both ranges, the best settings among them
                trial(study, i, 16.0, aim, {"lr": 10 ** (i / 3 - 5), "sae.l1_coefficient": 10 ** (i * 6 % 13 / 3 - 2)})
            for i in range(n_own):
                given = {"lr": 10 ** (i / 2.5 - 5), "sae.l1_coefficient": 1.0}
                params = study.ask(13 + i, {"target_l0": 64.0}, given, aim=aim)
                study.tell(13 + i, "complete", [abs(math.log10(params["lr"] / 1e-4))])
            found += [trial(study, 13 + n_own + i, 64.0, aim) for i in range(6)]
    return (
        mean(abs(math.log10(params["lr"] / BEST_LR)) for params in found),
        mean(abs(math.log10(params["sae.l1_coefficient"] / BEST_L1)) for params in found),
    )


def test_a_learning_rate_is_learned_from_other_targets_and_a_coefficient_is_not(tmp_path):
    lr_alone, l1_alone = distances(tmp_path, ())
    lr, l1 = distances(tmp_path, ("target_l0",))
    assert lr < 0.5 * lr_alone
    assert l1 > 0.6 * l1_alone


def test_a_target_with_trials_enough_learns_from_its_own_alone(tmp_path):
    # At this target the best learning rate is two decades lower.
    lr, _ = distances(tmp_path, ("target_l0",), n_own=11)
    assert lr > 0.9


def test_suggestions_repeat(tmp_path):
    numbers = []
    for name in ("a", "b"):
        with open_study(tmp_path / f"{name}.db", space=SPACE) as study:
            numbers.append([trial(study, i, (16.0, 64.0)[i % 2], ("target_l0",)) for i in range(12)])
    assert numbers[0] == numbers[1]
