"""The features behind `dataset_path: builtin:synthetic`, in the names of SAELens' synthetic configurations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from saesweep.specs.model import Spec

SYNTHETIC = "builtin:synthetic"
"""The `dataset_path` of activations that are drawn from known features."""
DEFAULT_D_IN = 64
"""Width of the activations where `sae.d_in` is left out."""
FEATURES_PER_DIMENSION = 4
"""True features per dimension where `num_features` is left out: superposition."""


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class FiringProbabilitySpec(Spec):
    """How often features fire: feature i with a probability proportional to `1 / (i + 1) ** exponent`."""

    mean_active: float = Field(8.0, gt=0)
    """Features active per token, on average, before a hierarchy takes some away."""
    exponent: float = Field(1.0, ge=0)
    """Zipf exponent; 0: all features fire equally often."""
    max_prob: float = Field(0.5, gt=0, le=1)
    """No feature fires more often; what this takes away goes to the others."""


class MagnitudeSpec(Spec):
    """A value per feature, from the most to the least frequent one."""

    generator_name: Literal["linear", "exponential"]
    """How values go from `start` to `end`."""
    start: float = Field(gt=0)
    """Value of the most frequent feature."""
    end: float = Field(gt=0)
    """Value of the least frequent feature."""


def _kind(value: Any) -> str:
    return "mapping" if isinstance(value, (dict, MagnitudeSpec)) else "number"


# Distinguished by what is written, so that a mistake is explained for the one that was meant.
_Mapping = Annotated[MagnitudeSpec, Tag("mapping")]
_Mean = Annotated[Annotated[float, Field(gt=0), Tag("number")] | _Mapping, Discriminator(_kind)]
_Deviation = Annotated[Annotated[float, Field(ge=0), Tag("number")] | _Mapping, Discriminator(_kind)]


class CorrelationSpec(Spec):
    """Features that fire together or avoid each other: a Gaussian copula with low-rank random factors."""

    rank: int = Field(32, ge=1)
    """Shared factors behind the correlations."""
    correlation_scale: float = Field(0.1, gt=0)
    """Standard deviation of a feature's loading on each factor. Stronger where rank x scale^2 comes near 1."""


class HierarchySpec(Spec):
    """Trees of features, breadth first from the most frequent ones: a child fires only where its parent does."""

    total_root_nodes: int = Field(100, ge=1)
    """Trees; features left over fire freely."""
    branching_factor: Annotated[int, Field(ge=2)] | Annotated[tuple[int, int], BeforeValidator(_pair)] = 100
    """Children per parent: a number, or [least, most] to draw from."""
    max_depth: int = Field(2, ge=1)
    """Levels below the roots."""
    mutually_exclusive_portion: float = Field(0.0, ge=0, le=1)
    """Share of the parents of which at most one child fires at a time."""
    compensate_probabilities: bool = False
    """Raise the children's probabilities, so that each feature fires about as often as without the hierarchy."""
    scale_children_by_parent: bool = False
    """Multiply a child's magnitude by its parent's over the parent's mean."""


class SyntheticSpec(Spec):
    """Sums of sparse true features with known directions. `sae.d_in` is the width, `seed` draws directions and rows."""

    num_features: int | None = Field(None, ge=1)
    """True features; 4 x the width when left out."""
    firing_probability: FiringProbabilitySpec = FiringProbabilitySpec()
    """How often each feature fires."""
    mean_firing_magnitudes: _Mean = 1.0
    """Mean strength of an active feature: a number, or {generator_name: linear, start: 2, end: 0.5}."""
    std_firing_magnitudes: _Deviation = 0.25
    """Its standard deviation, likewise; strengths below 0 are 0."""
    correlation: CorrelationSpec | None = None
    """Correlated firing; independent when left out."""
    hierarchy: HierarchySpec | None = None
    """Parents and children; none when left out."""

    def features_of(self, d_in: int) -> int:
        """Return the number of true features at a width."""
        return self.num_features if self.num_features is not None else FEATURES_PER_DIMENSION * d_in

    def problems(self, d_in: int) -> list[tuple[str, str]]:
        """Return mistakes between fields as (field, message)."""
        found: list[tuple[str, str]] = []
        n_features, firing = self.features_of(d_in), self.firing_probability
        if firing.mean_active > firing.max_prob * n_features:
            found.append(
                (
                    "firing_probability",
                    f"mean_active {firing.mean_active:g} is more than {n_features} features that fire with at most "
                    f"max_prob {firing.max_prob:g} can give; raise num_features or max_prob",
                )
            )
        if self.hierarchy is not None:
            if self.hierarchy.total_root_nodes > n_features:
                found.append(
                    (
                        "hierarchy",
                        f"total_root_nodes {self.hierarchy.total_root_nodes} is more than {n_features} features",
                    )
                )
            factor = self.hierarchy.branching_factor
            if isinstance(factor, tuple) and not 2 <= factor[0] <= factor[1]:
                found.append(
                    ("hierarchy", f"branching_factor {list(factor)} must be [least, most] with 2 <= least <= most")
                )
        return found
