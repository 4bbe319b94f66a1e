"""How long a block is, and where the rungs lie: from the specs alone."""

from __future__ import annotations

from dataclasses import dataclass

from saesweep.experiment import rung_steps
from saesweep.specs import BaseRun, CohortSpec, SearchSpec

_CALIBRATION_STEPS = 10


@dataclass(frozen=True)
class BlockPlan:
    """The grid on which scheduling decisions fall, in steps of one trial."""

    total_steps: int
    block_steps: int
    rung_steps: tuple[int, ...]
    batch_tokens: int

    @property
    def total_tokens(self) -> int:
        """Tokens of a full trial."""
        return self.total_steps * self.batch_tokens

    @property
    def block_tokens(self) -> int:
        """Tokens of a block."""
        return self.block_steps * self.batch_tokens

    @property
    def rungs_tokens(self) -> tuple[int, ...]:
        """Tokens of a trial at which it is judged."""
        return tuple(step * self.batch_tokens for step in self.rung_steps)


def plan_blocks(run: BaseRun, search: SearchSpec, cohort: CohortSpec) -> BlockPlan:
    """Return the block length and the rungs, each moved to the nearest block boundary.

    Without `cohort.block_tokens`, a block is about a twentieth of the run, and a whole part of the way to the first rung; at
    least ten steps where the run has them, because exported thresholds are calibrated on the block's last ten batches.
    """
    total, rungs = run.total_steps, rung_steps(search, run)
    if cohort.block_tokens is not None:
        block = max(1, round(cohort.block_tokens / run.train_batch_size_tokens))
    else:
        block = max(total // 20, min(_CALIBRATION_STEPS, total))
        if rungs and rungs[0] > block:
            block = round(rungs[0] / round(rungs[0] / block))
    block = max(1, min(block, total))
    on_grid = sorted({max(1, round(rung / block)) * block for rung in rungs})
    return BlockPlan(
        total_steps=total,
        block_steps=block,
        rung_steps=tuple(step for step in on_grid if step < total),
        batch_tokens=run.train_batch_size_tokens,
    )
