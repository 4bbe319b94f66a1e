"""An SAE in the form in which it is published, evaluated and loaded: folded weights and a SAELens `cfg.json`."""

# Shape suffix legend:  N = tokens (any leading dimensions), D = d_in, O = d_out (of an SAE: d_in), F = d_sae

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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


_TRANSCODERS = {
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
"""SAELens' transcoders -> the SAE that they have the latents of."""
_BIASES = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


def expected_shapes(architecture: str, d_in: int, d_sae: int, d_out: int | None = None) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an exported architecture: name -> shape.

    Args:
        architecture: Its name.
        d_in: Width that it reads.
        d_sae: Number of latents.
        d_out: Width that it reconstructs; `d_in` when left out.

    Raises:
        ValueError: The architecture is not one that saesweep reads and writes.
    """
    d_out = d_in if d_out is None else d_out
    kind = _TRANSCODERS.get(architecture, architecture)
    if kind not in _BIASES:
        raise ValueError(f"unknown architecture {architecture!r}; known: {', '.join((*_BIASES, *_TRANSCODERS))}")
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,)}
    skip = {"W_skip": (d_out, d_in)} if "skip" in architecture else {}
    return shapes | skip | {name: (d_sae,) for name in _BIASES[kind]}


@dataclass(frozen=True)
class ExportedSAE:
    """A published SAE; works on raw (un-normalised) activations, with SAELens' inference semantics.

    Attributes:
        architecture: `standard`, `gated`, `jumprelu` or `topk`, or one of SAELens' transcoders.
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
    def is_transcoder(self) -> bool:
        """Whether it reconstructs the activations of another hook than the one that it reads."""
        return self.architecture in _TRANSCODERS

    @property
    def d_out(self) -> int:
        """Width of what it reconstructs."""
        return int(self.cfg["d_out"]) if self.is_transcoder else self.d_in

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
        return self._encode_normalised(normalise_tokens(self._mode, x_ND.to(self.dtype))[0])

    def decode(self, feature_acts_NF: Tensor, like_ND: Tensor | None = None) -> Tensor:
        """Return the reconstruction [..., d_out] in the raw space.

        Args:
            feature_acts_NF: Latents, [..., d_sae].
            like_ND: The raw activations that were encoded; needed where the SAE normalises each token by its own statistics
                (`layer_norm`, `constant_norm_rescale`) and by skip connections, ignored otherwise.

        Raises:
            ValueError: `like_ND` is needed and missing.
        """
        recon_ND = self._decode_normalised(feature_acts_NF)
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

    @property
    def _mode(self) -> str:
        return str(self.cfg.get("normalize_activations", "none"))

    @property
    def _rescales(self) -> bool:
        return self.architecture == "topk" and bool(self.cfg.get("rescale_acts_by_decoder_norm", False))

    def _encode_normalised(self, x_ND: Tensor) -> Tensor:
        t = self.tensors
        if self.cfg.get("apply_b_dec_to_input", True) and not self.is_transcoder:
            x_ND = x_ND - t["b_dec"]
        kind = _TRANSCODERS.get(self.architecture, self.architecture)
        if kind == "gated":
            gate_NF = x_ND @ t["W_enc"] + t["b_gate"]
            magnitude_NF = x_ND @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]
            return magnitude_NF.relu() * (gate_NF > 0)
        hidden_NF = x_ND @ t["W_enc"] + t["b_enc"]
        if kind == "standard":
            return hidden_NF.relu()
        if kind == "jumprelu":
            # SAELens loads the threshold in the SAE's own dtype and compares in it.
            return hidden_NF.relu() * (hidden_NF > t["threshold"].to(hidden_NF.dtype))
        if self._rescales:
            hidden_NF = hidden_NF * t["W_dec"].norm(dim=-1)
        top = hidden_NF.topk(int(self.cfg["k"]), dim=-1, sorted=False)
        return torch.zeros_like(hidden_NF).scatter_(-1, top.indices, top.values.relu())

    def _decode_normalised(self, feature_acts_NF: Tensor) -> Tensor:
        t = self.tensors
        if self._rescales:
            feature_acts_NF = feature_acts_NF / t["W_dec"].norm(dim=-1)
        return feature_acts_NF @ t["W_dec"] + t["b_dec"]


def cfg_problems(cfg: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the contents of a `cfg.json`, one sentence each."""
    problems = []
    widths = ("d_in", "d_sae", "d_out") if cfg.get("architecture") in _TRANSCODERS else ("d_in", "d_sae")
    for key in widths:
        if type(cfg.get(key)) is not int or cfg[key] < 1:
            problems.append(f"{key} must be a positive whole number, got {cfg.get(key)!r}")
    if cfg.get("dtype") not in tuple(DTYPES):
        problems.append(f"dtype must be one of {', '.join(DTYPES)}, got {cfg.get('dtype')!r}")
    if not isinstance(cfg.get("metadata"), dict):
        problems.append("metadata is missing")
    try:
        expected_shapes(str(cfg.get("architecture")), 1, 1)
    except ValueError as error:
        problems.append(str(error))
    if cfg.get("architecture") == "topk":
        k, d_sae = cfg.get("k"), cfg.get("d_sae")
        if type(k) is not int or k < 1 or (type(d_sae) is int and k > d_sae):
            problems.append(f"k must be a whole number from 1 to d_sae, got {k!r}")
    mode = cfg.get("normalize_activations", "none")
    if mode not in ("none", *RUNTIME_MODES):
        problems.append(
            f"normalize_activations is {mode!r}, which a finished SAE has folded into its weights (then it says 'none'); "
            "this looks like a checkpoint of unfinished training"
        )
    return problems


def tensor_problems(cfg: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return how tensors differ from those a valid `cfg` calls for, one sentence each."""
    expected = expected_shapes(str(cfg["architecture"]), cfg["d_in"], cfg["d_sae"], cfg.get("d_out"))
    problems = [f"tensor {name} is missing" for name in expected if name not in shapes]
    problems += [f"unknown tensor {name} for {cfg['architecture']}" for name in shapes if name not in expected]
    problems += [
        f"tensor {name} has shape {list(shapes[name])}, but d_in and d_sae call for {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    return problems
