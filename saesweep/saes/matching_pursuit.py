"""The matching pursuit SAE (arXiv 2506.03093): each step subtracts from the residual its projection on the nearest decoder row.

Encoder and decoder are one matrix, `W_dec`; there is no pre-activation and no encoder bias.
"""

# Shape suffix legend:  B = tokens in a batch, N = tokens (any leading dimensions), D = d_in, F = d_sae

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.saes.architecture import Architecture, ForwardState, Knobs, Params, register_architecture
from saesweep.saes.forms import Cfg, ExportedForm, Tensors, positive_int_problem, register_form
from saesweep.saes.normalize import Normalizer
from saesweep.specs.architectures import MatchingPursuitSpec


def pursue(
    x_BD: Tensor,
    W_dec_FD: Tensor,
    *,
    residual_threshold: float,
    max_iterations: int,
    stop_on_duplicate_support: bool,
) -> Tensor:
    """Return the latents [B, F] of centred inputs.

    Step by step: the row i with the largest `r . d_i` is chosen, `f_i` grows by `v = relu(r . d_i)` and the residual r loses `v d_i`.
    The choice has no gradient, everything else has. Whether a token is finished depends on that token alone.

    Args:
        x_BD: What is to be reconstructed.
        W_dec_FD: Decoder rows.
        residual_threshold: A token is finished once `|r|` is below; 0: never for that reason.
        max_iterations: Maximum number of steps.
        stop_on_duplicate_support: A token is finished after a step that brings no new latent.
    """
    residual_BD = x_BD
    acts_BF = torch.zeros(x_BD.shape[0], W_dec_FD.shape[0], dtype=x_BD.dtype, device=x_BD.device)
    done_B = torch.zeros(x_BD.shape[0], dtype=torch.bool, device=x_BD.device)
    for _ in range(max_iterations):
        with torch.no_grad():
            chosen_B1 = (residual_BD @ W_dec_FD.t()).argmax(dim=1, keepdim=True)
            is_new_B = acts_BF.gather(1, chosen_B1).squeeze(1) == 0
        row_BD = W_dec_FD[chosen_B1.squeeze(1)]
        value_B1 = (residual_BD * row_BD).sum(dim=1, keepdim=True).relu() * ~done_B.unsqueeze(1)
        acts_BF.scatter_add_(1, chosen_B1, value_B1)
        residual_BD = residual_BD - value_B1 * row_BD
        with torch.no_grad():
            if stop_on_duplicate_support:
                done_B = done_B | ~(is_new_B & (value_B1.squeeze(1) > 0))
            if residual_threshold > 0:
                done_B = done_B | (residual_BD.norm(dim=1) < residual_threshold)
            if bool(done_B.all()):
                break
    return acts_BF


@register_architecture("matching_pursuit")
class MatchingPursuit(Architecture[MatchingPursuitSpec]):
    """`f` from `pursue`, `x^ = f W_dec + b_dec`, no loss but `mse`. As in SAELens, `b_dec` takes part only where the input is centred."""

    @property
    def reads_dead(self) -> bool:
        """No loss term does."""
        return False

    def init(
        self, generator: torch.Generator, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Params:
        """Return `W_dec` and `b_dec`."""
        params = self.init_dictionary(generator, dtype=dtype, device=device)
        return {name: params[name] for name in ("W_dec", "b_dec")}

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return the latents twice: there is no pre-activation."""
        acts_BF = pursue(
            x_BD,
            params["W_dec"],
            residual_threshold=self.spec.residual_threshold,
            max_iterations=self.spec.iterations,
            stop_on_duplicate_support=self.spec.stop_on_duplicate_support,
        )
        return acts_BF, acts_BF

    def decode(self, params: Params, feature_acts_BF: Tensor) -> Tensor:
        """Return the reconstruction [B, D] in the normalised space."""
        recon_BD = feature_acts_BF @ params["W_dec"]
        return recon_BD + params["b_dec"] if self.spec.apply_b_dec_to_input else recon_BD

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return no further loss."""
        return {}

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold a scale into `b_dec` and the threshold: latents are divided by it."""
        tensors, fields = super().fold(tensors, normalizer, threshold)
        return tensors, {
            **fields,
            "residual_threshold": self.spec.residual_threshold / (normalizer.scale or 1.0),
            "max_iterations": self.spec.max_iterations,
            "stop_on_duplicate_support": self.spec.stop_on_duplicate_support,
        }


class MatchingPursuitForm(ExportedForm):
    """What trains, on raw activations."""

    def shapes(self, cfg: Cfg) -> dict[str, tuple[int, ...]]:
        """Return `W_dec` and `b_dec`."""
        return {"W_dec": (cfg["d_sae"], cfg["d_in"]), "b_dec": (cfg["d_in"],)}

    def problems(self, cfg: Cfg) -> list[str]:
        """Return what is wrong with the fields of the pursuit."""
        threshold, stop = cfg.get("residual_threshold", 0.01), cfg.get("stop_on_duplicate_support", True)
        found = [] if cfg.get("max_iterations") is None else positive_int_problem(cfg, "max_iterations")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            found.append(f"residual_threshold must be a number, got {threshold!r}")
        if not isinstance(stop, bool):
            found.append(f"stop_on_duplicate_support must be true or false, got {stop!r}")
        return found

    def encode(self, cfg: Cfg, tensors: Tensors, x_ND: Tensor) -> Tensor:
        """Return the latents [N, F]."""
        stated = cfg.get("max_iterations")
        acts_BF = pursue(
            x_ND.reshape(-1, x_ND.shape[-1]),
            tensors["W_dec"],
            residual_threshold=float(cfg.get("residual_threshold", 0.01)),
            max_iterations=int(cfg["d_in"] if stated is None else stated),
            stop_on_duplicate_support=bool(cfg.get("stop_on_duplicate_support", True)),
        )
        return acts_BF.reshape(*x_ND.shape[:-1], acts_BF.shape[1])

    def decode(self, cfg: Cfg, tensors: Tensors, feature_acts_NF: Tensor) -> Tensor:
        """Return the reconstruction [N, D]."""
        recon_ND = feature_acts_NF @ tensors["W_dec"]
        return recon_ND + tensors["b_dec"] if cfg.get("apply_b_dec_to_input", True) else recon_ND


register_form("matching_pursuit", MatchingPursuitForm())
