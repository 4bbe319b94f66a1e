"""When the exponent of the standard SAE's penalty changes, and to what (p-annealing, arXiv 2408.00113).

As dictionary_learning's `PAnnealTrainer` has it (0.1.0, `trainers/p_anneal.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from saesweep.specs.architectures import StandardSpec
from saesweep.specs.base_run import BaseRun


@dataclass(frozen=True, kw_only=True)
class PAnnealingPlan:
    """The values of p and the steps after which they hold."""

    update_steps: tuple[int, ...]
    """After the training step of each number, counted from 0, p takes the next value."""
    values: tuple[float, ...]
    """The first is where p starts, so that the first update changes nothing."""
    queue_length: int
    """Steps over which penalties are compared before a change."""

    @classmethod
    def of(cls, run: BaseRun) -> PAnnealingPlan | None:
        """Return the plan of a run; None where its SAE does not anneal p."""
        sae = run.sae
        if not isinstance(sae, StandardSpec) or sae.p_end is None:
            return None
        n, change = sae.n_sparsity_updates, sae.p_end - sae.lp_norm
        return cls(
            update_steps=_evenly(run.to_steps(sae.anneal_start), run.to_steps(sae.anneal_end), n),
            values=tuple(sae.lp_norm + change * i / (n - 1) for i in range(n)),
            queue_length=sae.sparsity_queue_length,
        )

    def __str__(self) -> str:
        """Return it for people."""
        return (
            f"{self.values[0]:g} to {self.values[-1]:g} in {len(self.values) - 1} changes from step {self.update_steps[1]} "
            f"to {self.update_steps[-1]}, the coefficient adapted at each"
        )


def _evenly(first: int, last: int, n: int) -> tuple[int, ...]:
    """Return n whole numbers from `first` to `last`, as `torch.linspace(first, last, n, dtype=int)` rounds them."""
    step = (last - first) / (n - 1)
    return tuple(int(first + step * i) if i < n / 2 else int(last - step * (n - 1 - i)) for i in range(n))
