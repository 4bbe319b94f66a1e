"""Crosscoders: architectures of SAEs that read several hooks together (Lindsey et al., transformer-circuits.pub/2024/crosscoders)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from saesweep.specs.architectures.base import SAESpec, derive_spec
from saesweep.specs.architectures.penalised import JumpReLUSpec, StandardSpec
from saesweep.specs.architectures.topk import BatchTopKSpec, TopKSpec


class CrosscoderSpec(SAESpec):
    """What all crosscoders share. `d_in` is the width of all hooks together."""

    is_crosscoder: ClassVar[bool] = True
    trained_as: ClassVar[str]
    """The architecture of SAE whose latents and losses it has."""

    n_layers: int | None = Field(None, ge=2)
    """Number of hooks that are read together; inferred from `hook_name` when left out."""
    apply_b_dec_to_input: bool = False
    """Always false: the encoder reads the activations of every hook as they are."""

    def resolve_widths(self, d_in: int, n_layers: int | None = None) -> SAESpec:
        """Return a copy with `d_in`, `n_layers` and `d_sae` filled in.

        Raises:
            UserError: The file's `d_in` differs from the model's, or neither number nor factor of latents is given.
        """
        found = super().resolve_widths(d_in)
        return found if n_layers is None else found.model_copy(update={"n_layers": n_layers})

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found: list[tuple[str, str]] = []
        if self.apply_b_dec_to_input:
            found.append(
                ("apply_b_dec_to_input", "true is not possible: a crosscoder's encoder reads activations as they are")
            )
        if self.normalize_activations not in ("none", "expected_average_only_in"):
            found.append(
                (
                    "normalize_activations",
                    f"{self.normalize_activations} would mix the layers that a crosscoder reads; use "
                    "expected_average_only_in, which scales each of them by itself",
                )
            )
        if self.reshape_activations != "none":
            found.append(("reshape_activations", "heads are joined by themselves for a crosscoder; leave it out"))
        if self.d_in is not None and self.n_layers is not None and self.d_in % self.n_layers:
            found.append(("d_in", f"{self.d_in} is the width of all hooks together, which {self.n_layers} must divide"))
        return [*found, *super().problems()]


_SAVED_AS: dict[type[SAESpec], str] = {
    StandardSpec: "standard_crosscoder",
    JumpReLUSpec: "jumprelu_crosscoder",
    TopKSpec: "topk_crosscoder",
    BatchTopKSpec: "jumprelu_crosscoder",
}
"""SAE -> form in which its crosscoder is exported."""


def _define(spec: type[SAESpec]) -> type[SAESpec]:
    """Register the crosscoder of an SAE's configuration."""
    base = str(spec.model_fields["architecture"].default)
    doc = f"Crosscoder with the latents and losses of {base}: reads the hooks of a list `hook_name` together."
    return derive_spec(f"{base}_crosscoder", CrosscoderSpec, spec, doc, saved_as=_SAVED_AS[spec], trained_as=base)


CROSSCODERS: dict[type[SAESpec], type[SAESpec]] = {spec: _define(spec) for spec in _SAVED_AS}
"""SAE's configuration -> that of its crosscoder."""
