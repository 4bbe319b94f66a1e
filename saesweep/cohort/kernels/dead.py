"""The auxiliary loss of the topk family on the rows of dead latents alone.

Shape suffixes: B = tokens of the batch, R = tokens of a chunk, N = dead latents, D = d_in.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saesweep.cohort.kernels.accumulate import Accumulator
from saesweep.cohort.kernels.frame import Frame


def dead_loss_(
    frame: Frame, error_BD: Tensor, dead_N: Tensor, norm_F: Tensor | None, b_enc_F: Tensor, coefficient: float
) -> tuple[Tensor, Tensor]:
    """Add the auxiliary loss's gradients to the frame; see `TopKFamily.dead_loss` for the formula.

    `h' / |d|` is `h` again where activations carry decoder norms, so the norms decide only which dead latents take part.

    Args:
        frame: The step.
        error_BD: `reconstruction - x`, whose negative the dead latents must reconstruct; a constant here.
        dead_N: The dead latents, at least one.
        norm_F: Decoder norms where they weigh the selection, else None.
        b_enc_F: Encoder bias.
        coefficient: The loss's weight, not yet scaled down for few dead latents.

    Returns:
        The weighted loss, and its gradient at the dead latents' encoder biases, [N].
    """
    n_dead, k_full = dead_N.shape[0], max(frame.d_in // 2, 1)
    weight = coefficient * min(n_dead / k_full, 1.0) / frame.n_tokens
    W_enc_ND, W_dec_ND, b_enc_N = frame.W_enc_FD[dead_N], frame.W_dec_FD[dead_N], b_enc_F[dead_N]
    norm_N = None if norm_F is None else norm_F[dead_N]
    grad_W_enc, grad_W_dec = Accumulator(torch.empty_like(W_enc_ND)), Accumulator(torch.empty_like(W_dec_ND))
    grad_b_N, loss = torch.zeros_like(b_enc_N), frame.zero()
    size = max(frame.choice.chunk_elements // max(2 * n_dead, 1), 16)
    for start in range(0, frame.n_tokens, size):
        rows = slice(start, start + size)
        inputs_RD = frame.inputs_BD[rows]
        hidden_RN = torch.addmm(b_enc_N, inputs_RD, W_enc_ND.t())
        taken_RK = None
        if k_full < n_dead:
            key_RN = hidden_RN if norm_N is None else hidden_RN * norm_N
            taken_RK = key_RN.topk(k_full, dim=-1, sorted=False).indices
        acts_RN = _only(hidden_RN, taken_RK)
        error_RD = (acts_RN @ W_dec_ND).add_(error_BD[rows])
        loss += torch.linalg.vector_norm(error_RD).square() * weight
        grad_RD = error_RD.mul_(2.0 * weight)
        grad_W_dec.add_product(acts_RN, grad_RD)
        grad_RN = _only(grad_RD @ W_dec_ND.t(), taken_RK)
        grad_W_enc.add_product(grad_RN, inputs_RD)
        grad_b_N += grad_RN.sum(0)
    frame.grad_W_dec.add_rows(dead_N, grad_W_dec.total())
    frame.grad_W_enc.add_rows(dead_N, grad_W_enc.total())
    return loss, grad_b_N


def _only(values_RN: Tensor, taken_RK: Tensor | None) -> Tensor:
    """Return the values with zeros where they are not taken; None: all are."""
    if taken_RK is None:
        return values_RN
    return torch.zeros_like(values_RN).scatter_(1, taken_RK, values_RN.gather(1, taken_RK))
