"""What every architecture's configuration shares, and the registry of architectures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from saesweep.errors import UserError
from saesweep.specs.model import Spec
from saesweep.specs.units import DType

NormalizeActivations = Literal[
    "none", "expected_average_only_in", "layer_norm", "constant_norm_rescale", "covariance_whitening"
]

WIDEST = 2**40
"""Far beyond any device, and far below where sizes computed from it no longer fit an integer of 64 bits."""


class SAESpec(Spec):
    """Fields common to all architectures, in SAELens' names and with SAELens' defaults."""

    saved_as: ClassVar[str]
    """Architecture name of the exported folder (batchtopk-type SAEs are exported as jumprelu)."""
    sparsity_field: ClassVar[str | None] = None
    """The field that sets this architecture's sparsity, shown on the leaderboard."""
    vectors_per_latent: ClassVar[int] = 1
    """Trained numbers of a latent beside its encoder and decoder vectors: the encoder's bias, a threshold."""
    trained_in_saelens_as: ClassVar[str | None] = None
    """SAELens' architecture whose training form it has, where SAELens calls that otherwise."""
    read_together: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Field that `problems` names -> other fields of the same mistake: what follows from a wrong value is not reported too."""
    is_transcoder: ClassVar[bool] = False
    """Whether it reconstructs the activations of `hook_name_out` from those of `hook_name`."""
    is_crosscoder: ClassVar[bool] = False
    """Whether it reads several hooks together."""

    architecture: str
    """Name of the architecture."""
    d_in: int | None = Field(None, ge=1, le=WIDEST)
    """Width of the activations; inferred from the model and hook when left out."""
    d_sae: int | None = Field(None, ge=1, le=WIDEST)
    """Number of latents. Give this or `expansion_factor`."""
    expansion_factor: int | None = Field(None, ge=1, le=WIDEST)
    """`d_sae` as a multiple of `d_in`. Give this or `d_sae`."""
    apply_b_dec_to_input: bool = True
    """Subtract the decoder bias from the input before encoding."""
    normalize_activations: NormalizeActivations = "none"
    """How activations are scaled for training; folded into the weights at export."""
    reshape_activations: Literal["none", "hook_z"] = "none"
    """`hook_z`: flatten [heads, d_head] to one vector per token."""
    decoder_init_norm: float | None = Field(0.1, gt=0)
    """L2 norm of each decoder row at initialisation; null: as the Kaiming-uniform draw has it. Left out beside `aligned`: 1."""
    dtype: DType = "float32"
    """Type of the exported weights. Training always keeps fp32 master weights (float64 if that is asked for)."""
    device: str = Field("cpu", pattern=r"^(cpu|cuda|mps|xpu|xla|hpu|npu)(:[0-9]+)?$")
    """Device named in the exported `cfg.json`; SAELens loads there by default. Training uses the run's `device`."""

    def resolve_widths(self, d_in: int) -> SAESpec:
        """Return a copy with `d_in` and `d_sae` filled in.

        Raises:
            UserError: The file's `d_in` differs from the model's, or neither width nor factor is given.
        """
        self.check_width("d_in", self.d_in, d_in, "this hook")
        if self.d_sae is None and self.expansion_factor is None:
            raise UserError(
                "base.sae.d_sae: missing; give the number of latents, or `expansion_factor` as a multiple of d_in"
            )
        d_sae = self.d_sae if self.d_sae is not None else d_in * int(self.expansion_factor or 0)
        return self.model_copy(update={"d_in": d_in, "d_sae": d_sae, "expansion_factor": None})

    @staticmethod
    def check_width(field: str, stated: int | None, found: int, hook: str) -> None:
        """Refuse a stated width that is not the model's.

        Raises:
            UserError: They differ.
        """
        if stated is not None and stated != found:
            raise UserError(
                f"base.sae.{field}: {stated}, but the activations at {hook} are {found} wide; leave it out or correct it"
            )

    def n_parameters(self) -> int:
        """Return the number of trained weights, widths known: what memory is planned by, before anything is built.

        An architecture with other weights than two matrices and biases overrides it.
        """
        assert self.d_in is not None
        assert self.d_sae is not None
        return 2 * self.d_in * self.d_sae + self.vectors_per_latent * self.d_sae + self.d_in

    def floats_per_token(self) -> int:
        """Return how many numbers a training step holds for each token of the batch, widths known: memory is planned by it.

        Autograd keeps about six of each latent alive, the sparse kernels up to eight.
        """
        assert self.d_sae is not None
        return 8 * self.d_sae

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = []
        if self.d_sae is not None and self.expansion_factor is not None:
            found.append(("expansion_factor", "d_sae is given too; give one of the two"))
        return found


class AlignableSpec(SAESpec):
    """What architectures share whose latents have one encoder and one decoder vector, in the same space."""

    aligned: bool = False
    """Aligned training (arXiv 2605.18629): decoder vectors have norm 1, and the inner product with their encoder vectors stays 1."""

    @model_validator(mode="before")
    @classmethod
    def _norm_of_aligned_vectors(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("aligned") is True and "decoder_init_norm" not in data:
            return {**data, "decoder_init_norm": 1.0}
        return data

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.aligned and self.decoder_init_norm != 1:
            found.append(("decoder_init_norm", "aligned keeps decoder vectors at norm 1; write 1, or leave it out"))
        return found


_REGISTRY: dict[str, type[SAESpec]] = {}


def register_spec(name: str) -> Any:
    """Class decorator: make `sae.architecture: name` mean this configuration."""

    def add(cls: type[SAESpec]) -> type[SAESpec]:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"architecture {name!r} is registered already, by {_REGISTRY[name].__module__}")
        _REGISTRY[name] = cls
        return cls

    return add


def derive_spec(name: str, kind: type[SAESpec], spec: type[SAESpec], doc: str, **settings: Any) -> type[SAESpec]:
    """Register the configuration of an architecture that has the latents and losses of an SAE.

    Args:
        name: Of the architecture.
        kind: What it is, such as `TranscoderSpec`; its fields win over the SAE's.
        spec: The SAE's configuration.
        doc: Docstring of the class.
        settings: Class variables.
    """
    metaclass: Any = type(spec)
    cls: Any = metaclass(
        "".join(part.capitalize() for part in name.split("_")) + "Spec",
        (kind, spec),
        {
            "__module__": kind.__module__,
            "__annotations__": {"architecture": Literal[name]},
            # A class that is written in no file has no docstrings to read.
            "model_config": ConfigDict(use_attribute_docstrings=False),
            "architecture": Field(name, description="Name of the architecture."),
        },
    )
    cls.__doc__ = doc
    for setting, value in settings.items():
        setattr(cls, setting, value)
    found: type[SAESpec] = register_spec(name)(cls)
    return found


def spec_class(name: str) -> type[SAESpec]:
    """Return the configuration class of an architecture; raises KeyError where there is none."""
    return _REGISTRY[name]


def listed(names: Iterable[str]) -> str:
    """Return architectures for a message, without the transcoders of those that are named."""
    given = list(names)
    return ", ".join(name for name in given if getattr(_REGISTRY.get(name), "trained_as", "") not in given)


def all_listed() -> str:
    """Return every architecture for a message, transcoders as those of their SAEs."""
    with_transcoder = [name for name in _REGISTRY if f"{name}_transcoder" in _REGISTRY]
    others = [name for name, spec in _REGISTRY.items() if not spec.is_transcoder and name not in with_transcoder]
    return ", ".join((f"{', '.join(with_transcoder)} and their transcoders", *others))


def architectures() -> tuple[str, ...]:
    """Return the names of all registered architectures, in the order of registration."""
    return tuple(_REGISTRY)
