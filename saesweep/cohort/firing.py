"""When each latent last fired, and how often: the statistics behind dead latents and `sparsity.safetensors`.

Shape suffixes: F = d_sae.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FiringStatistics:
    """Firing history of one SAE's latents, on the training device.

    Args:
        d_sae: Number of latents.
        sampling_window_steps: Frequencies cover the current window of this length and the one before it.
        device: Where the counters live.
    """

    def __init__(self, d_sae: int, *, sampling_window_steps: int, device: torch.device | str) -> None:
        self._sampling_window_steps = sampling_window_steps
        self.steps_since_fired_F = torch.zeros(d_sae, dtype=torch.int64, device=device)
        # Row 0: the current window; row 1: the one before, so that an export just after a turn has counts too.
        self.counts_2F = torch.zeros(2, d_sae, dtype=torch.int64, device=device)
        self.tokens = [0, 0]
        self.steps_in_window = 0

    def update(self, firing_F: Tensor, n_tokens: int) -> None:
        """Record one step in which latent i fired at `firing_F[i]` of `n_tokens` tokens."""
        self.steps_since_fired_F += 1
        self.steps_since_fired_F.masked_fill_(firing_F > 0, 0)
        self.begin_step(n_tokens)
        self.counts_2F[0] += firing_F

    def begin_step(self, n_tokens: int) -> None:
        """Count one step's tokens, in a new window where one is due; the firing counts are added by the caller."""
        if self.steps_in_window == self._sampling_window_steps:
            self.counts_2F[1].copy_(self.counts_2F[0])
            self.counts_2F[0].zero_()
            self.tokens = [0, self.tokens[0]]
            self.steps_in_window = 0
        self.tokens[0] += n_tokens
        self.steps_in_window += 1

    def longest_silence(self) -> int:
        """Return for how many steps the latent that is silent for longest has not fired: waits for the device."""
        return int(self.steps_since_fired_F.max())

    def silent_F(self, window_steps: int) -> Tensor:
        """Return True for each latent that has not fired for more than `window_steps` steps, [F] bool."""
        return self.steps_since_fired_F > window_steps

    def frequency_F(self) -> Tensor:
        """Return the share of tokens at which each latent fired, float64 [F]."""
        return self.counts_2F.sum(0).double() / max(1, sum(self.tokens))

    def tensors(self) -> dict[str, Tensor]:
        """Return the counters for a checkpoint."""
        return {"steps_since_fired": self.steps_since_fired_F, "counts": self.counts_2F}

    def load(self, tensors: dict[str, Tensor], *, tokens: list[int], steps_in_window: int) -> None:
        """Restore the counters of a checkpoint."""
        self.steps_since_fired_F.copy_(tensors["steps_since_fired"])
        self.counts_2F.copy_(tensors["counts"])
        self.tokens = list(tokens)
        self.steps_in_window = steps_in_window
