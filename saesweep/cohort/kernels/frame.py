"""One SAE's step while it is being computed: inputs, scratch, and what every architecture does the same way.

Shape suffixes: B = tokens of the batch, R = tokens of a chunk, F = d_sae, D = d_in, or d_out at the reconstruction of a transcoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.gemm import linear, product
from saesweep.cohort.kernels.scratch import Accumulator, Scratch
from saesweep.cohort.kernels.screen import Screen
from saesweep.saes import Architecture, Knobs, Params


class Frame:
    """Inputs and accumulating gradients of one step.

    Weights are held row per latent ([F, D], `W_enc` too), which is how the parameters lie in memory.

    Raises:
        ValueError: `W_enc` is not the transposed view of a contiguous [F, D] tensor.
    """

    def __init__(
        self,
        architecture: Architecture[Any],
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        dead_F: Tensor | None,
        scratch: Scratch,
        choice: KernelChoice,
        target_BD: Tensor | None = None,
    ) -> None:
        self.params, self.knobs, self.scratch, self.choice = params, knobs, scratch, choice
        self._architecture = architecture
        self.W_enc_FD, self.W_dec_FD, self.b_dec_D = params["W_enc"].t(), params["W_dec"], params["b_dec"]
        if not self.W_enc_FD.is_contiguous():
            raise ValueError(f"W_enc of stride {params['W_enc'].stride()} is not the view of an [F, D] tensor")
        self.x_BD = x_BD.to(self.W_dec_FD.dtype)
        self.n_tokens, self.d_sae = x_BD.shape[0], architecture.d_sae
        self.d_in, self.d_out = architecture.d_in, architecture.d_out
        self.target_BD = self.x_BD if target_BD is None else target_BD.to(self.W_dec_FD.dtype)
        """What latents reconstruct: the batch; of a transcoder the other hook's, less its skip connection."""
        W_skip = params.get("W_skip")
        self._grad_W_skip: Tensor | None = None
        if W_skip is not None:
            self.target_BD = torch.addmm(self.target_BD, self.x_BD, W_skip.t(), alpha=-1)
            self._grad_W_skip = torch.zeros_like(W_skip)
        self.dead_N = None if dead_F is None else dead_F.nonzero().squeeze(1)
        self._centred: bool = architecture.spec.apply_b_dec_to_input
        self.inputs_BD = self.x_BD
        if self._centred:
            buffer_BD = scratch.take("inputs", (self.n_tokens, self.d_in), self.x_BD)
            self.inputs_BD = torch.sub(self.x_BD, self.b_dec_D, out=buffer_BD)
        self._grad_W_enc_FD = scratch.take("grad W_enc", (self.d_sae, self.d_in), self.W_dec_FD)
        self.grad_W_enc = Accumulator(self._grad_W_enc_FD, choice.gemm)
        self._grad_W_dec_FD = scratch.take("grad W_dec", (self.d_sae, self.d_out), self.W_dec_FD)
        self.grad_W_dec = Accumulator(self._grad_W_dec_FD, choice.gemm)
        self._recon_grad_D = torch.zeros_like(self.b_dec_D)

    def zeros_F(self) -> Tensor:
        """Return a fresh sum over latents."""
        return self.W_dec_FD.new_zeros(self.d_sae)

    def zero(self) -> Tensor:
        """Return a scalar 0 of the parameters' type."""
        return self.W_dec_FD.new_zeros(())

    def decoder_norms(self) -> Tensor:
        """Return by how much each latent's activation is weighed, [F]: its decoder norm, of a crosscoder summed over layers."""
        return self._architecture.decoder_norms(self.W_dec_FD)

    def add_norm_grad(self, norm_grad_F: Tensor, norm_F: Tensor) -> None:
        """Add the gradient at `decoder_norms`, which are `norm_F`, to the decoder's: `d|d| / dd = d / |d|`, by layer of a crosscoder."""
        n_layers, rows_FD = self._architecture.n_layers, self.W_dec_FD
        if n_layers > 1:
            rows_FD = rows_FD.view(self.d_sae * n_layers, -1)
            norm_F, norm_grad_F = torch.linalg.vector_norm(rows_FD, dim=1), norm_grad_F.repeat_interleave(n_layers)
        self.grad_W_dec.add_multiple(norm_grad_F / norm_F, rows_FD)

    def spare_FD(self) -> Tensor:
        """Return memory for one more [F, D] tensor, free until the encoder's gradient is first added to."""
        return self._grad_W_enc_FD

    def screen(self, W_FD: Tensor, b_F: Tensor) -> Screen | None:
        """Return the bf16 screen of this encoder, where the choice asks for one."""
        if not self.choice.screen or W_FD.dtype != torch.float32 or W_FD.device.type != "cpu":
            return None
        return Screen(self.inputs_BD, W_FD, b_F, self.scratch)

    def chunks(self) -> list[slice]:
        """Return the rows of each chunk."""
        size = min(self.choice.chunk_rows(self.d_sae), self.n_tokens)
        return [slice(start, min(start + size, self.n_tokens)) for start in range(0, self.n_tokens, size)]

    def pre_acts(self, inputs_RD: Tensor, W_FD: Tensor, b_F: Tensor) -> Tensor:
        """Return `inputs W^T + b`, [R, F], in a buffer that the next chunk's overwrite."""
        buffer_RF = self.chunk_buffer("pre-activations", inputs_RD.shape[0])
        return linear(self.choice.gemm, inputs_RD, W_FD, b_F, out=buffer_RF)

    def decode(self, acts_RF: Tensor) -> Tensor:
        """Return `acts W_dec`, [R, D]."""
        return product(self.choice.gemm, acts_RF, self.W_dec_FD)

    def acts_grad(self, recon_grad_RD: Tensor, name: str, *, bias_F: Tensor | None = None) -> Tensor:
        """Return `gradient W_dec^T + bias`, [R, F], in the chunk buffer of that name."""
        buffer_RF = self.chunk_buffer(name, recon_grad_RD.shape[0])
        return product(self.choice.gemm, recon_grad_RD, self.W_dec_FD.t(), bias_N=bias_F, out=buffer_RF)

    def chunk_buffer(self, name: str, n_rows: int) -> Tensor:
        """Return a buffer [R, F] of that name."""
        return self.scratch.take(name, (n_rows, self.d_sae), self.W_dec_FD)

    def error(self, recon_RD: Tensor, rows: slice) -> Tensor:
        """Turn a decoded sum [R, D] without bias into `reconstruction - target`, in place."""
        return recon_RD.add_(self.b_dec_D).sub_(self.target_BD[rows])

    def mean_square(self, error_RD: Tensor) -> Tensor:
        """Return these rows' part of the batch's `E sum_D error^2`, a scalar."""
        norm: Tensor = torch.linalg.vector_norm(error_RD)
        return norm.square() / self.n_tokens

    def grad_of_(self, error_RD: Tensor) -> Tensor:
        """Turn `reconstruction - target` into the gradient of the batch's `mse` at the reconstruction, in place."""
        return error_RD.mul_(2.0 / self.n_tokens)

    def add_recon_grad(self, grad_RD: Tensor, rows: slice) -> None:
        """Add these rows' gradient at the reconstruction to those of the decoder's bias and of the skip connection."""
        self._recon_grad_D += grad_RD.sum(0)
        if self._grad_W_skip is not None:
            self._grad_W_skip.addmm_(grad_RD.t(), self.x_BD[rows])

    def finish(
        self, losses: dict[str, Tensor], pre_act_grad_F: Tensor, small: Params, firing_F: Tensor
    ) -> StepGradients:
        """Put the step's results together.

        Args:
            losses: Weighted terms by SAELens' names.
            pre_act_grad_F: Sum over tokens of the gradient at `inputs W_enc`.
            small: Gradients of all parameters but `W_enc`, `W_dec` and `b_dec`.
            firing_F: Firing counts.
        """
        b_dec_grad_D = self._recon_grad_D
        if self._centred:
            # The input's gradient, summed over tokens: a vector-matrix product, where autograd forms [B, D] first.
            b_dec_grad_D = b_dec_grad_D - pre_act_grad_F @ self.W_enc_FD
        grads = {
            "W_enc": self.grad_W_enc.total().t(),
            "W_dec": self.grad_W_dec.total(),
            "b_dec": b_dec_grad_D,
            **small,
            **({} if self._grad_W_skip is None else {"W_skip": self._grad_W_skip}),
        }
        return StepGradients(
            loss=torch.stack(list(losses.values())).sum(),
            losses=losses,
            grads={name: grads[name] for name in self.params},
            firing_F=firing_F,
        )
