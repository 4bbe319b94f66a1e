"""Transcoders: every architecture of an SAE, reading one hook and reconstructing another, with and without a skip connection."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from saesweep.specs.architectures.base import WIDEST, SAESpec, derive_spec
from saesweep.specs.architectures.penalised import GatedSpec, JumpReLUSpec, StandardSpec
from saesweep.specs.architectures.topk import BatchTopKSpec, MatryoshkaBatchTopKSpec, TopKSpec
from saesweep.specs.units import Duration


class TranscoderSpec(SAESpec):
    """What all transcoders share."""

    is_transcoder: ClassVar[bool] = True
    has_skip: ClassVar[bool] = False
    """Whether a linear map of the input is added to the reconstruction."""
    trained_as: ClassVar[str]
    """The architecture of SAE whose latents and losses it has."""

    d_out: int | None = Field(None, ge=1, le=WIDEST)
    """Width of the activations to reconstruct; inferred from the model and `hook_name_out` when left out."""
    apply_b_dec_to_input: bool = False
    """Always false: the decoder bias belongs to the output."""

    def resolve_widths(self, d_in: int, d_out: int | None = None) -> SAESpec:
        """Return a copy with `d_in`, `d_out` and `d_sae` filled in.

        Raises:
            UserError: A stated width differs from the model's, or neither number nor factor of latents is given.
        """
        found = super().resolve_widths(d_in)
        if d_out is None:
            return found
        self.check_width("d_out", self.d_out, d_out, "hook_name_out")
        return found.model_copy(update={"d_out": d_out})

    def n_parameters(self) -> int:
        """Return the number of trained weights; as long as `d_out` is not known it counts as `d_in`."""
        assert self.d_in is not None
        assert self.d_sae is not None
        d_out = self.d_in if self.d_out is None else self.d_out
        skip = self.d_in * d_out if self.has_skip else 0
        return (self.d_in + d_out + self.vectors_per_latent) * self.d_sae + d_out + skip

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.apply_b_dec_to_input:
            found.append(
                ("apply_b_dec_to_input", "true is not possible: a transcoder's decoder bias belongs to its output")
            )
        if self.normalize_activations in ("layer_norm", "constant_norm_rescale"):
            found.append(
                (
                    "normalize_activations",
                    f"{self.normalize_activations} normalises each token of the input, which says nothing about the output "
                    "of a transcoder; use expected_average_only_in",
                )
            )
        if getattr(self, "resample_steps", Duration(0)) != Duration(0):
            found.append(
                ("resample_steps", "a latent of a transcoder has two directions in two spaces; resampling draws one")
            )
        if getattr(self, "aligned", False):
            found.append(
                (
                    "aligned",
                    "true is not possible: a transcoder's encoder and decoder vectors lie in two spaces, without an inner product",
                )
            )
        return found


_SAVED_AS: dict[type[SAESpec], str] = {
    StandardSpec: "transcoder",
    GatedSpec: "jumprelu_transcoder",
    JumpReLUSpec: "jumprelu_transcoder",
    TopKSpec: "jumprelu_transcoder",
    BatchTopKSpec: "jumprelu_transcoder",
    MatryoshkaBatchTopKSpec: "jumprelu_transcoder",
}
"""SAE -> SAELens' architecture that holds its transcoder. A gated one is a jumprelu exactly, because both of its paths share the
encoder; one of the topk family is with a calibrated threshold."""
_SKIP = {"transcoder": "skip_transcoder", "jumprelu_transcoder": "jumprelu_skip_transcoder"}


def _define(spec: type[SAESpec], *, skip: bool) -> type[SAESpec]:
    """Register the transcoder of an SAE's configuration."""
    base = str(spec.model_fields["architecture"].default)
    name = f"{base}_skip_transcoder" if skip else f"{base}_transcoder"
    latents = f"Transcoder with the latents and losses of {base}: reads `hook_name` and reconstructs `hook_name_out`"
    return derive_spec(
        name,
        TranscoderSpec,
        spec,
        latents + (", plus a linear map of its input (skip connection)." if skip else "."),
        saved_as=_SKIP[_SAVED_AS[spec]] if skip else _SAVED_AS[spec],
        has_skip=skip,
        trained_as=base,
    )


TRANSCODERS: dict[type[SAESpec], tuple[type[SAESpec], type[SAESpec]]] = {
    spec: (_define(spec, skip=False), _define(spec, skip=True)) for spec in _SAVED_AS
}
"""SAE's configuration -> those of its transcoders, without and with a skip connection."""
