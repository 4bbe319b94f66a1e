"""The fixed rules of one sweep, as the scheduler needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from saesweep.scheduler.aim import Aim

Pruner = Literal["rung", "none"]
"""`rung`: judge trials at the rungs; `none`: every trial runs to the end unless its values are not finite."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What may be asked, how long a trial trains, and when it is judged.

    Raises:
        ValueError: When a number is out of range or the rungs are not ascending below `total_tokens`.
    """

    n_trials: int
    """Trials of the whole sweep, baselines included."""
    n_slots: int
    """Slots of the cohort at the start (`SlotsChanged` alters the state, not the policy)."""
    total_tokens: int
    """Training tokens of a trial that is not pruned."""
    aim: Aim
    """The goals, and the limits that a finished trial must keep."""
    rungs_tokens: tuple[int, ...] = ()
    """Training tokens, *of the trial*, at which it is judged; ascending, each below `total_tokens`."""
    min_probability: float = 0.01
    """A trial whose probability of ending among what the aim keeps is below this is pruned."""
    quota: int = 0
    """Trials of each architecture that are never pruned."""
    strata: tuple[str, ...] = ("all",)
    """Names of the strata that share the trials equally."""
    stratum_limits: tuple[int | None, ...] = ()
    """Maximum number of trials of each stratum (a finite grid), aligned with `strata`; empty: no limits."""
    baseline_strata: tuple[str, ...] = ()
    """Strata of the first trials, whose settings are given rather than sampled."""
    pruner: Pruner = "rung"
    """Whether the rungs judge."""
    retry_failed: int = 0
    """How often the settings of a failed trial are asked for again, beside the `n_trials`."""
    tokens_budget: int | None = None
    """Maximum number of training tokens of all trials together: a trial is asked only where every live trial could still finish."""

    def __post_init__(self) -> None:
        _check_minimum(1, n_trials=self.n_trials, n_slots=self.n_slots, total_tokens=self.total_tokens)
        _check_minimum(0, quota=self.quota, retry_failed=self.retry_failed)
        if not 0 <= self.min_probability < 1:
            raise ValueError(f"min_probability must be at least 0 and below 1, but is {self.min_probability}")
        if self.pruner not in ("rung", "none"):
            raise ValueError(f"pruner must be 'rung' or 'none', but is {self.pruner!r}")
        if list(self.rungs_tokens) != sorted(set(self.rungs_tokens)):
            raise ValueError(f"rungs_tokens must be ascending, but are {self.rungs_tokens}")
        if self.rungs_tokens and not 0 < self.rungs_tokens[0] <= self.rungs_tokens[-1] < self.total_tokens:
            raise ValueError(
                f"rungs_tokens {self.rungs_tokens} must lie between 0 and total_tokens={self.total_tokens}"
            )
        if not self.strata or len(set(self.strata)) != len(self.strata):
            raise ValueError(f"strata must be distinct and not empty, but are {self.strata}")
        if self.stratum_limits and len(self.stratum_limits) != len(self.strata):
            raise ValueError(f"stratum_limits {self.stratum_limits} must align with strata {self.strata}")
        unknown = [name for name in self.baseline_strata if name not in self.strata]
        if unknown:
            raise ValueError(f"baseline_strata {unknown} are not among the strata {self.strata}")
        if self.tokens_budget is not None and self.tokens_budget < 0:
            raise ValueError(f"tokens_budget must be at least 0, but is {self.tokens_budget}")

    @property
    def stops_tokens(self) -> tuple[int, ...]:
        """Training tokens at which a trial is measured: its rungs, then its end."""
        return (*self.rungs_tokens, self.total_tokens)

    @property
    def end_rung(self) -> int:
        """Index of the end among the stops."""
        return len(self.rungs_tokens)

    def is_equivalent_to(self, other: Policy) -> bool:
        """Return whether two policies ask for the same trials; memory, and baselines that are past, do not matter."""
        return replace(self, n_slots=1, baseline_strata=()) == replace(other, n_slots=1, baseline_strata=())

    def to_json(self) -> dict[str, Any]:
        """Return the policy as plain JSON values."""
        return {**asdict(self), "aim": self.aim.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Return the policy that `to_json` described, before or after a trip through a JSON file."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, (list, tuple)) else v for name, v in data.items()}
        return cls(**{**fields, "aim": Aim.from_json(data["aim"])})


def _check_minimum(minimum: int, **values: int) -> None:
    """Raise a ValueError for the first value below the minimum."""
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} must be at least {minimum}, but is {value}")
