"""Matching pursuit: no encoder, latents are found one after another by what is left of the activation."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from saesweep.specs.architectures.base import SAESpec, register_spec


@register_spec("matching_pursuit")
class MatchingPursuitSpec(SAESpec):
    """Matching pursuit SAE (arXiv 2506.03093): the decoder row nearest to the residual is subtracted, again and again."""

    saved_as: ClassVar[str] = "matching_pursuit"

    architecture: Literal["matching_pursuit"] = "matching_pursuit"
    """Name of the architecture."""
    decoder_init_norm: float | None = Field(1.0, gt=0)
    """Always 1: a step subtracts the projection on a row of norm 1."""
    residual_threshold: float = Field(1e-2, ge=0)
    """A token is finished once its residual is shorter than this, in the units of training; 0: never for that reason."""
    max_iterations: int | None = Field(None, ge=1)
    """Maximum number of steps per token, and so most active latents; `d_in` when left out. Time and memory of training grow with it."""
    stop_on_duplicate_support: bool = True
    """A token is finished once a step brings no new latent."""

    @property
    def iterations(self) -> int:
        """The maximum number of steps, widths known."""
        assert self.d_in is not None
        return self.d_in if self.max_iterations is None else self.max_iterations

    def n_parameters(self) -> int:
        """Return the weights of the one matrix, which is encoder and decoder, and of `b_dec`."""
        assert self.d_in is not None
        assert self.d_sae is not None
        return self.d_in * self.d_sae + self.d_in

    def floats_per_token(self) -> int:
        """Return the latents, and the residual, the decoder row and their product that autograd keeps of each step."""
        assert self.d_in is not None
        assert self.d_sae is not None
        return 4 * self.d_sae + 3 * self.d_in * self.iterations

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.decoder_init_norm != 1:
            found.append(("decoder_init_norm", "matching pursuit needs decoder rows of norm 1; leave it out"))
        if self.normalize_activations == "covariance_whitening":
            found.append(
                (
                    "normalize_activations",
                    "covariance_whitening cannot be folded into matching pursuit, whose encoder is its decoder; "
                    "use expected_average_only_in",
                )
            )
        return found
