"""p-annealing of the standard SAE's penalty: p in a few steps, and a coefficient that keeps the penalty's size.

Of the last training steps before a change, the mean penalty under the old exponent is divided by that under the new one, and
the coefficient multiplied by the ratio. Source: dictionary_learning 0.1.0, `trainers/p_anneal.py`; arXiv 2408.00113.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saesweep.saes import Knobs
from saesweep.specs import PAnnealingPlan


class PAnnealing:
    """The exponent and the coefficient's factor of one SAE in training: a pure function of the penalties observed.

    Args:
        plan: When p changes, and to what.
        device: Training device.
    """

    def __init__(self, plan: PAnnealingPlan, device: torch.device | str) -> None:
        self.plan = plan
        self._device = device
        self._n_updates = 0
        self._queue: deque[Tensor] = deque(maxlen=plan.queue_length)
        self.factor = 1.0
        """What the coefficient is multiplied by."""

    @property
    def p(self) -> float:
        """The exponent in force."""
        return self.plan.values[max(0, self._n_updates - 1)]

    @property
    def next_p(self) -> float | None:
        """The exponent that comes next; None before the first update and after the last."""
        return self.plan.values[self._n_updates] if 0 < self._n_updates < len(self.plan.values) else None

    def applied(self, knobs: Knobs) -> Knobs:
        """Return a step's knobs with the exponents and the adapted coefficient."""
        coefficient = knobs.l1_coefficient * self.factor
        return replace(knobs, l1_coefficient=coefficient, lp_norm=self.p, next_lp_norm=self.next_p)

    def observe(self, step: int, sizes_2: Tensor | None) -> None:
        """Take in a step, counted from 0, and change p where that is due.

        Args:
            step: Its number.
            sizes_2: The mean penalty of its batch at `p` and at `next_p`; None where there is no next one.
        """
        if sizes_2 is not None:
            self._queue.append(sizes_2)
        if self._n_updates == len(self.plan.values) or step != self.plan.update_steps[self._n_updates]:
            return
        if self.next_p is not None and self._queue:
            now, then = torch.stack(list(self._queue)).mean(0).tolist()
            if then > 0:  # else no latent is active, and there is nothing to keep
                self.factor *= now / then
        self._n_updates += 1

    def state(self) -> dict[str, Any]:
        """Return the JSON part of a checkpoint."""
        queue = [sizes_2.tolist() for sizes_2 in self._queue]
        return {"n_updates": self._n_updates, "factor": self.factor, "queue": queue}

    def load(self, state: dict[str, Any], dtype: torch.dtype) -> None:
        """Restore what `state` returned.

        Args:
            state: It.
            dtype: Type of the weights, which observed penalties have.
        """
        self._n_updates, self.factor = state["n_updates"], state["factor"]
        self._queue.clear()
        self._queue.extend(torch.tensor(pair, dtype=dtype, device=self._device) for pair in state["queue"])
