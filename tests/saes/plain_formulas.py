"""The losses once more, straight from their definitions: masks instead of scatters, `detach` instead of custom gradients.

Shares no code with the package beyond its configuration classes.
"""

# Shape suffix legend:  B = tokens in a batch, D = d_in, F = d_sae

import itertools
from typing import Any

import torch
from torch import Tensor

from saesweep.saes import Knobs, Normalizer, Params, architecture_for
from saesweep.specs.architectures import SAESpec, spec_class

D_IN, D_OUT, D_SAE, BATCH = 12, 10, 40, 64
N_LAYERS = 3
"""Hooks that crosscoders read, in equal parts of D_IN."""


def make_spec(architecture: str, **options: Any) -> SAESpec:
    """A small spec with widths; topk types get k 5 unless told otherwise."""
    if "topk" in architecture:
        options = {"k": 5.0 if "batchtopk" in architecture else 5, **options}
    if architecture == "multi_k":
        options = {"ks": (1, 2, 5), **options}
    if architecture == "matching_pursuit":
        options = {"max_iterations": 6, **options}
    if architecture.endswith("transcoder"):
        options = {"d_out": D_OUT, **options}
    if architecture.endswith("crosscoder"):
        options = {"n_layers": N_LAYERS, **options}
    if architecture.startswith("matryoshka_batchtopk"):
        options = {"matryoshka_widths": (6, 16), **options}
    return spec_class(architecture)(d_in=D_IN, d_sae=D_SAE, **options)


def make_params(spec: SAESpec, seed: int = 0, dtype: torch.dtype = torch.float64) -> Params:
    """Parameters away from their symmetric start; the same values, exactly representable in float32, for any dtype."""
    generator = torch.Generator().manual_seed(seed)
    params = architecture_for(spec).init(generator)
    for name, tensor in params.items():
        if name == "threshold":
            tensor.copy_(0.05 + 0.2 * torch.rand(D_SAE, generator=generator))
        else:
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    return {name: tensor.to(dtype) for name, tensor in params.items()}


def make_batch(seed: int = 1, dtype: torch.dtype = torch.float64, rows: int = BATCH) -> Tensor:
    """Activations with a mean, [rows, D_IN]; float32-representable values."""
    return (torch.randn(rows, D_IN, generator=torch.Generator().manual_seed(seed)) + 0.4).to(dtype)


def make_dead(share: float, seed: int = 2) -> Tensor:
    """A random mask of dead latents, [D_SAE]."""
    return torch.rand(D_SAE, generator=torch.Generator().manual_seed(seed)) < share


def plain_losses(
    spec: Any, p: Params, x: Tensor, knobs: Knobs, dead: Tensor, y: Tensor | None = None
) -> dict[str, Tensor]:
    """Every loss term by name, of an SAE, of a crosscoder, or of a transcoder that reconstructs `y`."""
    name = getattr(spec, "trained_as", spec.architecture)
    y = x if y is None else y
    if "W_skip" in p:
        y = y - torch.einsum("bd,od->bo", x, p["W_skip"])
    n_layers = getattr(spec, "n_layers", 1)
    norm_F = torch.stack([(part**2).sum(1) ** 0.5 for part in p["W_dec"].chunk(n_layers, dim=1)]).sum(0)
    z, undo = _normalise(spec.normalize_activations, x)
    shift = p["b_dec"] if spec.apply_b_dec_to_input else torch.zeros_like(x[0])
    z = z - shift

    if name == "gated":
        on = ((z @ p["W_enc"] + p["b_gate"]) > 0).double()
        strength = z @ p["W_enc"] * torch.exp(p["r_mag"]) + p["b_mag"]
        f = on * strength * (strength > 0)
        pi = (x - shift) @ p["W_enc"] + p["b_gate"]  # of the raw batch, as SAELens has it
        pi = pi * (pi > 0)
        W_dec, b_dec = (
            (p["W_dec"].detach(), p["b_dec"].detach()) if spec.detach_aux_decoder else (p["W_dec"], p["b_dec"])
        )
        return {
            "mse_loss": _mse(undo(f @ p["W_dec"] + p["b_dec"]), y),
            "l1_loss": knobs.l1_coefficient * (pi @ norm_F).mean(),
            "auxiliary_reconstruction_loss": _mse(pi @ W_dec + b_dec, y.detach() if spec.detach_aux_decoder else y),
        }

    if name == "matching_pursuit":
        f = torch.stack([_pursued(spec, p["W_dec"], token) for token in z])
        return {"mse_loss": _mse(undo(f @ p["W_dec"] + shift), y)}

    h = z @ p["W_enc"] + p["b_enc"]
    if name == "standard":
        f = h * (h > 0)
        exponent = spec.lp_norm if knobs.lp_norm is None else knobs.lp_norm
        active = f > 0  # so that a power below 1 has no derivative at 0
        powered = (torch.where(active, f * norm_F, torch.ones_like(f)) ** exponent * active).sum(1)
        if spec.sparsity_function == "Lp":
            powered = powered ** (1 / exponent)
        return {
            "mse_loss": _mse(undo(f @ p["W_dec"] + p["b_dec"]), y),
            "l1_loss": knobs.l1_coefficient * powered.mean(),
        }
    if name == "jumprelu":
        return _jumprelu(spec, p, y, h, norm_F, undo, knobs, dead)
    return _topk_family(spec, p, y, h, norm_F, undo, knobs, dead)


def _jumprelu(
    spec: Any, p: Params, x: Tensor, h: Tensor, norm_F: Tensor, undo: Any, knobs: Knobs, dead: Tensor
) -> dict[str, Tensor]:
    theta, eps = p["threshold"], spec.jumprelu_bandwidth
    window = ((h - theta).abs() < eps / 2).double()
    active = (h > theta).double()
    # u is zero in value, and carries the gradient of a jump: -1 per unit of theta, +1 per unit of h if asked for
    u = theta.detach() - theta
    if spec.jumprelu_ste_to_input:
        u = u + h - h.detach()
    f = h * active + (theta.detach() / eps) * window * u
    if spec.jumprelu_sparsity_loss_mode == "tanh":
        sparsity = torch.tanh(spec.jumprelu_tanh_scale * f * norm_F).sum(1)
    else:
        sparsity = (active + window / eps * u).sum(1)
        if spec.jumprelu_sparsity_loss_mode == "quadratic":
            sparsity = (sparsity - spec.target_l0) ** 2 * 2 / spec.target_l0
    losses = {
        "mse_loss": _mse(undo(f @ p["W_dec"] + p["b_dec"]), x),
        "l0_loss": knobs.l0_coefficient * sparsity.mean(),
    }
    if spec.jumprelu_frequency_scale is not None:
        share = (active + window / eps * u).sum(0) / len(active)
        losses["frequency_loss"] = knobs.l0_coefficient * (share * share).sum() / spec.jumprelu_frequency_scale
    if spec.pre_act_loss_coefficient is not None:
        below = (theta - h) * (h < theta) * norm_F
        losses["pre_act_loss"] = spec.pre_act_loss_coefficient * below[:, dead].sum(1).mean()
    return losses


def _pursued(spec: Any, W_dec: Tensor, token: Tensor) -> Tensor:
    """Latents of one token."""
    f, residual, support = torch.zeros(len(W_dec), dtype=token.dtype), token, set()
    for _ in range(D_IN if spec.max_iterations is None else spec.max_iterations):
        chosen = int((W_dec @ residual).argmax())
        value = W_dec[chosen] @ residual
        if not bool(value > 0):  # it would be the same again
            break
        f = f + value * (torch.arange(len(W_dec)) == chosen)
        residual = residual - value * W_dec[chosen]
        if spec.stop_on_duplicate_support and chosen in support:
            break
        support.add(chosen)
        if spec.residual_threshold > 0 and bool((residual**2).sum() ** 0.5 < spec.residual_threshold):
            break
    return f


def _topk_family(
    spec: Any, p: Params, x: Tensor, h: Tensor, norm_F: Tensor, undo: Any, knobs: Knobs, dead: Tensor
) -> dict[str, Tensor]:
    scale_F = norm_F if spec.rescale_acts_by_decoder_norm else torch.ones_like(norm_F)
    h = h * scale_F
    name = getattr(spec, "trained_as", spec.architecture)
    size = (h**2) ** 0.5 if name == "abstopk" else h * (h > 0)

    def largest(k: int) -> Tensor:
        return h * (size >= size.sort(dim=1, descending=True).values[:, k - 1, None]) * (size > 0)

    if "batchtopk" in name:
        f = h * (h >= h.flatten().sort(descending=True).values[int(knobs.k * x.shape[0]) - 1]) * (h > 0)
    else:
        f = largest(int(knobs.k))

    def up_to(width: int, f: Tensor = f) -> Tensor:
        return undo((f / scale_F)[:, :width] @ p["W_dec"][:width] + p["b_dec"])

    def aux(low: int, high: int) -> Tensor:
        mine = torch.zeros_like(dead)
        mine[low:high] = dead[low:high]
        if not mine.any():
            return x.new_zeros(())
        n_dead, half = int(mine.sum()), x.shape[1] // 2
        candidates = (size if name == "abstopk" else h).masked_fill(~mine, -torch.inf)
        cut = candidates.sort(dim=1, descending=True).values[:, min(half, n_dead) - 1, None]
        a = h * (candidates >= cut)
        return min(n_dead / half, 1) * _mse((a / scale_F) @ p["W_dec"], (x - up_to(high)).detach())

    losses = {"mse_loss": _mse(up_to(D_SAE), x)}
    if name == "multi_k":
        losses = {"mse_loss": sum(_mse(up_to(D_SAE, largest(k)), x) for k in spec.ks) / x.new_tensor(len(spec.ks))}
    widths = [w for w in getattr(spec, "matryoshka_widths", ()) if w < D_SAE]
    levels = [(0, D_SAE)]
    if getattr(spec, "use_matryoshka_aux_loss", False):
        edges = [0, *widths, D_SAE]
        levels = list(itertools.pairwise(edges))
    total = (
        torch.stack([aux(low, high) for low, high in levels]).sum() if spec.aux_loss_coefficient else x.new_zeros(())
    )
    losses["auxiliary_reconstruction_loss"] = spec.aux_loss_coefficient * total
    if getattr(spec, "temporal_coefficient", 0):
        losses["temporal_loss"] = spec.temporal_coefficient * _contrast(f[:, : spec.matryoshka_widths[0]])
    return losses | {f"inner_mse_loss_{w}": _mse(up_to(w), x) for w in widths}


def _contrast(f: Tensor) -> Tensor:
    """Minus the log-probability of the right neighbour among all, mean over pairs and both directions."""
    terms = []
    for i in range(0, len(f), 2):
        before = torch.stack([f[i + 1] @ f[j] for j in range(0, len(f), 2)])
        after = torch.stack([f[i] @ f[j] for j in range(1, len(f), 2)])
        terms += [before.exp().sum().log() - f[i + 1] @ f[i], after.exp().sum().log() - f[i + 1] @ f[i]]
    return torch.stack(terms).mean()


def _mse(recon: Tensor, target: Tensor) -> Tensor:
    return ((recon - target) ** 2).sum() / target.shape[0]


def _normalise(mode: str, x: Tensor) -> Any:
    if mode == "layer_norm":
        mean = x.sum(1, keepdim=True) / D_IN
        std = (((x - mean) ** 2).sum(1, keepdim=True) / (D_IN - 1)) ** 0.5
        return (x - mean) / (std + 1e-5), lambda recon: mean + recon * std
    if mode == "constant_norm_rescale":
        length = (x**2).sum(1, keepdim=True) ** 0.5
        return x * D_IN**0.5 / length, lambda recon: recon * length / D_IN**0.5
    return x, lambda recon: recon


def denormalized(normalizer: Normalizer, x_BD: Tensor) -> Tensor:
    """Normalised activations or reconstructions [B, D] in the space of the raw activations."""
    if normalizer.scale is not None:
        return x_BD / normalizer.scale
    if normalizer.layer_scales is not None:
        parts = x_BD.chunk(len(normalizer.layer_scales), dim=-1)
        return torch.cat([part / scale for part, scale in zip(parts, normalizer.layer_scales, strict=True)], dim=-1)
    if normalizer.whitening is not None:
        return x_BD @ normalizer.whitening.inverse_DD.to(x_BD) + normalizer.whitening.mean_D.to(x_BD)
    return x_BD
