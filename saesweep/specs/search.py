"""How the space is searched."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from saesweep.specs.model import Spec
from saesweep.specs.units import Duration, Steps, TokenCount


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class SearchSpec(Spec):
    """Sampler, number of trials, rungs."""

    sampler: str = "tpe"
    """`tpe`, `random`, `grid`, or the class path of an Optuna sampler."""
    trials: int | None = Field(None, ge=1)
    """Number of trials. When left out: all points of a grid, one for an empty space, else 32."""
    seed: int | None = Field(None, ge=0)
    """Seed of the sampler; `base.seed` when left out."""
    stratify: str | None = None
    """A choice parameter (usually `sae.architecture`): each of its values gets its own sampler and an equal share of the trials."""
    pruner: Literal["rung", "none"] = "rung"
    """`rung`: at each rung, the best 1/eta of comparable trials go on. `none`: every trial runs to its end."""
    rungs: Annotated[tuple[Steps, ...], BeforeValidator(_values)] = (
        Duration(0.05, "fraction"),
        Duration(0.2, "fraction"),
    )
    """Where trials are judged: steps, tokens (`5Mtok`) or shares of the run (`5%`), ascending."""
    eta: int = Field(3, ge=2)
    """At a rung, one trial in `eta` goes on."""
    min_per_architecture: int = Field(1, ge=0)
    """Trials of each architecture that rungs never prune."""
    baselines: Annotated[tuple[dict[str, Any], ...], BeforeValidator(_values)] = ()
    """Settings to try first, as mappings of dotted paths; parameters left out are sampled."""
    tokens_budget: TokenCount | None = Field(None, ge=1)
    """Stop starting trials once all of them together have trained on this many tokens."""
    replicates: int = Field(1, ge=1)
    """Seeds per trial. Only 1 in this version."""
    confirm: dict[str, Any] | None = None
    """Train finalists again, together and longer. Not implemented in this version."""
    max_failed: int | None = Field(None, ge=0)
    """Exit with code 1 where more trials than this fail; no limit when left out."""
