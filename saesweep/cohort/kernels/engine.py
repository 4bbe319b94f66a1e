"""The exact sparse gradient engine: same gradients as autograd through the reference, without the dense products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saesweep.cohort.engine import StepGradients
from saesweep.cohort.kernels.choice import KernelChoice
from saesweep.cohort.kernels.frame import Frame
from saesweep.cohort.kernels.gated import gated_step
from saesweep.cohort.kernels.jumprelu import jumprelu_step
from saesweep.cohort.kernels.scratch import Scratch
from saesweep.cohort.kernels.standard import standard_step
from saesweep.cohort.kernels.topk import topk_step
from saesweep.saes import Architecture, Knobs, Params
from saesweep.saes.batchtopk import BatchTopK
from saesweep.saes.crosscoder import CROSSCODER_TRAINED_AS
from saesweep.saes.gated import Gated
from saesweep.saes.jumprelu import JumpReLUArchitecture
from saesweep.saes.matryoshka import MatryoshkaBatchTopK
from saesweep.saes.normalize import RUNTIME_MODES
from saesweep.saes.standard import Standard
from saesweep.saes.topk import TopK
from saesweep.saes.transcoder import TRAINED_AS
from saesweep.specs.architectures import TopKFamilySpec

# By exact class: a subclass may compute something else.
_OF_SAES: dict[type[Any], Callable[[Frame, Any], StepGradients]] = {
    TopK: topk_step,
    BatchTopK: topk_step,
    MatryoshkaBatchTopK: topk_step,
    Standard: standard_step,
    Gated: gated_step,
    JumpReLUArchitecture: jumprelu_step,
}
_STEPS = {**_OF_SAES, **{cls: _OF_SAES[sae] for cls, sae in (TRAINED_AS | CROSSCODER_TRAINED_AS).items()}}


def step_of(architecture: Architecture[Any]) -> Callable[[Frame, Any], StepGradients]:
    """Return the step of an architecture that `SparseEngine` supports."""
    return _STEPS[type(architecture)]


class SparseEngine:
    """Computes only active (token, latent) pairs after the encoder; a `GradientEngine`.

    One engine serves all slots of a cohort, in turn: they share its scratch, so results hold until the next `step`.

    Args:
        choice: Settings found by `choose`, or the defaults. They change the speed and the last bits alone.
        autocast: Whether the run asks for bf16 autocast, which this engine does not do.
        topk_with_autocast: It then takes the topk family all the same, which it trains faster in fp32.
    """

    def __init__(
        self, choice: KernelChoice | None = None, *, autocast: bool = False, topk_with_autocast: bool = True
    ) -> None:
        self.choice = choice if choice is not None else KernelChoice()
        self._autocast, self._topk_with_autocast = autocast, topk_with_autocast
        self._scratch = Scratch()

    def supports(self, architecture: Architecture[Any]) -> str | None:
        """Return None where this engine is exact for the architecture, else the reason why it is not."""
        spec = architecture.spec
        if type(architecture) not in _STEPS:
            return (
                f"there is no sparse kernel for architecture {spec.architecture!r} ({type(architecture).__qualname__})"
            )
        # The topk family is faster here than with bf16 products, and loses nothing by it (docs/performance.md).
        keeps = self._topk_with_autocast and isinstance(spec, TopKFamilySpec)
        if self._autocast and not keeps:
            return "the sparse kernels do not compute in bf16 (autocast: true)"
        if spec.normalize_activations in RUNTIME_MODES:
            return (
                f"the sparse kernels do not differentiate through normalize_activations: {spec.normalize_activations}"
            )
        if getattr(spec, "jumprelu_frequency_scale", None) is not None:
            return (
                "the sparse kernels do not compute jumprelu_frequency_scale, whose gradient needs the whole batch first"
            )
        if getattr(spec, "temporal_coefficient", 0.0) > 0:
            return "the sparse kernels do not compute the loss of temporal_coefficient, which compares tokens with each other"
        if getattr(spec, "lp_norm", 1.0) == float("inf"):
            return "the sparse kernels have no gradient for lp_norm: .inf"
        return None

    @torch.no_grad()
    def step(
        self,
        architecture: Architecture[Any],
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        dead_F: Tensor | None,
        target_BD: Tensor | None = None,
    ) -> StepGradients:
        """See `GradientEngine.step`.

        Raises:
            ValueError: `supports` gives a reason why not, or `W_enc` lies in memory as [D, F].
        """
        if reason := self.supports(architecture):
            raise ValueError(reason)
        frame = Frame(architecture, params, x_BD, knobs, dead_F, self._scratch, self.choice, target_BD)
        return step_of(architecture)(frame, architecture.spec)

    def scratch_bytes(self) -> int:
        """Return the scratch memory held now, shared by all slots."""
        return self._scratch.bytes()
