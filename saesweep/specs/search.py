"""How the space is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec
from saesweep.specs.units import Duration, Seconds, Steps, TokenCount, TokensOrMultiple


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class ConfirmSpec(Spec):
    """Finalists train again, all together from the start of the stream, and that decides."""

    top: int = Field(3, ge=1)
    """Finalists: the best of the ranking, or the points of a Pareto front nearest its knee."""
    replicates: int = Field(3, ge=1)
    """Seeds per finalist."""
    training_tokens: TokensOrMultiple = "4x"
    """How long a finalist trains: a count, or a multiple of `base.training_tokens`."""


class SearchSpec(Spec):
    """Sampler, number of trials, rungs."""

    sampler: str = "tpe"
    """`tpe`, `random`, `grid`, `fixed`, or the class path of an Optuna sampler."""
    fixed: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_values)] = ()
    """The trials of `sampler: fixed`, in order: complete settings as mappings of dotted paths."""
    trials: int | None = Field(None, ge=1)
    """Number of trials. When left out: all points of a grid or a fixed list, one for an empty space, else 32."""
    seed: int | None = Field(None, ge=0)
    """Seed of the sampler; `base.seed` when left out."""
    storage: str | None = None
    """Database of the study, as a URL of Optuna's: `postgresql://user:${env:PASSWORD}@host/optuna`. Left out: `study.db` in the run directory."""
    stratify: str | None = None
    """A choice parameter (usually `sae.architecture`): each of its values gets its own sampler and an equal share of the trials."""
    pruner: Literal["rung", "none"] = "rung"
    """`rung`: trials that will hardly end among what the objective keeps are pruned. `none`: every trial runs to its end."""
    rungs: Annotated[tuple[Steps, ...], BeforeValidator(_values)] = (
        Duration(0.05, "fraction"),
        Duration(0.1, "fraction"),
        Duration(0.2, "fraction"),
        Duration(0.4, "fraction"),
        Duration(0.6, "fraction"),
    )
    """Where trials are measured and judged: steps, tokens (`5Mtok`) or shares (`5%`), ascending; those within warm-up are left out."""
    min_rung_steps: int = Field(50, ge=1)
    """No trial is judged before so many of its steps: until then a curve tells the learning rate rather than the SAE."""
    min_probability: float | None = Field(None, ge=0, lt=1)
    """A trial that is less probable than this to end among what the objective keeps is pruned. 0.01 if left out; 0.1 for a Pareto front."""
    min_per_architecture: int = Field(0, ge=0)
    """Trials of each architecture that are never pruned, so that the leaderboard shows where each of them ends."""
    baselines: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_values)] = ()
    """Settings to try first, as mappings of dotted paths; parameters left out are sampled."""
    tokens_budget: TokenCount | None = Field(None, ge=1)
    """Stop starting trials once all of them together have trained on this many tokens."""
    time_budget: Seconds | None = Field(None, gt=0)
    """Stop after this much time of training, over all starts together: seconds, or `30min`, `2h`, `1d`. Trials in training stay as they are."""
    target: float | None = None
    """Stop once a finished, feasible trial is this good in the objective's one metric."""
    patience: int | None = Field(None, ge=1)
    """Stop once this many trials in a row have ended without a better best (a new point, on a Pareto front)."""
    replicates: int = Field(1, ge=1)
    """Seeds per trial: each is one SAE in a slot of its own, all on the same data; a trial's value is their mean."""
    confirm: ConfirmSpec | None = None
    """Train the best trials again, together and longer, and let that decide."""
    warm_start: str | None = None
    """An earlier run's directory: the sampler learns from its finished trials that lie in this space, judged by this objective."""
    retry_failed: int = Field(0, ge=0)
    """How often the settings of a failed trial are tried again, each time as one more trial from its beginning, beside `trials`."""
    max_failed: int | None = Field(None, ge=0)
    """Exit with code 1 where more trials than this fail; no limit when left out."""
