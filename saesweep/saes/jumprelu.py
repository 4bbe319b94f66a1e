"""The JumpReLU SAE (arXiv 2407.14435): a learnt threshold per latent, trained through a straight-through estimator."""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), D = d_in, F = d_sae

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.saes.architecture import Architecture, ForwardState, Knobs, Params, register_architecture
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, register_form
from saesweep.specs.architectures import JumpReLUSpec


def _window(hidden_BF: Tensor, threshold_F: Tensor, bandwidth: float) -> Tensor:
    """Return 1 where `|h - threshold| < bandwidth / 2`: the region in which the estimator sees the jump."""
    scaled_BF = (hidden_BF - threshold_F) / bandwidth
    return ((scaled_BF > -0.5) & (scaled_BF < 0.5)).to(hidden_BF)


class Step(torch.autograd.Function):
    """`1[h > threshold]`, with gradient `-sum_B (1/eps) window g` for the threshold.

    With `to_input` the pre-activations get the same per item with the opposite sign; otherwise they get none.
    """

    @staticmethod
    def forward(ctx: Any, hidden_BF: Tensor, threshold_F: Tensor, bandwidth: float, to_input: bool) -> Tensor:
        """Return zeros and ones, [B, F]."""
        ctx.save_for_backward(hidden_BF, threshold_F)
        ctx.bandwidth, ctx.to_input = bandwidth, to_input
        return (hidden_BF > threshold_F).to(hidden_BF)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Return the estimator's gradients."""
        hidden_BF, threshold_F = ctx.saved_tensors
        estimate_BF = _window(hidden_BF, threshold_F, ctx.bandwidth) * grad_outputs[0] / ctx.bandwidth
        return (estimate_BF if ctx.to_input else None), -estimate_BF.sum(dim=0), None, None


class JumpReLU(torch.autograd.Function):
    """`h * 1[h > threshold]`, with gradient `-sum_B (threshold/eps) window g` for the threshold.

    The pre-activations get the exact gradient of the active ones, and with `to_input` the estimator's besides.
    """

    @staticmethod
    def forward(ctx: Any, hidden_BF: Tensor, threshold_F: Tensor, bandwidth: float, to_input: bool) -> Tensor:
        """Return the latents, [B, F]."""
        ctx.save_for_backward(hidden_BF, threshold_F)
        ctx.bandwidth, ctx.to_input = bandwidth, to_input
        return hidden_BF * (hidden_BF > threshold_F)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the estimator's gradients."""
        hidden_BF, threshold_F = ctx.saved_tensors
        grad_BF = grad_outputs[0]
        estimate_BF = threshold_F / ctx.bandwidth * _window(hidden_BF, threshold_F, ctx.bandwidth) * grad_BF
        hidden_grad_BF = grad_BF * (hidden_BF > threshold_F)
        if ctx.to_input:
            hidden_grad_BF = hidden_grad_BF + estimate_BF
        return hidden_grad_BF, -estimate_BF.sum(dim=0), None, None


@register_architecture("jumprelu")
class JumpReLUArchitecture(Architecture[JumpReLUSpec]):
    """`f = h * 1[h > threshold]`, with the sparsity loss of `jumprelu_sparsity_loss_mode`.

    `step`: `l0_coefficient * E L0`. `tanh`: `l0_coefficient * E sum tanh(c f |d|)`. `quadratic`:
    `l0_coefficient * E (2/T)(L0 - T)^2`, of each token's own L0. And, where asked for,
    `pre_act_loss_coefficient * E sum_dead relu(threshold - h) |d|`, and `l0_coefficient * sum p^2 / scale` of each latent's share p of
    the batch's tokens, which keeps latents from firing on nearly all of them (the quadratic-frequency penalty of Google DeepMind's
    interpretability team, progress update 2, March 2025; with the quadratic loss as in Gemma Scope 2).
    """

    @property
    def reads_dead(self) -> bool:
        """The loss on dead pre-activations does."""
        return self.spec.pre_act_loss_coefficient is not None

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec`, `b_enc` = 0 and `threshold`, which is never less precise than float32."""
        params = self.init_dictionary(generator, dtype=dtype, device=device)
        # Adam moves the threshold by about lr per step, which bf16 rounds away.
        threshold_dtype = torch.promote_types(dtype, torch.float32)
        return params | {
            "b_enc": torch.zeros(self.d_sae, dtype=dtype, device=device),
            "threshold": torch.full(
                (self.d_sae,), self.spec.jumprelu_init_threshold, dtype=threshold_dtype, device=device
            ),
        }

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return (f, h)."""
        hidden_BF = x_BD @ params["W_enc"] + params["b_enc"]
        return self._through(JumpReLU, hidden_BF, params["threshold"]), hidden_BF

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return `l0_loss` and, with a `pre_act_loss_coefficient`, `pre_act_loss`."""
        spec, hidden_BF, threshold_F = self.spec, state.hidden_pre_BF, state.params["threshold"]
        norm_F = self.decoder_norms(state.params["W_dec"])
        if spec.jumprelu_sparsity_loss_mode == "tanh":
            sparsity_B = torch.tanh(spec.jumprelu_tanh_scale * state.feature_acts_BF * norm_F).sum(dim=-1)
        else:
            sparsity_B = self._through(Step, hidden_BF, threshold_F).sum(dim=-1)
            if spec.jumprelu_sparsity_loss_mode == "quadratic":
                if spec.target_l0 is None:
                    raise ValueError("jumprelu_sparsity_loss_mode quadratic needs target_l0")
                sparsity_B = 2 / spec.target_l0 * (sparsity_B - spec.target_l0) ** 2
        losses = {"l0_loss": (state.knobs.l0_coefficient * sparsity_B).mean()}
        if spec.jumprelu_frequency_scale is not None:
            share_F = self._through(Step, hidden_BF, threshold_F).mean(dim=0)
            losses["frequency_loss"] = state.knobs.l0_coefficient * share_F.pow(2).sum() / spec.jumprelu_frequency_scale
        if spec.pre_act_loss_coefficient is not None:
            losses["pre_act_loss"] = hidden_BF.new_zeros(())
            if state.dead_F is not None and bool(state.dead_F.any()):
                below_BF = (threshold_F.to(hidden_BF.dtype) - hidden_BF).relu() * state.dead_F * norm_F
                losses["pre_act_loss"] = spec.pre_act_loss_coefficient * below_BF.sum(dim=-1).mean()
        return losses

    @torch.no_grad()
    def constrain_(self, params: Params) -> None:
        """Keep thresholds non-negative: below zero the gate would let negative pre-activations through.

        A projection, not a clamp in the graph, which would stop the gradient of every latent that once reached zero.
        """
        params["threshold"].clamp_(min=0)

    def _through(self, function: type[Step] | type[JumpReLU], hidden_BF: Tensor, threshold_F: Tensor) -> Tensor:
        spec = self.spec
        out: Tensor = function.apply(  # type: ignore[no-untyped-call]
            hidden_BF, threshold_F.to(hidden_BF.dtype), spec.jumprelu_bandwidth, spec.jumprelu_ste_to_input
        )
        return out


class JumpReLUForm(ExportedForm):
    """`f = relu(h) * 1[h > threshold]`: thresholds are never negative."""

    vectors = ("b_enc", "threshold")

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]. SAELens loads the threshold in the SAE's own dtype and compares in it."""
        hidden_NF = self.pre_acts(tensors, x_ND)
        return hidden_NF.relu() * (hidden_NF > tensors["threshold"].to(hidden_NF.dtype))


register_form("jumprelu", JumpReLUForm())
