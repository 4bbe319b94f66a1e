"""What the search optimises: one metric with constraints, a Pareto front of several, or one metric at the same L0.

The names of metrics that an objective, a constraint or the leaderboard can use are here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from saesweep.specs.model import Spec
from saesweep.specs.units import Duration, Steps

Direction = Literal["minimize", "maximize"]

LOG_METRICS = ("l0", "mse", "l1", "delta_ce", "kl_div")
"""Metrics that span decades: distances, areas and regressions take their logarithm, where all values are above 0."""


@dataclass(frozen=True)
class Metric:
    """One number measured on held-out activations through the exported form of an SAE."""

    name: str
    better: Direction
    unit: str
    needs_lm_head: bool
    description: str
    needs_true_features: bool = False
    """Only `dataset_path: builtin:synthetic` knows the features behind its activations."""
    needs_next_token: bool = False
    """Compares predictions with the token that follows; the last position of a context has none."""
    needs_replicates: bool = False
    """Compares the seeds of a trial; a single one has nothing to be compared with."""
    needs_probes: bool = False
    """Only `evaluation.probes` has the labelled texts that it is measured on."""


def _recovery(name: str, description: str) -> Metric:
    return Metric(name, "maximize", "share", False, description, needs_true_features=True)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "mse",
            "minimize",
            "squared activation units",
            False,
            "squared error summed over dimensions, mean over tokens",
        ),
        Metric(
            "explained_variance",
            "maximize",
            "share",
            False,
            "1 - sum|x - x^|^2 / sum|x - mean x|^2 over all held-out tokens",
        ),
        Metric(
            "explained_variance_no_sinks",
            "maximize",
            "share",
            False,
            "explained variance over the tokens that are no attention sinks; the same where there are none",
        ),
        Metric("l0", "minimize", "latents per token", False, "mean number of active latents"),
        Metric("l1", "minimize", "activation units", False, "mean sum of latent activations"),
        Metric("cosine_similarity", "maximize", "-1 to 1", False, "mean cosine between activations and reconstruction"),
        Metric(
            "l2_ratio", "maximize", "ratio", False, "mean norm of the reconstruction over the norm of the activation"
        ),
        Metric("relative_reconstruction_bias", "maximize", "ratio", False, "E|x^|^2 / E[x.x^]; 1 is unbiased"),
        Metric("dead_fraction", "minimize", "share", False, "latents that never fired in the named token window"),
        Metric(
            "decoder_cosine",
            "minimize",
            "0 to 1",
            False,
            "mean absolute cosine between the decoder directions of two latents",
        ),
        Metric(
            "seed_stability",
            "maximize",
            "share",
            False,
            "live latents that another seed has too: decoder directions, matched one to one, at a cosine above 0.7",
            needs_replicates=True,
        ),
        Metric(
            "seed_stability_both",
            "maximize",
            "share",
            False,
            "live latents whose decoder and encoder directions, both above 0.7, have the same match in another seed",
            needs_replicates=True,
        ),
        Metric(
            "probe_accuracy",
            "maximize",
            "share",
            False,
            "texts whose class a logistic regression on k latents finds, half of them of each class; mean over tasks",
            needs_probes=True,
        ),
        Metric(
            "probe_auc",
            "maximize",
            "share",
            False,
            "area under the ROC curve of the same probes; mean over tasks",
            needs_probes=True,
        ),
        Metric(
            "delta_ce",
            "minimize",
            "nats per token",
            True,
            "cross-entropy with the SAE spliced in, minus the model's own",
            needs_next_token=True,
        ),
        Metric(
            "ce_loss_score",
            "maximize",
            "share",
            True,
            "(CE_ablated - CE_sae) / (CE_ablated - CE_clean), zero ablation",
            needs_next_token=True,
        ),
        Metric(
            "ce_loss_with_sae",
            "minimize",
            "nats per token",
            True,
            "cross-entropy with the SAE spliced in",
            needs_next_token=True,
        ),
        Metric("kl_div", "minimize", "nats per token", True, "KL(clean || with SAE) of the next-token distribution"),
        Metric("kl_div_score", "maximize", "share", True, "(KL_ablated - KL_sae) / KL_ablated, zero ablation"),
        _recovery("mmcs", "mean over true features of the largest cosine with a decoder row"),
        _recovery("mcc", "mean absolute cosine of decoder rows and true features, matched one to one"),
        _recovery("precision", "how often its true feature is active where a latent is; mean over latents"),
        _recovery("recall", "how often a latent is active where its true feature is; mean over latents"),
        _recovery("f1", "harmonic mean of a latent's precision and recall; mean over latents"),
        _recovery("uniqueness", "true features that are some latent's own, over the number of latents"),
    )
}


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _targets(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    # 16.0 and 16 are one target: they share a stratum, a group and a name.
    return tuple(int(v) if isinstance(v, float) and v.is_integer() else v for v in value)


class Bound(Spec):
    """Limits of a metric, both included."""

    min: float | None = None
    """Smallest feasible value."""
    max: float | None = None
    """Largest feasible value."""


class Goal(Spec):
    """One metric and its direction."""

    minimize: str | None = None
    """Name of the metric to make small."""
    maximize: str | None = None
    """Name of the metric to make large."""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.minimize or self.maximize or ""

    @property
    def direction(self) -> Direction:
        """The direction asked for."""
        return "minimize" if self.minimize is not None else "maximize"

    @property
    def sign(self) -> int:
        """The factor between a value and a cost, of which less is better: 1 or -1."""
        return 1 if self.direction == "minimize" else -1


class MatchedSpec(Spec):
    """Every architecture is brought to the same values of L0, and compared there."""

    l0: Annotated[tuple[int | float, ...], BeforeValidator(_targets)]
    """The L0 to compare at, ascending; from three on, values are interpolated. TopK-type SAEs get them as `k`, others are steered there."""
    freeze: Steps = Duration(0.3, "fraction")
    """The last part of the run in which steered coefficients stay as they are; at least 30%."""
    max_change: float = Field(100.0, gt=1)
    """A steered coefficient stays within this factor of the value that the trial starts from."""
    steer: bool = True
    """`false`: coefficients stay as the trial states them, and only TopK-type architectures meet the targets. What `search.confirm` trains with."""

    @property
    def middle(self) -> float:
        """The target whose winner is exported as `best/`: the middle one, of two the lower."""
        return self.l0[(len(self.l0) - 1) // 2]

    @field_validator("l0")
    @classmethod
    def _is_a_list_of_targets(cls, value: tuple[int | float, ...]) -> tuple[int | float, ...]:
        if not value:
            raise ValueError("is empty; name the L0 to compare at, such as [16, 32, 64]")
        if any(v <= 0 for v in value):
            raise ValueError(f"{list(value)} must be above 0")
        if list(value) != sorted(set(value)):
            raise ValueError(f"{list(value)} must be ascending, each value once")
        return value


class ObjectiveSpec(Spec):
    """`{minimize: m}` or `{maximize: m}` with `subject_to` or `matched`, or `{pareto: [...]}`."""

    minimize: str | None = None
    """Name of the metric to make small."""
    maximize: str | None = None
    """Name of the metric to make large."""
    pareto: Annotated[tuple[Goal, ...], BeforeValidator(_values)] = ()
    """Two or more goals; the result is the front of trials that no other trial beats in all of them."""
    subject_to: dict[str, Bound] = {}
    """Limits that a finished trial must keep to be feasible. Rungs prune by the forecast of where a trial ends, limits included."""
    matched: MatchedSpec | None = None
    """Compare architectures at the same L0, such as {l0: [16, 32, 64]}: each trial aims at one of them."""

    @cached_property  # read for every trial of a ranking
    def goals(self) -> tuple[Goal, ...]:
        """The goals, one or several."""
        return self.pareto or (Goal(minimize=self.minimize, maximize=self.maximize),)

    @property
    def is_pareto(self) -> bool:
        """Several goals."""
        return bool(self.pareto)

    @property
    def needs_replicates(self) -> bool:
        """Compares the seeds of a trial."""
        return any(METRICS[name].needs_replicates for name in self.metric_names() if name in METRICS)

    def metric_names(self) -> tuple[str, ...]:
        """Return every metric the objective reads: goals, then constraints."""
        return (*dict.fromkeys([*(g.metric for g in self.goals), *self.subject_to]),)
