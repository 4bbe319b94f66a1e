"""Which device a name of the experiment file means on this machine."""

from __future__ import annotations

import torch

from saesweep.errors import UserError


def resolve_device(name: str, *, place: str = "base.device") -> torch.device:
    """Return the device for `auto` (CUDA, then MPS, then CPU) or a torch device name.

    Args:
        name: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        place: Path of the field it comes from, for the message.

    Raises:
        UserError: torch knows no such device, or this machine has none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"{place}: {name!r} is no device; use auto, cpu, cuda, cuda:0 or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"{place}: {name!r} asks for a CUDA device, this machine has {count}; use auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"{place}: {name!r} is not available on this machine; use auto or cpu")
    return device
