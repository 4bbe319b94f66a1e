"""The whole experiment file, and its blocks: how many SAEs train at once, where workers are, how trials are measured, how the space is searched."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from saesweep.specs.base_run import BaseRun
from saesweep.specs.datasets import DatasetSpec
from saesweep.specs.model import Spec
from saesweep.specs.objective import ObjectiveSpec
from saesweep.specs.probes import ProbesSpec
from saesweep.specs.space import ParameterSpec
from saesweep.specs.units import Duration, Seconds, Steps, TokenCount, TokensOrMultiple, multiple_of


class CohortSpec(Spec):
    """The SAEs that train together: on each device a cohort of its own, from the same stream."""

    size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Slots of each worker. `auto` plans memory, says what it chose and why, and keeps that number when the run resumes."""
    devices: Annotated[int, Field(ge=1)] | list[str] | str = "auto"
    """A worker trains on each: `auto` (every visible GPU, else `base.device`), `4` GPUs, `[cuda:0, cuda:1]` or `cpu x 2`; several take Ray."""
    kernels: Literal["auto", "sparse", "stacked", "reference"] = "auto"
    """`reference`: plain PyTorch autograd. `sparse`: the exact sparse kernels wherever they apply, one SAE after another. `stacked`: these too,
    and topk, batchtopk and matryoshka_batchtopk SAEs of one shape as one batch of operations. `auto`: on a GPU the faster of these two as measured,
    on a CPU `sparse`."""
    adam_moments: Literal["float32", "bfloat16"] = "float32"
    """How Adam's moments are kept between steps: `bfloat16`, rounded stochastically, takes 8 instead of 12 bytes per parameter, and is not exact."""
    block_tokens: TokenCount | None = Field(None, ge=1)
    """Tokens between two scheduling decisions; from the rungs when left out."""
    checkpoint_seconds: float | None = Field(None, ge=0)
    """Minimum number of seconds between two checkpoints; when left out, 10 or as many as keep their measured cost within 2% of the time."""
    memory_fraction: float = Field(0.8, gt=0, le=1)
    """Share of the free memory that `size: auto` plans with."""
    max_skipped_batches: int = Field(100, ge=0)
    """Batches with NaN or infinite activations are skipped and counted; more than this many end the run with an error."""

    @model_validator(mode="after")
    def _stacked_moments_are_exact(self) -> CohortSpec:
        if self.kernels == "stacked" and self.adam_moments != "float32":
            raise ValueError(
                f"kernels: stacked trains with Adam's moments in float32 alone, and adam_moments is {self.adam_moments}; leave out one of the two"
            )
        return self


class RaySpec(Spec):
    """A Ray cluster (`pip install saesweep[ray]`)."""

    address: str | None = None
    """Address of the cluster; `auto`: the one that this machine belongs to. Left out: `RAY_ADDRESS`, or a cluster that this run starts."""
    restart_seconds: float = Field(60.0, ge=0)
    """How long it may take to start a worker again whose process has ended, with the wait for a device; then its trials continue on others."""


class EngineSpec(Spec):
    """Where the worker of a run is: in the same process, unless another engine is named."""

    ray: RaySpec | None = None
    """Let a Ray actor train: it is started again where it is killed, and repeats what it had done since its last checkpoint."""


# Evidence in docs/evaluation.md: two SAEs of the same run change places on so few tokens in 0 to 3% of the pairs.
MIN_CE_TOKENS, MIN_RUNG_TOKENS = 2048, 1024
_CE_SHARE, _TEST_TIMES = 0.005, 4


def _values(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class EvaluationSpec(Spec):
    """Held-out data, split off by document before packing and fixed for the experiment."""

    dataset: DatasetSpec | None = None
    """Text that `select` and `test` are taken from, so that all of `base.dataset_path` trains. When left out: both are split off that one."""

    select_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that rungs and the ranking use."""
    test_tokens: TokenCount = Field(100_000, ge=1)
    """Tokens of the part that is read once, for the winner."""
    ce_tokens: TokenCount | None = Field(None, ge=1)
    """Tokens of each part on which cross-entropy metrics are measured. When left out: of `select` 0.5% of a trial's training tokens,
    at least 2,048, and of `test`, which is read for the winner alone, four times as many; or the whole part."""
    rung_share: float = Field(0.1, gt=0, le=1)
    """Share of the `select` part, and of its cross-entropy tokens, on which trials are measured at rungs; at least 1,024 tokens. Trials that
    finish are measured in full."""
    references: Annotated[tuple[str, ...], BeforeValidator(_values)] = ()
    """Published SAEs as rows of the leaderboard, measured on the `select` part: whatever `saesweep eval` takes."""
    probes: ProbesSpec | None = None
    """Labelled texts for k-sparse probing of finished trials and references (`pip install saesweep[probes]`); none when left out."""

    def ce_tokens_of(self, part: Literal["select", "test"], training_tokens: int) -> int:
        """Return the number of tokens for cross-entropy metrics.

        Args:
            part: Of which part.
            training_tokens: Tokens of a full trial.
        """
        tokens = self.ce_tokens
        if tokens is None:
            tokens = max(MIN_CE_TOKENS, round(_CE_SHARE * training_tokens)) * (_TEST_TIMES if part == "test" else 1)
        return min(tokens, self.select_tokens if part == "select" else self.test_tokens)

    def at_rung(self, tokens: int) -> int:
        """Return how many of some held-out tokens are measured at a rung."""
        return min(tokens, max(MIN_RUNG_TOKENS, round(self.rung_share * tokens)))

    def text_of(self, run: BaseRun) -> BaseRun:
        """Return the run with the dataset that the held-out parts are taken from."""
        if self.dataset is None:
            return run
        return run.of_dataset(self.dataset)

    def without_test(self) -> EvaluationSpec:
        """Return the same with an empty `test` part, for measuring on `select` where nothing is trained."""
        return self.model_copy(update={"test_tokens": 0})


class ConfirmSpec(Spec):
    """Finalists train again, all together from the start of the stream, and that decides."""

    top: int = Field(3, ge=1)
    """Finalists: the best of the ranking, or the points of a Pareto front nearest its knee."""
    replicates: int = Field(3, ge=1)
    """Seeds per finalist."""
    training_tokens: TokensOrMultiple = "4x"
    """How long a finalist trains: a count, or a multiple of `base.training_tokens`."""

    def tokens_of(self, training_tokens: int) -> int:
        """Return the training tokens of one finalist.

        Args:
            training_tokens: Those of a full trial of the search.
        """
        stated = self.training_tokens
        return round(multiple_of(stated) * training_tokens) if isinstance(stated, str) else stated


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
    min_rung_steps: int = Field(20, ge=1)
    """No trial is judged before so many of its steps: earlier, forecasts lose winners of short runs (`docs/search.md`)."""
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


def _list_of_ranges(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


Ranges = Annotated[tuple[ParameterSpec, ...], BeforeValidator(_list_of_ranges)]
"""One range, or a list of ranges under different conditions."""


class ExperimentSpec(Spec):
    """What one YAML file declares. `base` and `by_architecture` stay trees: a trial resolves them to a `BaseRun`."""

    name: str = Field(min_length=1, max_length=80)
    """Name of the experiment and of its run directory: letters, digits, `.`, `_` and `-`."""
    base: dict[str, Any]
    """The training run that every trial starts from, in SAELens' field names. `sae` fields that a trial's architecture lacks are left out."""
    by_architecture: dict[str, dict[str, Any]] = {}
    """Overrides of `base` that hold for one architecture only: dotted paths, and `preset: NAME`."""
    space: dict[str, Ranges] = {}
    """Dotted paths of `base`, each with its range. Empty: train once."""
    objective: ObjectiveSpec | None = None
    """What to optimise. When left out: the Pareto front of L0 and delta_ce (explained_variance where there is no language-model head)."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How trials are measured."""
    search: SearchSpec = SearchSpec()
    """How the space is searched."""
    cohort: CohortSpec = CohortSpec()
    """How many SAEs train at once."""
    engine: EngineSpec = EngineSpec()
    """Where they train: in this process, unless an engine is named."""

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(
                f"{value!r} names the run directory; use letters, digits, '.', '_' and '-' only, starting with a letter or digit"
            )
        return value
