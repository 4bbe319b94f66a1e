"""New weights for latents that stay silent (Towards Monosemanticity, 2023; dictionary_learning 0.1.0, `trainers/standard.py`).

Shape suffixes: B = tokens of the batch, D = d_in, F = d_sae, R = latents that get new weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from saesweep.saes import Architecture, Knobs, Params, rows_at_once

_ENCODER_SHARE = 0.2
"""Norm of a new encoder vector, as a share of the mean norm of those that are alive."""


@torch.no_grad()
def resample_(
    architecture: Architecture[Any],
    params: Params,
    moments: Sequence[Mapping[str, Tensor]],
    x_BD: Tensor,
    dead_F: Tensor,
    generator: torch.Generator,
) -> int:
    """Point dead latents at activations that are reconstructed badly, in place.

    Activations of the batch are drawn without replacement, with probabilities proportional to the norms of their errors; where
    there are more dead latents than activations, the first latents get them.

    Args:
        architecture: A standard SAE.
        params: Its weights.
        moments: Adam's moments by parameter, which begin at 0 again for these latents.
        x_BD: The batch, scaled as for training.
        dead_F: True for the latents to replace, [F] bool.
        generator: Of the draw, a CPU one.

    Returns:
        How many latents have new weights: none where an error is not finite, since that trial has failed anyway.
    """
    dead_R = dead_F.nonzero().flatten()[: len(x_BD)]
    if not len(dead_R):
        return 0
    x_BD = x_BD.to(params["W_dec"].dtype)
    pieces = torch.split(x_BD, rows_at_once(architecture.d_sae, x_BD.device))
    recon_BD = torch.cat([architecture.forward(params, piece_BD, Knobs()).recon_BD for piece_BD in pieces])
    errors_B = (x_BD - recon_BD).norm(dim=1).cpu()
    if not bool(torch.isfinite(errors_B).all()):
        return 0
    tiny = torch.finfo(errors_B.dtype).tiny  # a draw without replacement needs enough that are not 0
    chosen_R = torch.multinomial(errors_B.clamp(min=tiny), len(dead_R), generator=generator)
    drawn_RD = x_BD[chosen_R.to(x_BD.device)]
    direction_RD = drawn_RD / drawn_RD.norm(dim=1, keepdim=True).clamp(min=tiny)
    norms_F = params["W_enc"].norm(dim=0)
    alive_norm = norms_F[~dead_F].mean() if bool((~dead_F).any()) else norms_F.mean()
    params["W_dec"][dead_R] = direction_RD
    params["W_enc"][:, dead_R] = (_ENCODER_SHARE * alive_norm * direction_RD).t()
    params["b_enc"][dead_R] = 0.0
    for moment in moments:
        moment["W_dec"][dead_R] = 0.0
        moment["W_enc"][:, dead_R] = 0.0
        moment["b_enc"][dead_R] = 0.0
    return len(dead_R)
