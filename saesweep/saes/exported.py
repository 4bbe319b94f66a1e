"""An SAE in the form in which it is published, evaluated and loaded: folded weights and a SAELens `cfg.json`."""

# Shape suffix legend:  N = tokens (any leading dimensions), D = d_in, O = d_out (of an SAE: d_in), F = d_sae

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saesweep.saes.forms import ExportedForm, form_of, positive_int_problem
from saesweep.saes.normalize import RUNTIME_MODES, normalise_tokens

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""Names of `cfg.dtype` and what they mean."""

# Latents held at once. On a CPU few enough for the caches: 8 times as many take 1.3 times as long.
_PIECE_ELEMENTS = 1 << 26
_CPU_PIECE_ELEMENTS = 1 << 20


def rows_at_once(d_sae: int, device: torch.device) -> int:
    """Return the number of activations whose latents [N, d_sae] are best held at the same time, for speed and memory."""
    return max((_CPU_PIECE_ELEMENTS if device.type == "cpu" else _PIECE_ELEMENTS) // d_sae, 16)


@dataclass(frozen=True)
class ExportedSAE:
    """A published SAE; works on raw (un-normalised) activations, with SAELens' inference semantics.

    Attributes:
        architecture: Name of a registered form: `standard`, `topk`, ..., or one of SAELens' transcoders.
        cfg: The contents of `cfg.json`, as SAELens writes them, including `metadata`.
        tensors: The weights, in SAELens' names and shapes; all of `cfg["dtype"]` but `threshold`, which is float32.

    Raises:
        ValueError: Tensors are missing, extra or of the wrong shape, or `cfg` has no valid dtype, k or normalisation.
    """

    architecture: str
    cfg: dict[str, Any]
    tensors: dict[str, Tensor]

    def __post_init__(self) -> None:
        problems = cfg_problems(self.cfg)
        if self.cfg.get("architecture") != self.architecture:
            problems.append(f"architecture is {self.cfg.get('architecture')!r}, not {self.architecture!r}")
        if not problems:
            problems = tensor_problems(self.cfg, {name: tuple(t.shape) for name, t in self.tensors.items()})
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.cfg["d_in"])

    @property
    def form(self) -> ExportedForm:
        """What it computes."""
        return form_of(self.architecture)

    @property
    def is_transcoder(self) -> bool:
        """Whether it reconstructs the activations of another hook than the one that it reads."""
        return self.form.is_transcoder

    @property
    def d_out(self) -> int:
        """Width of what it reconstructs."""
        return int(self.cfg["d_out"]) if self.is_transcoder else self.d_in

    @property
    def n_layers(self) -> int:
        """Number of hooks that a crosscoder reads together, in equal parts of `d_in`; 1 of everything else."""
        return self.form.n_layers(self.cfg)

    def decoder_shares(self) -> Tensor:
        """Return each hook's share of a latent's decoder norms, [F, n_layers], at the scale that training saw every hook at."""
        by_hook = self.tensors["W_dec"].float().view(self.d_sae, self.n_layers, -1)
        norm_FL: Tensor = torch.linalg.vector_norm(by_hook, dim=-1)
        if (scales := self.cfg.get("layer_scales")) is not None:
            norm_FL = norm_FL * torch.tensor(scales, device=norm_FL.device)
        return norm_FL / norm_FL.sum(dim=-1, keepdim=True).clamp_min(1e-30)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return int(self.cfg["d_sae"])

    @property
    def dtype(self) -> torch.dtype:
        """The type it computes in."""
        return DTYPES[self.cfg["dtype"]]

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.tensors["W_dec"].device

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known about its origin (`cfg["metadata"]`)."""
        metadata: dict[str, Any] = self.cfg["metadata"]
        return metadata

    def with_metadata(self, extra: Mapping[str, Any]) -> ExportedSAE:
        """Return a copy with these entries added to, or replaced in, `cfg["metadata"]` (JSON values only)."""
        return ExportedSAE(self.architecture, {**self.cfg, "metadata": {**self.metadata, **extra}}, self.tensors)

    def at_k(self, k: int) -> ExportedSAE:
        """Return a copy that selects `k` latents per token: what `multi_k` trains several of.

        Raises:
            ValueError: It selects by no k, or `k` is not from 1 to `d_sae`.
        """
        if "k" not in self.cfg:
            raise ValueError(f"{self.architecture} does not select k latents per token")
        return ExportedSAE(self.architecture, {**self.cfg, "k": k}, self.tensors)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> ExportedSAE:
        """Return a copy on `device` that computes in `dtype`; what is None stays as it is."""
        new_dtype = dtype if dtype is not None else self.dtype
        name = next((name for name, value in DTYPES.items() if value == new_dtype), None)
        if name is None:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
        tensors = {
            key: tensor.to(device=device, dtype=torch.float32 if key == "threshold" else new_dtype)
            for key, tensor in self.tensors.items()
        }
        cfg = {**self.cfg, "dtype": name, "device": str(device) if device is not None else self.cfg["device"]}
        return ExportedSAE(self.architecture, cfg, tensors)

    def encode(self, x_ND: Tensor) -> Tensor:
        """Return the latents [..., d_sae] of raw activations [..., d_in].

        Activations of a `hook_z` SAE are flattened to [..., heads * d_head] by the caller.
        """
        normalised_ND, _ = normalise_tokens(self._mode, x_ND.to(self.dtype))
        if self.cfg.get("apply_b_dec_to_input", True) and not self.is_transcoder:
            normalised_ND = normalised_ND - self.tensors["b_dec"]
        return self.form.encode(self.cfg, self.tensors, normalised_ND)

    def decode(self, feature_acts_NF: Tensor, like_ND: Tensor | None = None) -> Tensor:
        """Return the reconstruction [..., d_out] in the raw space.

        Args:
            feature_acts_NF: Latents, [..., d_sae].
            like_ND: The raw activations that were encoded; needed where the SAE normalises each token by its own statistics
                (`layer_norm`, `constant_norm_rescale`) and by skip connections, ignored otherwise.

        Raises:
            ValueError: `like_ND` is needed and missing.
        """
        recon_ND = self.form.decode(self.cfg, self.tensors, feature_acts_NF)
        if "W_skip" in self.tensors:
            if like_ND is None:
                raise ValueError("decode with a skip connection needs like_ND, the activations that were encoded")
            return recon_ND + like_ND.to(self.dtype) @ self.tensors["W_skip"].t()
        if self._mode not in RUNTIME_MODES or self.is_transcoder:  # as SAELens, whose transcoders undo nothing
            return recon_ND
        if like_ND is None:
            raise ValueError(f"decode with {self._mode} needs like_ND, the activations whose statistics to restore")
        return normalise_tokens(self._mode, like_ND.to(self.dtype))[1](recon_ND)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Return the reconstruction [..., d_out] of raw activations [..., d_in]."""
        pieces = torch.split(x_ND.reshape(-1, x_ND.shape[-1]), self.rows_at_once())
        recon_NO = torch.cat([self.decode(self.encode(piece_ND), piece_ND) for piece_ND in pieces])
        return recon_NO.view(*x_ND.shape[:-1], self.d_out)

    __call__ = forward

    def rows_at_once(self) -> int:
        """Return the number of activations whose latents are best held at the same time."""
        return rows_at_once(self.d_sae, self.device)

    def sha256(self) -> str:
        """Return what tells this SAE from others: of its configuration and its weights, which are on the CPU."""
        digest = hashlib.sha256(json.dumps(self.cfg, sort_keys=True).encode())
        for name in sorted(self.tensors):
            digest.update(self.tensors[name].contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def _mode(self) -> str:
        return str(self.cfg.get("normalize_activations", "none"))


def cfg_problems(cfg: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the contents of a `cfg.json`, one sentence each."""
    problems = [problem for width in ("d_in", "d_sae") for problem in positive_int_problem(cfg, width)]
    if cfg.get("dtype") not in tuple(DTYPES):
        problems.append(f"dtype must be one of {', '.join(DTYPES)}, got {cfg.get('dtype')!r}")
    if not isinstance(cfg.get("metadata"), dict):
        problems.append("metadata is missing")
    try:
        problems += form_of(cfg.get("architecture")).problems(cfg)
    except ValueError as error:
        problems.append(str(error))
    mode = cfg.get("normalize_activations", "none")
    if mode not in ("none", *RUNTIME_MODES):
        problems.append(
            f"normalize_activations is {mode!r}, which a finished SAE has folded into its weights (then it says 'none'); "
            "this looks like a checkpoint of unfinished training"
        )
    return problems


def tensor_problems(
    cfg: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, stored: bool = False
) -> list[str]:
    """Return how tensors differ from those a valid `cfg` calls for, in memory or as a folder holds them, one sentence each."""
    form = form_of(cfg["architecture"])
    expected = form.stored_shapes(cfg) if stored else form.shapes(cfg)
    problems = [f"tensor {name} is missing" for name in expected if name not in shapes]
    problems += [f"unknown tensor {name} for {cfg['architecture']}" for name in shapes if name not in expected]
    problems += [
        f"tensor {name} has shape {list(shapes[name])}, but d_in and d_sae call for {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    return problems
