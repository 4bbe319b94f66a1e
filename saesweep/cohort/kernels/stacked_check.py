"""Whether stacked steps compute the same here as the plain ones, to the bit whoever is stacked with whom, and whether they are faster.

Shape suffixes: N = SAEs, B = tokens of the batch, F = d_sae, D = d_in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from saesweep.cohort.alignment import align_gradients_
from saesweep.cohort.kernels.choice import KernelChoice, Stacked
from saesweep.cohort.kernels.engine import SparseEngine
from saesweep.cohort.kernels.stacked import StackedGradients, stacked_step, sums_of_squares
from saesweep.cohort.kernels.stacked_select import StackShape, width_for
from saesweep.cohort.kernels.timer import CLEARLY, Timer
from saesweep.cohort.optimizer import MAX_GRAD_NORM, adam_step_
from saesweep.cohort.stacked_adam import AdamScalars, stacked_adam_step_
from saesweep.saes import Knobs, Params, architecture_for
from saesweep.specs.architectures import TopKSpec

STACKED: tuple[Stacked, ...] = tuple(kind for kind in get_args(Stacked) if kind != "no")
"""The ways to stack, those first that start fewer operators."""
_TOKENS, _K = 512, 32
_TIMED_SAES, _TIMED_TOKENS = 8, 4096
_MAX_WEIGHTS = 1 << 24
"""Bound of a check's cost: wider SAEs are checked with fewer latents."""


class Sample:
    """Random SAEs and a batch, for checks and clocks.

    Args:
        n_saes: How many SAEs.
        d_in: Width of the activations.
        d_sae: Number of latents; fewer are taken where they are many.
        device: Where to train.
        n_tokens: Size of the batch.
    """

    def __init__(
        self, n_saes: int, d_in: int, d_sae: int, *, device: torch.device | str, n_tokens: int = _TOKENS
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int, scale: float) -> Tensor:
            return (torch.randn(*shape, generator=generator) * scale).to(device)

        d_sae = max(64, min(d_sae, _MAX_WEIGHTS // d_in))
        k = max(1, min(_K, d_sae // 8))
        self.params: Params = {
            "W_enc": drawn(n_saes, d_sae, d_in, scale=d_in**-0.5),
            "W_dec": drawn(n_saes, d_sae, d_in, scale=d_in**-0.5),
            "b_dec": drawn(n_saes, d_in, scale=0.1),
            "b_enc": drawn(n_saes, d_sae, scale=0.1),
        }
        self.x_BD = drawn(n_tokens, d_in, scale=1.0)
        # Every SAE has another k and other dead latents: what pads one of them must not reach it.
        self.k_N = torch.tensor([float(max(1, k - index % 3)) for index in range(n_saes)], device=device)
        self.dead_NF = (torch.rand(n_saes, d_sae, generator=generator) < 0.1).to(device)
        self.dead_NF[0] = False
        self._width = min(width_for(k), d_sae)

    def step(
        self, choice: KernelChoice, members: list[int], *, reads_dead: bool, of_batch: bool = False
    ) -> StackedGradients:
        """Return a step of some of the SAEs, stacked in that order."""
        everyone = members == list(range(len(self.k_N)))
        params = self.params if everyone else {name: weight[members] for name, weight in self.params.items()}
        shape = StackShape(self._width, of_batch, (), is_centred=True, is_rescaled=True, reads_dead=reads_dead)
        k_N, dead_NF = self.k_N[members] * (len(self.x_BD) if of_batch else 1), self.dead_NF[members]
        return stacked_step(shape, params, self.x_BD, k_N, torch.ones_like(k_N), dead_NF, choice)


def keeps_bits(choice: KernelChoice, d_in: int, d_sae: int, *, device: torch.device | str) -> bool:
    """Return whether an SAE's losses, gradients and their norms are the same to the bit alone, among others, and in another place."""
    sample = Sample(5, d_in, d_sae, device=device)
    for of_batch, reads_dead in ((False, False), (False, True), (True, True)):

        def stacked(members: list[int], of_batch: bool = of_batch, reads_dead: bool = reads_dead) -> dict[str, Tensor]:
            result = sample.step(choice, members, of_batch=of_batch, reads_dead=reads_dead)
            return _tensors(result, {name: weight[members] for name, weight in sample.params.items()})

        alone = [stacked([index]) for index in range(len(sample.k_N))]
        for members in ([1, 0], [4, 2, 0, 1, 3]):
            for name, value in stacked(members).items():
                if not all(torch.equal(value[place], alone[index][name][0]) for place, index in enumerate(members)):
                    return False
    return True


def fastest_stacked(timer: Timer, choice: KernelChoice, d_in: int, d_sae: int) -> Stacked:
    """Return how eight topk SAEs with dead latents take a step clearly faster than one after another, if they do.

    Never on a CPU, where stacks were slower but for small steps without dead latents (docs/performance-log.md).
    """
    if timer.device.type == "cpu":
        return "no"
    try:
        kinds = [
            kind for kind in STACKED if keeps_bits(replace(choice, stacked=kind), d_in, d_sae, device=timer.device)
        ]
        if not kinds:
            return "no"
        sample = Sample(_TIMED_SAES, d_in, d_sae, device=timer.device, n_tokens=_TIMED_TOKENS)
        seconds = timer.seconds({kind: taking_a_step(replace(choice, stacked=kind), sample) for kind in ("no", *kinds)})
    except torch.OutOfMemoryError:  # of a GPU with little memory left
        return "no"
    best = min(kinds, key=lambda kind: seconds.get(kind, float("inf")))
    return best if seconds.get(best, float("inf")) < CLEARLY * seconds.get("no", 0.0) else "no"


def taking_a_step(choice: KernelChoice, sample: Sample) -> Callable[[], None]:
    """Return what takes a first training step of a sample's SAEs: stacked or one after another, as the choice says."""
    n_saes, d_sae, d_in = sample.params["W_dec"].shape
    knobs = [Knobs(k=k) for k in sample.k_N.tolist()]
    architecture, engine = architecture_for(TopKSpec(d_in=d_in, d_sae=d_sae, k=int(knobs[0].k))), SparseEngine(choice)
    first, second = ({name: torch.zeros_like(w) for name, w in sample.params.items()} for _ in range(2))
    lr, beta1, beta2 = 1e-4, 0.9, 0.999
    scalars = AdamScalars(*(sample.k_N.new_full((n_saes,), one) for one in AdamScalars.of_step(1, lr, beta1, beta2)))

    def stacked() -> None:
        result = sample.step(choice, list(range(n_saes)), reads_dead=True)
        stacked_adam_step_(sample.params, first, second, result.grads, scalars, max_grad_norm=MAX_GRAD_NORM)

    def one_after_another() -> None:
        for index in range(n_saes):
            params, m, v = (
                {name: weight[index].t() if name == "W_enc" else weight[index] for name, weight in tensors.items()}
                for tensors in (sample.params, first, second)
            )
            grads = engine.step(architecture, params, sample.x_BD, knobs[index], sample.dead_NF[index]).grads
            adam_step_(params, m, v, grads, step=1, lr=lr, beta1=beta1, beta2=beta2, max_grad_norm=MAX_GRAD_NORM)

    return one_after_another if choice.stacked == "no" else stacked


def _tensors(result: StackedGradients, params: Params) -> dict[str, Tensor]:
    norms = {f"norm of {name}": sums_of_squares(grad) for name, grad in result.grads.items()}
    grads = {name: grad.clone() for name, grad in result.grads.items()}
    align_gradients_(params, grads)
    aligned = {f"aligned {name}": grads[name] for name in ("W_enc", "W_dec")}
    return {**result.losses, **result.grads, **norms, **aligned, "firing": result.firing_NF}
