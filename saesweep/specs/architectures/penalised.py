"""Architectures whose sparsity comes from a penalty: standard, gated, jumprelu."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from saesweep.specs.architectures.base import AlignableSpec, SAESpec, register_spec
from saesweep.specs.units import Duration, Steps


@register_spec("standard")
class StandardSpec(AlignableSpec):
    """ReLU SAE with an Lp penalty weighted by decoder norms."""

    saved_as: ClassVar[str] = "standard"
    sparsity_field: ClassVar[str | None] = "l1_coefficient"
    read_together: ClassVar[dict[str, tuple[str, ...]]] = {"p_end": ("lp_norm",)}

    architecture: Literal["standard"] = "standard"
    """Name of the architecture."""
    l1_coefficient: float = Field(1.0, ge=0)
    """Weight of the sparsity penalty."""
    lp_norm: float = Field(1.0, gt=0)
    """The p of the penalty's Lp norm."""
    l1_warm_up_steps: Steps = Duration(0)
    """The penalty rises linearly from 0 over this time: steps, tokens (`5Mtok`) or share of the run (`5%`)."""
    sparsity_function: Literal["Lp", "Lp^p"] = "Lp"
    """`Lp`: the penalty is the norm. `Lp^p`: its p-th power, the sum of the p-th powers of the activations."""
    p_end: float | None = Field(None, gt=0)
    """p-annealing: the exponent goes from `lp_norm` down to this; `l1_coefficient` is adapted so that the penalty keeps its size."""
    anneal_start: Steps = Duration(0.1, "fraction")
    """p-annealing begins here: steps, tokens (`5Mtok`) or share of the run (`10%`)."""
    anneal_end: Steps = Duration(1.0, "fraction")
    """p is `p_end` from here on. With `100%` the last step of p comes at the end, so that `p_end` itself is never trained with."""
    n_sparsity_updates: int = Field(10, ge=2)
    """Values of p, evenly spaced from `lp_norm` to `p_end`, at evenly spaced times; the first of them is `lp_norm`."""
    sparsity_queue_length: int = Field(10, ge=1)
    """Training steps before a change of p over which the penalties under both exponents are compared."""
    resample_steps: Steps = Duration(0)
    """Every so often, latents silent for more than half of this time get new weights, drawn from badly reconstructed activations; 0: never."""

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.p_end is None:
            found += [
                (name, "says how p is annealed, and p_end is left out; set p_end, such as 0.2, or leave this out")
                for name in ("anneal_start", "anneal_end", "n_sparsity_updates", "sparsity_queue_length")
                if getattr(self, name) != StandardSpec.model_fields[name].default
            ]
        elif not self.p_end < self.lp_norm < float("inf"):
            found.append(("p_end", f"{self.p_end:g} is not below lp_norm ({self.lp_norm:g}), where p starts"))
        return found


@register_spec("gated")
class GatedSpec(SAESpec):
    """Gated SAE (arXiv 2404.16014)."""

    saved_as: ClassVar[str] = "gated"
    sparsity_field: ClassVar[str | None] = "l1_coefficient"
    vectors_per_latent: ClassVar[int] = 3

    architecture: Literal["gated"] = "gated"
    """Name of the architecture."""
    l1_coefficient: float = Field(1.0, ge=0)
    """Weight of the penalty on the gate."""
    l1_warm_up_steps: Steps = Duration(0)
    """The penalty rises linearly from 0 over this time: steps, tokens (`5Mtok`) or share of the run (`5%`)."""
    detach_aux_decoder: bool = False
    """Stop the auxiliary loss's gradient at the decoder, as the paper does. SAELens lets it through."""


@register_spec("jumprelu")
class JumpReLUSpec(AlignableSpec):
    """JumpReLU SAE (arXiv 2407.14435; the tanh loss from Anthropic's January 2025 update)."""

    saved_as: ClassVar[str] = "jumprelu"
    sparsity_field: ClassVar[str | None] = "l0_coefficient"
    vectors_per_latent: ClassVar[int] = 2

    architecture: Literal["jumprelu"] = "jumprelu"
    """Name of the architecture."""
    jumprelu_init_threshold: float = Field(0.01, ge=0)
    """Threshold of every latent at initialisation."""
    jumprelu_bandwidth: float = Field(0.05, gt=0)
    """Width of the window in which the straight-through estimator sees the jump."""
    jumprelu_sparsity_loss_mode: Literal["step", "tanh", "quadratic"] = "step"
    """`step`: coefficient x L0. `tanh`: coefficient x sum tanh(scale f |d|). `quadratic`: coefficient x (2/T)(L0 - T)^2 per token."""
    l0_coefficient: float = Field(1.0, ge=0)
    """Weight of the sparsity loss."""
    l0_warm_up_steps: Steps = Duration(0)
    """The weight rises linearly from 0 over this time: steps, tokens (`5Mtok`) or share of the run (`5%`)."""
    pre_act_loss_coefficient: float | None = Field(None, ge=0)
    """Weight of the loss that pulls dead latents' pre-activations up to their thresholds; none when left out."""
    jumprelu_tanh_scale: float = Field(4.0, gt=0)
    """The scale inside the tanh loss."""
    jumprelu_ste_to_input: bool = False
    """Send the jump's gradient to the pre-activations too, not only to the thresholds."""
    target_l0: float | None = Field(None, gt=0)
    """The T of the quadratic loss."""
    jumprelu_frequency_scale: float | None = Field(None, gt=0)
    """Penalise latents that fire on more than about this share s of tokens: adds coefficient x sum p^2 / s, p a latent's share of a batch."""

    def problems(self) -> list[tuple[str, str]]:
        """Return cross-field mistakes as (field, message)."""
        found = super().problems()
        if self.jumprelu_sparsity_loss_mode == "quadratic" and self.target_l0 is None:
            found.append(("target_l0", "missing; jumprelu_sparsity_loss_mode: quadratic needs the L0 to aim at"))
        if self.jumprelu_sparsity_loss_mode != "quadratic" and self.target_l0 is not None:
            found.append(
                ("target_l0", "only jumprelu_sparsity_loss_mode: quadratic reads it; leave it out or change the mode")
            )
        return found
