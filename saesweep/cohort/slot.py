"""One slot: the SAE of one trial with its optimiser state, schedules and statistics.

Static shape (architecture, d_in, d_sae, hook) is fixed by the trial's run; everything else is per-trial state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from saesweep.cohort.alignment import align_
from saesweep.cohort.annealing import PAnnealing
from saesweep.cohort.control import SparsityControl
from saesweep.cohort.firing import FiringStatistics
from saesweep.cohort.optimizer import WideMoments
from saesweep.cohort.resampling import resample_
from saesweep.errors import UserError
from saesweep.saes import Knobs, architecture_for
from saesweep.specs import BaseRun, ControlPlan, Duration, LearningRate, PAnnealingPlan, ramps_of
from saesweep.specs.architectures import SAESpec

_TRAINING_DTYPES = {"float64": torch.float64}
"""Master weights are fp32 but for float64 runs; the declared dtype is applied at export."""


class Slot:
    """The training state of one trial.

    Args:
        trial: Number of the trial.
        run: Its fully specified run, widths resolved.
        joined_at_tokens: Stream position at which it entered.
        init_seed: Seed of the initial weights; the same for every trial of an experiment.
        device: Training device.
        adam_moments: How Adam's moments are kept; `bfloat16` does not apply to float64 runs.
        control: How its sparsity coefficient is steered; None where it stays as the run states it.
    """

    def __init__(
        self,
        *,
        trial: int,
        run: BaseRun,
        joined_at_tokens: int,
        init_seed: int,
        device: torch.device | str,
        adam_moments: Literal["float32", "bfloat16"] = "float32",
        control: ControlPlan | None = None,
    ) -> None:
        self.trial = trial
        self.run = run
        self.joined_at_tokens = joined_at_tokens
        self.architecture = architecture_for(run.sae)
        dtype = _TRAINING_DTYPES.get(run.sae.dtype, torch.float32)
        self.params = self.architecture.init(torch.Generator().manual_seed(init_seed), dtype=dtype, device=str(device))
        check_parameters(run.sae, self.params)
        self.is_aligned: bool = getattr(run.sae, "aligned", False)
        """Whether the inner product of each latent's encoder and decoder vectors stays 1."""
        self.align_()
        kept_as = torch.bfloat16 if adam_moments == "bfloat16" and dtype == torch.float32 else dtype
        self.exp_avg = {name: torch.zeros_like(p, dtype=kept_as) for name, p in self.params.items()}
        self.exp_avg_sq = {name: torch.zeros_like(p, dtype=kept_as) for name, p in self.params.items()}
        self._init_seed = init_seed
        self.lr = LearningRate.of(run)
        self._ramps = ramps_of(run)
        self.control = (
            None
            if control is None
            else SparsityControl(control, float(getattr(run.sae, control.field)), self.lr, device)
        )
        annealing = PAnnealingPlan.of(run)
        self.annealing = None if annealing is None else PAnnealing(annealing, device)
        self._resample_steps = run.to_steps(getattr(run.sae, "resample_steps", Duration(0)))
        self.step = 0
        self.total_steps = run.total_steps
        assert run.sae.d_sae is not None
        self.firing = FiringStatistics(
            run.sae.d_sae,
            sampling_window_steps=max(1, run.to_steps(run.feature_sampling_window)),
            device=device,
        )
        self.loss_window_steps = max(1, run.to_steps(run.dead_feature_window))
        """A latent that has not fired for more steps counts as dead in auxiliary losses."""
        self._reported_window_steps = min(self.loss_window_steps, max(1, run.total_steps // 4))
        # How long latents were silent when that was last read, and at which step.
        self._longest_silence, self._silence_read_at = 0, 0
        self.block_losses: dict[str, Tensor] = {}
        self.block_steps = 0
        self.is_finite = torch.ones((), dtype=torch.bool, device=device)
        """False once a loss was NaN or infinite; read once per block."""

    @property
    def tokens(self) -> int:
        """Tokens this trial has trained on."""
        return self.step * self.run.train_batch_size_tokens

    def wide_moments(self) -> WideMoments:
        """Return Adam's moments for the next step, in the type of the weights."""
        return WideMoments(self.params, self.exp_avg, self.exp_avg_sq, seed=self._init_seed, step=self.step)

    @property
    def is_done(self) -> bool:
        """The trial has had all its steps."""
        return self.step >= self.total_steps

    def knobs_at(self, step: int) -> Knobs:
        """Return the coefficients and k of a step, counted from 0, with the steered coefficient as it is now."""
        knobs = Knobs(**{field: ramp.at(step) for field, ramp in self._ramps.items()})
        knobs = knobs if self.control is None else self.control.applied(knobs)
        return knobs if self.annealing is None else self.annealing.applied(knobs)

    def k_at(self, step: int) -> float:
        """Return the k of a step, counted from 0; topk family only."""
        return self._ramps["k"].at(step)

    def align_(self) -> None:
        """Bring weights to where aligned training allows them; nothing to do without it."""
        if self.is_aligned:
            align_(self.params)

    def resample_dead_(self, x_BD: Tensor) -> None:
        """Give silent latents new weights after a step where `resample_steps` says so, from the batch of that step."""
        if self._resample_steps and self.step and self.step % self._resample_steps == 0:
            # Keyed by the step: a resumed run draws alike.
            generator = torch.Generator().manual_seed((self._init_seed * 1_000_003 + self.step) % (1 << 63))
            silent_F = self.firing.steps_since_fired_F > self._resample_steps / 2
            moments = (self.exp_avg, self.exp_avg_sq)
            resample_(self.architecture, self.params, moments, x_BD, silent_F, generator)

    def dead_for_loss_F(self) -> Tensor | None:
        """Return the latents that the auxiliary losses count as dead, [F] bool: those of `dead_feature_window`; None without any.

        The device is asked only where a loss depends on them and a latent can have been silent for so long.

        The window is not shortened for short runs: measured on 122 steps, an auxiliary loss that starts a quarter into
        the run costs more explained variance (0.869 -> 0.856 for batchtopk) than the latents it revives are worth.
        """
        # No silence has grown by more than the steps since it was read.
        longest = self._longest_silence + self.step - self._silence_read_at
        if not self.architecture.reads_dead or longest <= self.loss_window_steps:
            return None
        dead_F = self.firing.silent_F(self.loss_window_steps)
        return dead_F if bool(dead_F.any()) else None

    def dead_F(self) -> Tensor:
        """Return the latents reported as dead, [F] bool: silent for `dead_window_tokens`."""
        return self.firing.silent_F(self._reported_window_steps)

    @property
    def dead_window_tokens(self) -> int:
        """The window of the reported dead latents: at most a quarter of the run, or short trials would never reach it."""
        return self._reported_window_steps * self.run.train_batch_size_tokens

    def mean_losses(self) -> dict[str, float]:
        """Return each loss term, averaged over the block so far."""
        return {name: float(total) / max(1, self.block_steps) for name, total in self.block_losses.items()}

    def begin_block(self) -> None:
        """Forget the loss sums of the block before, and ask the device once how long latents are silent."""
        self._read_silence()
        self.block_losses = {}
        self.block_steps = 0
        if self.control is not None:
            self.control.block_points = []

    def _read_silence(self) -> None:
        self._longest_silence, self._silence_read_at = self.firing.longest_silence(), self.step

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of a checkpoint by name; W_enc row per latent, as it lies in memory."""
        found = {f"firing/{name}": t for name, t in self.firing.tensors().items()}
        for kind, group in (("params", self.params), ("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            for name, tensor in group.items():
                found[f"{kind}/{name}"] = tensor if tensor.is_contiguous() else tensor.t()
        return found

    def meta(self) -> dict[str, Any]:
        """Return the JSON part of a checkpoint."""
        return {
            "trial": self.trial,
            "step": self.step,
            "joined_at_tokens": self.joined_at_tokens,
            "firing_tokens": self.firing.tokens,
            "firing_steps_in_window": self.firing.steps_in_window,
            "control": None if self.control is None else self.control.state(),
            "annealing": None if self.annealing is None else self.annealing.state(),
        }

    def load(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Restore the state that `tensors` and `meta` returned."""
        for kind, group in (("params", self.params), ("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
            for name, tensor in group.items():
                (tensor if tensor.is_contiguous() else tensor.t()).copy_(tensors[f"{kind}/{name}"])
        self.firing.load(
            {name: tensors[f"firing/{name}"] for name in self.firing.tensors()},
            tokens=meta["firing_tokens"],
            steps_in_window=meta["firing_steps_in_window"],
        )
        if self.control is not None:
            self.control.load(meta["control"])
        if self.annealing is not None:
            self.annealing.load(meta["annealing"], self.params["W_dec"].dtype)
        self.step = meta["step"]
        self._read_silence()


def check_parameters(spec: SAESpec, params: Mapping[str, Tensor]) -> None:
    """Check that memory was planned for the weights that an architecture makes.

    Raises:
        UserError: Its spec counts others: a plug-in's does not say what it adds.
    """
    made, planned = sum(weight.numel() for weight in params.values()), spec.n_parameters()
    if made != planned:
        raise UserError(
            f"sae.architecture {spec.architecture}: `init` makes {made} weights, but memory was planned for {planned}; "
            f"override `n_parameters` (or `vectors_per_latent`) of {type(spec).__name__} so that it counts them"
        )
