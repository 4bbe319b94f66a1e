"""What every SAE architecture shares in training: parameters, the forward template, export; and the registry."""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE
from saesweep.saes.folding import exported_cfg, exported_tensors, fold_layer_scales, fold_scale, fold_whitening
from saesweep.saes.normalize import Normalizer, Undo, normalise_tokens
from saesweep.specs.architectures import SAESpec

Params = dict[str, torch.Tensor]
"""Trainable tensors in SAELens' names and shapes. `W_enc` [D, F] is the transposed view of a contiguous [F, D] tensor."""

SpecT = TypeVar("SpecT", bound=SAESpec)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The scalars of one trial at one step, after warm-up and annealing. An architecture reads those that it has."""

    l1_coefficient: float = 0.0
    """Weight of the sparsity penalty (standard, gated)."""
    l0_coefficient: float = 0.0
    """Weight of the sparsity loss (jumprelu)."""
    k: float = 0.0
    """Active latents per token (topk family; for batchtopk types on average)."""
    lp_norm: float | None = None
    """The p of the standard penalty while it is annealed; None: the spec's."""
    next_lp_norm: float | None = None
    """The p that comes after it, under which the penalty is observed too; None: it is not."""

    @classmethod
    def from_spec(cls, spec: SAESpec) -> Knobs:
        """Return the values at full strength, as after every warm-up."""
        return cls(**{name: float(getattr(spec, name, 0.0)) for name in ("l1_coefficient", "l0_coefficient", "k")})


@dataclass
class TrainOutput:
    """What one training forward pass returns."""

    loss: Tensor
    """Scalar: the sum of `losses`."""
    losses: dict[str, Tensor]
    """Scalar loss terms in SAELens' names, already weighted; `mse_loss` first."""
    recon_BD: Tensor
    """Reconstruction in the space of the batch."""
    feature_acts_BF: Tensor
    """Latents of the training form."""
    observed: Tensor | None = None
    """What `observations` returned."""


@dataclass(frozen=True, kw_only=True)
class ForwardState:
    """Everything a loss term may need."""

    params: Params
    x_BD: Tensor
    """The batch: input of the SAE."""
    target_BD: Tensor
    """What is reconstructed by latents: the batch again; of a transcoder the other hook's, less its skip connection."""
    hidden_pre_BF: Tensor
    """Pre-activations, as `encode_parts` returns them."""
    feature_acts_BF: Tensor
    recon_BD: Tensor
    undo: Undo
    """Maps a reconstruction in the normalised space back to that of `x_BD`."""
    knobs: Knobs
    dead_F: Tensor | None
    """True where a latent counts as dead; None: unknown, so none."""


class Architecture(Generic[SpecT]):
    """The reference implementation of one architecture: plain, differentiable by autograd, in any float type.

    Stateless: it holds the configuration and no tensors. A subclass gives `init`, `encode_parts` and, where they differ
    from the plain ones, `decode`, `penalties`, `constrain_` and the folding hooks. Batches come scaled by the run's
    `Normalizer`; `layer_norm` and `constant_norm_rescale` happen in here.

    Raises:
        ValueError: The spec has no widths yet (`SAESpec.resolve_widths`).
        UserError: The spec's options contradict each other.
    """

    n_layers: int = 1
    """Hooks whose activations stand side by side in what it reads: one but for crosscoders."""
    needs_threshold: ClassVar[bool] = False
    """Whether the exported form needs a calibrated threshold (the batchtopk types)."""

    def __init__(self, spec: SpecT) -> None:
        if spec.d_in is None or spec.d_sae is None:
            raise ValueError("the spec has no d_in or d_sae; call resolve_widths first")
        if problems := spec.problems():
            raise UserError("\n".join(f"sae.{field}: {message}" for field, message in problems))
        self.spec = spec
        self.d_in: int = spec.d_in
        self.d_out: int = spec.d_in
        """Width of what is reconstructed."""
        self.d_sae: int = spec.d_sae

    @property
    def reads_dead(self) -> bool:
        """Whether a loss term may depend on which latents are dead."""
        return True

    # ---------------------------------------------------------------- to be given by an architecture

    def init(
        self,
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Params:
        """Return fresh parameters, drawn from `generator` (a CPU one, so that a seed means the same on every device)."""
        raise NotImplementedError

    def encode_parts(self, params: Params, x_BD: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor]:
        """Return (feature_acts_BF, hidden_pre_BF) of inputs that are normalised and centred already."""
        raise NotImplementedError

    def decode(self, params: Params, feature_acts_BF: Tensor) -> Tensor:
        """Return the reconstruction [B, D] in the normalised space."""
        return feature_acts_BF @ params["W_dec"] + params["b_dec"]

    def reconstruction_loss(self, state: ForwardState) -> Tensor:
        """Return `mse_loss`, a scalar: the squared error of the reconstruction."""
        return squared_error(state.recon_BD, state.target_BD)

    def penalties(self, state: ForwardState) -> dict[str, Tensor]:
        """Return the loss terms besides `mse_loss`: weighted scalars by SAELens' names."""
        raise NotImplementedError

    def observations(self, state: ForwardState) -> Tensor | None:
        """Return what a schedule looks at besides the losses, without gradient; None: nothing."""
        return None

    @torch.no_grad()
    def constrain_(self, params: Params) -> None:
        """Project parameters back to where they are allowed, in place, after an optimiser step."""

    def pre_acts_for_threshold(self, params: Params, x_BD: Tensor) -> Tensor:
        """Return the non-negative quantity [B, F] that the exported threshold applies to; batchtopk types only."""
        raise TypeError(f"{self.spec.architecture} is exported without a calibrated threshold")

    def fold(self, tensors: Params, normalizer: Normalizer, threshold: float | None) -> tuple[Params, dict[str, Any]]:
        """Fold the normalisation into a copy of the weights.

        Returns:
            The tensors of the exported form, and the fields of `cfg.json` beyond the common ones.
        """
        if normalizer.scale is not None:
            tensors = fold_scale(tensors, normalizer.scale, normalizer.of_target.scale)
        if normalizer.layer_scales is not None:
            tensors = fold_layer_scales(tensors, normalizer.layer_scales)
        if normalizer.whitening is not None:
            centred, target = self.spec.apply_b_dec_to_input, normalizer.of_target.whitening
            tensors = fold_whitening(tensors, normalizer.whitening, centred=centred, target=target)
        return tensors, {}

    def decoder_norms(self, W_dec_FD: Tensor) -> Tensor:
        """Return by how much each latent's activation is weighed [F], in penalties and in selection: `|d|`."""
        norm_F: Tensor = torch.linalg.vector_norm(W_dec_FD, dim=-1)
        return norm_F

    def skip(self, params: Params, x_BD: Tensor) -> Tensor | None:
        """Return what is added to the reconstruction besides latents [B, D], from normalised input; None: nothing."""
        return None

    # ---------------------------------------------------------------- the same for all

    def forward(
        self,
        params: Params,
        x_BD: Tensor,
        knobs: Knobs,
        dead_F: Tensor | None = None,
        target_BD: Tensor | None = None,
    ) -> TrainOutput:
        """Run one training forward pass.

        Args:
            params: As `init` returns them.
            x_BD: Activations after the run's `Normalizer`.
            knobs: This step's coefficients and k.
            dead_F: Boolean, True for dead latents; None or no True: the losses on dead latents are 0.
            target_BD: What a transcoder reconstructs, [B, d_out] after its `Normalizer`; `x_BD` when left out.
        """
        x_BD = x_BD.to(params["W_dec"].dtype)
        target_BD = x_BD if target_BD is None else target_BD.to(params["W_dec"].dtype)
        normalised_BD, undo = normalise_tokens(self.spec.normalize_activations, x_BD)
        acts_BF, hidden_BF = self.encode_parts(params, self.centre(params, normalised_BD), knobs)
        recon_BD = undo(self.decode(params, acts_BF))
        skip_BD = self.skip(params, normalised_BD)
        if skip_BD is not None:  # latents reconstruct what the skip connection leaves
            target_BD = target_BD - skip_BD
        state = ForwardState(
            params=params,
            x_BD=x_BD,
            target_BD=target_BD,
            hidden_pre_BF=hidden_BF,
            feature_acts_BF=acts_BF,
            recon_BD=recon_BD,
            undo=undo,
            knobs=knobs,
            dead_F=dead_F,
        )
        losses = {"mse_loss": self.reconstruction_loss(state), **self.penalties(state)}
        loss = torch.stack(list(losses.values())).sum()
        recon_BD = recon_BD if skip_BD is None else recon_BD + skip_BD
        return TrainOutput(loss, losses, recon_BD, acts_BF, self.observations(state))

    def encode(self, params: Params, x_BD: Tensor, knobs: Knobs | None = None) -> Tensor:
        """Return the training form's latents [B, F]; `knobs` default to the spec's values at full strength."""
        knobs = knobs if knobs is not None else Knobs.from_spec(self.spec)
        return self.encode_parts(params, self.encoder_input(params, x_BD), knobs)[0]

    def encoder_input(self, params: Params, x_BD: Tensor) -> Tensor:
        """Return what the encoder multiplies: `norm_in(x) - b_dec * apply_b_dec_to_input`, [B, D]."""
        normalised_BD, _ = normalise_tokens(self.spec.normalize_activations, x_BD.to(params["W_dec"].dtype))
        return self.centre(params, normalised_BD)

    def centre(self, params: Params, x_BD: Tensor) -> Tensor:
        """Subtract the decoder bias where `apply_b_dec_to_input` asks for it."""
        return x_BD - params["b_dec"] if self.spec.apply_b_dec_to_input else x_BD

    @torch.no_grad()
    def export(self, params: Params, normalizer: Normalizer, threshold: float | None = None) -> ExportedSAE:
        """Return the published form, which works on raw activations.

        It has the active set of the training form, and its reconstruction un-scaled. Its latents are the same too, except
        that they are divided by the scale for families whose activations are multiplied by decoder norms.

        Args:
            params: Trained parameters.
            normalizer: The one that scaled the training batches.
            threshold: From `calibrate_threshold`, in units of `pre_acts_for_threshold`; for batchtopk types only.

        Raises:
            ValueError: A batchtopk type without a threshold, a threshold for another type, a normalizer of another mode, or
                weights that are not finite.
        """
        if self.needs_threshold and threshold is None:
            raise ValueError(f"{self.spec.architecture} is exported as jumprelu and needs a calibrated threshold")
        if not self.needs_threshold and threshold is not None:
            raise ValueError(f"{self.spec.architecture} takes no threshold, got {threshold}")
        if (normalizer.target is None) == self.spec.is_transcoder:
            raise ValueError("a transcoder, and no SAE, needs the normalizer of its target")
        if normalizer.mode != self.spec.normalize_activations:
            raise ValueError(
                f"normalizer of mode {normalizer.mode} for an SAE trained with {self.spec.normalize_activations}"
            )
        if bad := [name for name, tensor in params.items() if not bool(torch.isfinite(tensor).all())]:
            raise ValueError(f"weights are not finite: {', '.join(bad)}")
        # At least fp32, whatever the exported dtype: several factors are multiplied in.
        masters = {k: v.detach().to(torch.promote_types(v.dtype, torch.float32)) for k, v in params.items()}
        tensors, fields = self.fold(masters, normalizer, threshold)
        return ExportedSAE(
            self.spec.saved_as, exported_cfg(self.spec, fields), exported_tensors(tensors, self.spec.dtype)
        )

    def init_dictionary(self, generator: torch.Generator, *, dtype: torch.dtype, device: torch.device | str) -> Params:
        """Return `W_enc`, `W_dec`, `b_dec` as SAELens initialises them.

        `W_dec` is Kaiming-uniform, with every row rescaled to `decoder_init_norm` where that is set; `W_enc` is a copy
        of its transpose.
        """
        bound = (
            6 / self.d_in
        ) ** 0.5  # of kaiming_uniform_ on (F, D); the drawn float32 values are the same for any dtype
        W_dec_FD = torch.empty(self.d_sae, self.d_in).uniform_(-bound, bound, generator=generator)
        if self.spec.decoder_init_norm is not None:
            W_dec_FD *= self.spec.decoder_init_norm / W_dec_FD.norm(dim=-1, keepdim=True)
        W_dec_FD = W_dec_FD.to(device=device, dtype=dtype)
        return {
            "W_enc": W_dec_FD.clone().t(),
            "W_dec": W_dec_FD,
            "b_dec": torch.zeros(self.d_in, dtype=dtype, device=device),
        }


def squared_error(recon_BD: Tensor, target_BD: Tensor) -> Tensor:
    """Return the scalar `E sum_D (recon - target)^2`: summed over the width, averaged over tokens."""
    return (recon_BD - target_BD).pow(2).sum(dim=-1).mean()


_IMPLEMENTATIONS: dict[str, type[Architecture[Any]]] = {}
_ArchitectureT = TypeVar("_ArchitectureT", bound=type[Architecture[Any]])


def register_architecture(name: str) -> Callable[[_ArchitectureT], _ArchitectureT]:
    """Class decorator: train specs whose `architecture` is `name` with this implementation.

    With `specs.architectures.register_spec` it adds an architecture from one file, outside this package.
    """

    def add(cls: _ArchitectureT) -> _ArchitectureT:
        known = _IMPLEMENTATIONS.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"an implementation of {name!r} is registered already, by {known.__module__}")
        _IMPLEMENTATIONS[name] = cls
        return cls

    return add


def architecture_for(spec: SAESpec) -> Architecture[Any]:
    """Return the implementation of a spec whose widths are resolved.

    Raises:
        UserError: Its architecture has a configuration but no registered implementation, or its options contradict each other.
        ValueError: `d_in` or `d_sae` is not filled in.
    """
    if spec.architecture not in _IMPLEMENTATIONS:
        raise UserError(
            f"sae.architecture: {spec.architecture!r} has no registered implementation (known: {', '.join(_IMPLEMENTATIONS)}); "
            "import the module that defines it"
        )
    return _IMPLEMENTATIONS[spec.architecture](spec)
