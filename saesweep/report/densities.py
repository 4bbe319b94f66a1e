"""How often the latents of an exported SAE fire, as its folder says, and on which tokens that was counted."""

from __future__ import annotations

import math
from pathlib import Path

from saesweep.errors import UserError
from saesweep.runs import read_json


def read_log10_densities(folder: Path) -> list[float]:
    """Return log10 of the share of tokens on which each latent of an exported SAE fires; empty where it has none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = folder / "sparsity.safetensors"
    if not file.exists():
        return []
    try:
        values = [float(v) for v in load_file(file)["sparsity"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: damaged ({reason}); export the SAE again, or remove this file") from None
    if not all(map(math.isfinite, values)):
        raise UserError(f"{file}: damaged, it holds NaN or infinities; export the SAE again, or remove this file")
    return values


def counted_on(folder: Path) -> str:
    """Return which tokens the densities of an exported SAE are counted on, such as `32,768 held-out test tokens`.

    Exports of versions that counted in training say so: their figures include the dense beginning of the run.
    """
    file = folder / "provenance.json"
    provenance = read_json(file) if file.exists() else None
    found = provenance.get("densities") if isinstance(provenance, dict) else None
    if not isinstance(found, dict):
        return "training tokens (an export of an earlier version), which may include a dense beginning of the run"
    return f"{found.get('tokens', 0):,} held-out {found.get('part')} tokens"
