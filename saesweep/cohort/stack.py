"""Slots whose weights, moments and statistics lie in the same tensors, and which take each step together.

A slot keeps its own parameters and counters: views of its part of the stack. Export, measuring and checkpoints read those as ever.

Shape suffixes: N = slots, B = tokens of the batch, F = d_sae, D = d_in, L = loss terms, S = steps that were written ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saesweep.cohort.alignment import align_, align_gradients_
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.stacked import loss_names, stacked_step
from saesweep.cohort.kernels.stacked_select import StackShape
from saesweep.cohort.optimizer import MAX_GRAD_NORM
from saesweep.cohort.slot import Slot
from saesweep.cohort.stacked_adam import AdamScalars, stacked_adam_step_

_KINDS = ("params", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class StackKey:
    """What slots must have in common to be stacked."""

    hook_name: str
    normalize_activations: str
    dtype: torch.dtype
    d_in: int
    d_sae: int
    is_aligned: bool
    shape: StackShape


class Stack:
    """Several slots as one; their tensors become views of this stack's.

    Args:
        key: What they have in common.
        slots: At least one.
        choice: Chunk size, and library of the products at pairs.
    """

    def __init__(self, key: StackKey, slots: Sequence[Slot], choice: KernelChoice) -> None:
        self.key, self.slots, self._choice = key, list(slots), choice
        # One tensor after the other, so that no more than one of them exists twice at a time.
        self._params, self._exp_avg, self._exp_avg_sq = (
            {name: self._stacked_weight(kind, name) for name in slots[0].params} for kind in _KINDS
        )
        self._since_fired_NF = torch.stack([slot.firing.steps_since_fired_F for slot in slots])
        self._counts_N2F = torch.stack([slot.firing.counts_2F for slot in slots])
        self._is_finite_N = torch.stack([slot.is_finite for slot in slots])
        for index, slot in enumerate(slots):
            slot.firing.steps_since_fired_F = self._since_fired_NF[index]
            slot.firing.counts_2F = self._counts_N2F[index]
            slot.is_finite = self._is_finite_N[index]
        device = self._since_fired_NF.device
        self._aux_N = torch.tensor(
            [slot.architecture.spec.aux_loss_coefficient for slot in slots], dtype=key.dtype, device=device
        )
        self._window_N1 = torch.tensor([[slot.loss_window_steps] for slot in slots], device=device)

    def _stacked_weight(self, kind: str, name: str) -> Tensor:
        own: list[dict[str, Tensor]] = [getattr(slot, kind) for slot in self.slots]
        stacked = torch.stack([_row_per_latent(name, tensors[name]) for tensors in own])
        for tensors, part in zip(own, stacked, strict=True):
            tensors[name] = _row_per_latent(name, part)
        return stacked

    def begin(self, n_steps: int) -> None:
        """Write what the next steps need to the device, and take over the loss sums of the block so far."""
        device, dtype = self._aux_N.device, self.key.dtype
        of_batch = self.key.shape.of_batch
        written = [[_scalars(slot, slot.step + ahead, of_batch) for slot in self.slots] for ahead in range(n_steps)]
        self._scalars_SN5 = torch.tensor(written, dtype=torch.float64).to(device, dtype)
        self._taken = 0
        names = ("overall_loss", *loss_names(self.key.shape))
        zero = torch.zeros((), dtype=dtype, device=device)
        self._sums_LN = torch.stack(
            [torch.stack([s.block_losses.get(name, zero) for s in self.slots]) for name in names]
        )
        for index, slot in enumerate(self.slots):
            slot.block_losses = {name: self._sums_LN[row, index] for row, name in enumerate(names)}

    def step(self, x_BD: Tensor) -> None:
        """Train all slots on one batch; nothing is read from the device."""
        k_N, size_N, eps_N, fresh1_N, fresh2_N = self._scalars_SN5[self._taken].unbind(1)
        self._taken += 1
        dead_NF = self._since_fired_NF > self._window_N1 if self.key.shape.reads_dead else None
        result = stacked_step(self.key.shape, self._params, x_BD, k_N, self._aux_N, dead_NF, self._choice)
        terms_LN = torch.stack(list(result.losses.values()))
        loss_N = terms_LN.sum(0)
        self._sums_LN += torch.cat([loss_N[None], terms_LN])
        for slot in self.slots:
            slot.firing.begin_step(x_BD.shape[0])
        self._since_fired_NF += 1
        self._since_fired_NF.masked_fill_(result.firing_NF > 0, 0)
        self._counts_N2F[:, 0] += result.firing_NF
        if self.key.is_aligned:
            align_gradients_(self._params, result.grads)
        norm_N = stacked_adam_step_(
            self._params,
            self._exp_avg,
            self._exp_avg_sq,
            result.grads,
            AdamScalars(size_N, eps_N, fresh1_N, fresh2_N),
            max_grad_norm=MAX_GRAD_NORM,
        )
        if self.key.is_aligned:
            align_(self._params)
        self._is_finite_N &= torch.isfinite(loss_N) & torch.isfinite(norm_N)
        for slot in self.slots:
            slot.step += 1
            slot.block_steps += 1


def release(slot: Slot) -> None:
    """Give a slot tensors of its own again: views would keep the whole stack in memory."""
    for kind in _KINDS:
        tensors: dict[str, Tensor] = getattr(slot, kind)
        for name, tensor in tensors.items():
            tensors[name] = _row_per_latent(name, _row_per_latent(name, tensor).clone())
    slot.firing.steps_since_fired_F = slot.firing.steps_since_fired_F.clone()
    slot.firing.counts_2F = slot.firing.counts_2F.clone()
    slot.is_finite = slot.is_finite.clone()
    slot.block_losses = {name: term.clone() for name, term in slot.block_losses.items()}


def _row_per_latent(name: str, weight: Tensor) -> Tensor:
    """Return a weight as it lies in memory; `W_enc` is the transposed view of that, and given that, this returns `W_enc`."""
    return weight.t() if name == "W_enc" else weight


def _scalars(slot: Slot, step: int, of_batch: bool) -> tuple[float, ...]:
    k = slot.k_at(step)
    kept = int(k * slot.run.train_batch_size_tokens) if of_batch else int(k)
    return (kept, *AdamScalars.of_step(step + 1, slot.lr.at(step), slot.run.adam_beta1, slot.run.adam_beta2))
