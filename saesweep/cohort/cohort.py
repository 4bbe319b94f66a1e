"""The cohort: all SAEs that train now, on one device, from one activation stream.

Shape suffixes: B tokens of the batch, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saesweep.cohort.alignment import align_gradients_
from saesweep.cohort.engine import GradientEngine, ReferenceEngine
from saesweep.cohort.optimizer import MAX_GRAD_NORM, adam_step_
from saesweep.cohort.slot import Slot
from saesweep.cohort.stacks import Stacks
from saesweep.saes import (
    Architecture,
    ExportedSAE,
    Knobs,
    Normalizer,
    TrainingForm,
    calibrate_threshold,
    pretrained_params,
    read_pretrained,
    rows_at_once,
)

CALIBRATION_BATCHES = 10
"""Recent training batches on which an exported BatchTopK threshold is calibrated."""
RUNG_CALIBRATION_TOKENS = 4096
"""At a rung the newest of them that hold so many tokens are enough: ten dense encodings cost more than what is measured there."""


class Cohort:
    """Slots that train in lockstep.

    Args:
        n_slots: Number of slots.
        normalizers: The run-level normaliser of every (hook, normalize_activations) that a trial may use.
        device: Training device.
        engine: Preferred gradient engine; slots that it does not support use the reference path.
        reference: The reference path; a plain one with `autocast` when left out.
        autocast: bfloat16 matrix products with fp32 master weights.
        stacks: Trains slots of one shape together where it can; None: each slot is trained by itself.
    """

    def __init__(
        self,
        n_slots: int,
        *,
        normalizers: Mapping[tuple[str, str], Normalizer],
        device: torch.device | str,
        engine: GradientEngine | None = None,
        reference: ReferenceEngine | None = None,
        autocast: bool = False,
        stacks: Stacks | None = None,
    ) -> None:
        self.slots: list[Slot | None] = [None] * n_slots
        self._normalizers = normalizers
        self._device = torch.device(device)
        self._reference = reference or ReferenceEngine(autocast=autocast)
        self._engine: GradientEngine = engine or self._reference
        self._stacks = stacks
        self._recent: deque[Mapping[str, Tensor]] = deque(maxlen=CALIBRATION_BATCHES)

    def place(self, index: int, slot: Slot) -> None:
        """Put a trial into a free slot; before its first step, with the weights that `from_pretrained_path` names.

        Raises:
            ValueError: The slot is taken.
            UserError: Those weights cannot be read or do not fit.
        """
        if self.slots[index] is not None:
            raise ValueError(f"slot {index} still holds a trial")
        if slot.step == 0 and slot.run.from_pretrained_path is not None:
            found = read_pretrained(slot.run.from_pretrained_path)
            slot.params = pretrained_params(found, slot.architecture, self._normalizer(slot), slot.params)
            slot.align_()
        self.slots[index] = slot

    def remove(self, index: int) -> Slot:
        """Take the trial out of a slot and return it.

        Raises:
            ValueError: The slot is empty.
        """
        slot = self.slots[index]
        if slot is None:
            raise ValueError(f"slot {index} is empty")
        self.slots[index] = None
        return slot

    def occupied(self) -> Iterator[tuple[int, Slot]]:
        """Yield (index, slot) for every slot that holds a trial."""
        for index, slot in enumerate(self.slots):
            if slot is not None:
                yield index, slot

    def engine_for(self, architecture: Architecture[Any]) -> GradientEngine:
        """Return the engine that trains this architecture: the preferred one where it is exact."""
        return self._engine if self._engine.supports(architecture) is None else self._reference

    def begin_block(self) -> None:
        """Start a block: loss sums and calibration batches are its own, so that a resumed block repeats them."""
        self._recent.clear()
        if self._stacks is not None:
            self._stacks.begin_block()
        for _, slot in self.occupied():
            slot.begin_block()

    @torch.no_grad()
    def train_step(self, batch: Mapping[str, Tensor]) -> None:
        """Train every unfinished SAE on one batch.

        Args:
            batch: Activations [B, D] by hook, as the stream serves them.
        """
        self._recent.append(batch)
        scaled: dict[tuple[str, str, torch.dtype], Tensor] = {}

        def rows_at(hook: str, slot: Slot) -> Tensor:
            key = (hook, slot.run.sae.normalize_activations, slot.params["W_dec"].dtype)
            if key not in scaled:
                scaled[key] = self._scaled(batch[hook], key)
            return scaled[key]

        slots = [slot for _, slot in self.occupied() if not slot.is_done]
        if self._stacks is not None:
            slots = self._stacks.train_step(slots, rows_at)
        for slot in slots:
            target_BD = rows_at(slot.run.target_hook, slot) if slot.run.sae.is_transcoder else None
            self._train_slot(slot, rows_at(slot.run.hook_name, slot), target_BD)

    def _train_slot(self, slot: Slot, x_BD: Tensor, target_BD: Tensor | None) -> None:
        result = self.engine_for(slot.architecture).step(
            slot.architecture,
            slot.params,
            x_BD,
            slot.knobs_at(slot.step),
            slot.dead_for_loss_F(),
            target_BD,
        )
        slot.is_finite &= torch.isfinite(result.loss)
        for name, term in {"overall_loss": result.loss, **result.losses}.items():
            total = slot.block_losses.get(name)
            slot.block_losses[name] = term.clone() if total is None else total + term
        slot.firing.update(result.firing_F, x_BD.shape[0])
        if slot.control is not None:
            slot.control.observe(slot.step, result.firing_F, x_BD.shape[0])
        if slot.annealing is not None:
            slot.annealing.observe(slot.step, result.observed)
        if slot.is_aligned:
            align_gradients_(slot.params, result.grads)
        moments = slot.wide_moments()
        norm = adam_step_(
            slot.params,
            moments.exp_avg,
            moments.exp_avg_sq,
            result.grads,
            step=slot.step + 1,
            lr=slot.lr.at(slot.step),
            beta1=slot.run.adam_beta1,
            beta2=slot.run.adam_beta2,
            max_grad_norm=MAX_GRAD_NORM,
        )
        moments.keep_()
        # The sparse kernels never read a latent whose weights are NaN: the loss alone may stay finite.
        slot.is_finite &= torch.isfinite(norm)
        slot.architecture.constrain_(slot.params)
        slot.resample_dead_(x_BD)
        slot.align_()
        slot.step += 1
        slot.block_steps += 1

    def _scaled(self, x_BD: Tensor, key: tuple[str, str, torch.dtype]) -> Tensor:
        hook, mode, dtype = key
        return self._normalizers[hook, mode].apply(x_BD.to(self._device, dtype))

    @torch.no_grad()
    def export(self, slot: Slot, *, at_rung: bool = False) -> ExportedSAE:
        """Return the exported form of a slot's SAE as it is now, batchtopk thresholds calibrated on recent batches.

        Args:
            slot: Whose SAE.
            at_rung: It is measured and thrown away: fewer of these batches will do.
        """
        return slot.architecture.export(slot.params, self._normalizer(slot), self._threshold(slot, at_rung=at_rung))

    @torch.no_grad()
    def training_form(self, slot: Slot) -> TrainingForm:
        """Return a slot's SAE as it trains, for SAELens' trainer: the threshold is the one that `export` would fold."""
        return TrainingForm(
            tensors={name: p.detach().clone() for name, p in slot.params.items()},
            normalizer=self._normalizer(slot),
            topk_threshold=self._threshold(slot),
        )

    def _normalizer(self, slot: Slot) -> Normalizer:
        mode = slot.run.sae.normalize_activations
        found = self._normalizers[slot.run.hook_name, mode]
        if not slot.run.sae.is_transcoder:
            return found
        return replace(found, target=self._normalizers[slot.run.target_hook, mode])

    def _threshold(self, slot: Slot, *, at_rung: bool = False) -> float | None:
        """Calibrate on this block's recent batches where the exported form has a threshold that training has not."""
        if not slot.architecture.needs_threshold:
            return None
        hook, mode, dtype = slot.run.hook_name, slot.run.sae.normalize_activations, slot.params["W_dec"].dtype
        rows = rows_at_once(slot.architecture.d_sae, self._device)
        batches = list(self._recent)
        if at_rung:
            batches = batches[-max(1, -(-RUNG_CALIBRATION_TOKENS // slot.run.train_batch_size_tokens)) :]

        def pre_acts() -> Iterator[Tensor]:
            for batch in batches:
                for piece_BD in torch.split(batch[hook], rows):
                    scaled_BD = self._scaled(piece_BD, (hook, mode, dtype))
                    yield slot.architecture.pre_acts_for_threshold(slot.params, scaled_BD)

        # Of the k that it ends with, also while k is annealed: as a topk is exported.
        return calibrate_threshold(pre_acts, Knobs.from_spec(slot.run.sae).k)
