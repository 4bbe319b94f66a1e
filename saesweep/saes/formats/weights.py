"""What readers share: tensors from files that somebody else wrote, facts from their configurations, and the SAE made of both."""

# Shape suffix legend:  D = d_in, F = d_sae

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saesweep.errors import UserError
from saesweep.saes.exported import ExportedSAE, tensor_problems
from saesweep.saes.folding import SAELENS_VERSION, fold_decoder_norms

DOWNLOAD_AGAIN = "download it again"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, in float32.

    Raises:
        UserError: It is damaged, or holds something else than finite numbers.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); {DOWNLOAD_AGAIN}") from None
    return _checked(path, tensors)


def read_torch(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a `torch.save` file, in float32; nothing but plain tensors is ever unpickled.

    Raises:
        UserError: It is damaged, holds anything else, or numbers that are not finite.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about odd pickles; what is wrong is said below
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # the restricted unpickler raises whatever the damaged stream leads it to
        raise UserError(
            f"{path}: not a readable file of plain tensors (anything else in it is never unpickled, because it could run "
            f"code); {DOWNLOAD_AGAIN}"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path}: must hold tensors by name, got a {type(found).__name__}; {DOWNLOAD_AGAIN}")
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.device.type != "cpu":
            raise UserError(f"{path}: {name} is no plain tensor; {DOWNLOAD_AGAIN}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} claims more numbers than the file holds; {DOWNLOAD_AGAIN}")
    return _checked(path, found)


def _checked(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if wrong := [name for name, tensor in tensors.items() if tensor.is_complex() or tensor.is_quantized]:
        raise UserError(f"{path}: {', '.join(wrong)} must hold real numbers; {DOWNLOAD_AGAIN}")
    real = {name: tensor.detach().to(torch.float32) for name, tensor in tensors.items()}
    if bad := [name for name, tensor in real.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError(f"{path}: NaN or infinite values in {', '.join(bad)}; {DOWNLOAD_AGAIN}")
    return real


def required(path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, int], what: str) -> list[Tensor]:
    """Return tensors in the order of `shapes`.

    Args:
        path: The file, for messages.
        tensors: By the peer's names.
        shapes: The peer's name -> number of dimensions.
        what: Of what they are, for messages.

    Raises:
        UserError: One is missing, or has other dimensions.
    """
    if missing := [name for name in shapes if name not in tensors]:
        raise UserError(f"{path}: has no {', '.join(missing)}, which {what} has; {DOWNLOAD_AGAIN}")
    for name, dimensions in shapes.items():
        if tensors[name].ndim != dimensions:
            raise UserError(
                f"{path}: {name} has shape {list(tensors[name].shape)}, it must have {dimensions} dimensions; {DOWNLOAD_AGAIN}"
            )
    return [tensors[name] for name in shapes]


def with_unit_decoder(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move decoder norms into the encoder of a standard SAE's tensors.

    Raises:
        UserError: The tensors do not fit each other.
    """
    d_sae, d_in = tensors["W_dec"].shape
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if problems := tensor_problems({"architecture": "standard", "d_in": d_in, "d_sae": d_sae}, shapes):
        raise UserError(f"{path}: {'; '.join(problems)}; {DOWNLOAD_AGAIN}")
    return fold_decoder_norms(tensors)


def whole(config: Mapping[str, Any], key: str, place: Path) -> int:
    """Return a positive whole number of a configuration.

    Raises:
        UserError: It is something else.
    """
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise UserError(f"{place}: {key} must be a positive whole number, got {value!r}; {DOWNLOAD_AGAIN}")
    return value


def text(value: Any) -> str | None:
    """Return a text that says something; None for anything else."""
    return value if isinstance(value, str) and value else None


def built(
    path: Path,
    architecture: str,
    tensors: Mapping[str, Tensor],
    *,
    centred: bool,
    metadata: Mapping[str, Any],
    **fields: Any,
) -> ExportedSAE:
    """Return the SAE that tensors make, in float32.

    Args:
        path: The file, for messages.
        architecture: Of SAELens' inference semantics.
        tensors: By SAELens' names, `W_enc` [D, F] and `W_dec` [F, D]; of a transcoder [F, d_out].
        centred: Whether the encoder sees the input minus `b_dec`.
        metadata: What is known of model, hook and training; entries that are None are left out.
        **fields: Further fields of `cfg.json`, such as `k`, and a transcoder's `d_out`.

    Raises:
        UserError: The tensors do not fit each other.
    """
    d_in, d_sae = tensors["W_enc"].shape
    cfg: dict[str, Any] = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": centred,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **fields,
        "metadata": {
            "sae_lens_version": SAELENS_VERSION,
            **{name: value for name, value in metadata.items() if value is not None},
        },
    }
    try:
        return ExportedSAE(architecture, cfg, {name: t.to(torch.float32).contiguous() for name, t in tensors.items()})
    except ValueError as error:
        raise UserError(f"{path}: {error}; {DOWNLOAD_AGAIN}") from None
