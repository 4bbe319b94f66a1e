"""Which slots of a cohort train as one batch of operations.

A slot is stacked or not by its own settings and its own step, whoever trains beside it and even alone: stacked and single steps round
differently, and a trial's bits must not depend on its neighbours.

Shape suffixes: B = tokens of the batch, D = d_in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from saesweep.cohort.kernels.engine import SparseEngine
from saesweep.cohort.kernels.stacked_select import StackShape, width_for
from saesweep.cohort.slot import Slot
from saesweep.cohort.stack import Stack, StackKey, release
from saesweep.saes import Architecture
from saesweep.saes.batchtopk import BatchTopK
from saesweep.saes.matryoshka import MatryoshkaBatchTopK
from saesweep.saes.topk import TopK
from saesweep.specs.architectures import BatchTopKSpec

_STEPS_AHEAD = 64
"""Steps whose scalars are written to the device at once."""


def is_stackable(architecture: Architecture[Any], engine: SparseEngine) -> bool:
    """Return whether SAEs of this architecture are trained in stacks where the engine's kernels are."""
    # By exact class: a subclass may compute something else.
    is_one = type(architecture) in (TopK, BatchTopK, MatryoshkaBatchTopK) and engine.supports(architecture) is None
    return is_one and not getattr(architecture.spec, "use_matryoshka_aux_loss", False)


class Stacks:
    """The stacks of a cohort, made anew where their members change.

    Args:
        engine: What trains slots one by one: it says which architectures its kernels are exact for, and has their settings.
    """

    def __init__(self, engine: SparseEngine) -> None:
        self._engine = engine
        self._of: list[Slot] = []
        self._stacks: list[Stack] = []
        self._steps_left = 0

    def begin_block(self) -> None:
        """Start a block: loss sums begin anew."""
        self._steps_left = 0

    def train_step(self, slots: Sequence[Slot], rows_at: Callable[[str, Slot], Tensor]) -> list[Slot]:
        """Train the slots that are stacked on one batch.

        Args:
            slots: Those that are not done.
            rows_at: Returns the batch [B, D] at a hook, scaled as for a slot.

        Returns:
            The other slots.
        """
        if self._steps_left == 0 or self._of != list(slots):
            self._arrange(slots)
        self._steps_left -= 1
        for stack in self._stacks:
            stack.step(rows_at(stack.key.hook_name, stack.slots[0]))
        stacked = {id(slot) for stack in self._stacks for slot in stack.slots}
        return [slot for slot in slots if id(slot) not in stacked]

    def _arrange(self, slots: Sequence[Slot]) -> None:
        """Put every slot into the stack of its key, for as many steps as keys stay what they are."""
        members_of: dict[StackKey, list[Slot]] = {}
        steps = _STEPS_AHEAD
        for slot in slots:
            steps = min(steps, slot.total_steps - slot.step)
            if (key := self._key(slot)) is not None:
                members_of.setdefault(key, []).append(slot)
                steps = _steps_alike(slot, steps)
        self._release({id(slot) for members in members_of.values() for slot in members})
        known = {stack.key: stack for stack in self._stacks if stack.slots == members_of.get(stack.key)}
        # Let go first: a stack's tensors are given back as soon as their last slot has moved to another one.
        self._stacks = []
        self._stacks = [
            known.get(key) or Stack(key, members, self._engine.choice) for key, members in members_of.items()
        ]
        for stack in self._stacks:
            stack.begin(steps)
        self._of, self._steps_left = list(slots), steps

    def _release(self, staying: set[int]) -> None:
        for stack in self._stacks:
            for slot in stack.slots:
                if id(slot) not in staying:
                    release(slot)

    def _key(self, slot: Slot) -> StackKey | None:
        """Return what a slot is stacked by at its next step; None where it trains by itself."""
        architecture, spec = slot.architecture, slot.architecture.spec
        weights = slot.params["W_dec"]
        if not is_stackable(architecture, self._engine):
            return None
        if slot.exp_avg["W_dec"].dtype != weights.dtype:
            return None  # rounding draws from a generator of the slot's own
        width, reads_dead = _phase(slot, slot.step)
        return StackKey(
            hook_name=slot.run.hook_name,
            normalize_activations=spec.normalize_activations,
            dtype=weights.dtype,
            d_in=architecture.d_in,
            d_sae=architecture.d_sae,
            is_aligned=slot.is_aligned,
            shape=StackShape(
                width=width,
                of_batch=isinstance(spec, BatchTopKSpec),
                inner_widths=getattr(spec, "inner_widths", ()),
                is_centred=spec.apply_b_dec_to_input,
                is_rescaled=spec.rescale_acts_by_decoder_norm,
                reads_dead=reads_dead,
            ),
        )


def _phase(slot: Slot, step: int) -> tuple[int, bool]:
    """Return what of a slot's key depends on the step: pairs of a token, and whether a latent may be dead."""
    width = min(width_for(slot.k_at(step)), slot.architecture.d_sae)
    # A latent that never fired counts as dead after so many steps; sooner none can.
    return width, slot.architecture.reads_dead and step > slot.loss_window_steps


def _steps_alike(slot: Slot, at_most: int) -> int:
    """Return for how many steps, this one included, a slot keeps its key."""
    now = _phase(slot, slot.step)
    return next((n for n in range(1, at_most) if _phase(slot, slot.step + n) != now), at_most)
