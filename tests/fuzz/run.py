"""Runs a target on inputs that hypothesis draws from a seed, and collects the distinct ways in which it fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tests.fuzz.run_directories import RUN_TARGETS, RunDirectories
from tests.fuzz.targets import TARGETS, World

ALL: dict[str, tuple[Callable[[Any, Any], None], float]] = {**TARGETS, **RUN_TARGETS}
"""The doors: what is damaged and how, and its share of the inputs."""


def shares(inputs: int, only: str | None = None) -> dict[str, int]:
    """Return how many of the inputs each target gets."""
    weights = {name: weight for name, (_, weight) in ALL.items() if only in (None, name)}
    return {name: round(inputs * weight / sum(weights.values())) for name, weight in weights.items()}


def fuzz(name: str, world: World | RunDirectories, inputs: int, number: int) -> tuple[int, list[str]]:
    """Go through a door with this many damaged files; return how many there were, and one traceback per distinct failure.

    Args:
        name: Of `ALL`.
        world: Whole files, or whole run directories for the doors that damage those.
        inputs: How many.
        number: The same number draws the same inputs.
    """
    target, _ = ALL[name]
    count = 0
    failures: dict[tuple[str, str, int | None], str] = {}

    @seed(number)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    @given(st.data())
    def one(data: Any) -> None:
        nonlocal count
        try:
            target(data.draw, world)
        except HypothesisException:  # this draw is given up
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            failures.setdefault((type(error).__name__, last.filename, last.lineno), traceback.format_exc())
        count += 1

    one()
    return count, list(failures.values())
