"""Finds out why an SAE in half precision scores NaN: which of its numbers are beyond what the type holds."""

# Shape suffix legend: N = tokens, D = d_in, F = d_sae

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saesweep.activations import HeldOut
from saesweep.saes import ExportedSAE

_HALVES = (torch.float16, torch.bfloat16)


def overflow_of(sae: ExportedSAE, part: HeldOut, hook: str) -> str | None:
    """Return what of an SAE is beyond its type's range, and the setting to write; None where its type is not to blame.

    Args:
        sae: An SAE whose metrics are not finite.
        part: The held-out part that it was measured on.
        hook: Where it was measured.
    """
    if sae.dtype not in _HALVES:
        return None
    name, largest = str(sae.cfg["dtype"]), torch.finfo(sae.dtype).max
    for tensor, values in sae.tensors.items():
        if not bool(torch.isfinite(values).all()):
            return _message(name, largest, f"values of its {tensor} became infinite in it")
    wide = sae.to(dtype=torch.float32)
    reached: dict[str, float] = {}
    overflows = False
    for x_ND in _pieces(sae, part, hook):
        wide_acts_NF = wide.encode(x_ND)
        found = {"activations": x_ND, "latents": wide_acts_NF, "reconstructions": wide.decode(wide_acts_NF, x_ND)}
        if not all(bool(torch.isfinite(values).all()) for values in found.values()):
            return None  # float32 holds them no better
        for what, values in found.items():
            reached[what] = max(reached.get(what, 0.0), float(values.abs().max()))
        overflows |= not bool(torch.isfinite(sae.decode(sae.encode(x_ND), x_ND)).all())
    if not overflows:
        return None
    beyond = [f"{what} at {hook} reach {highest:.3g}" for what, highest in reached.items() if highest > largest]
    return _message(name, largest, beyond[0] if beyond else f"sums on the way to its latents at {hook} are larger")


def _message(name: str, largest: float, what: str) -> str:
    advice = "float32, or bfloat16, which has float32's range" if name == "float16" else "float32"
    return f"the exported SAE is {name}, which holds numbers up to {largest:,.6g}, and {what}; base.sae.dtype should be {advice}"


def _pieces(sae: ExportedSAE, part: HeldOut, hook: str) -> Iterator[Tensor]:
    for rows_ND in part.batches(hook):
        yield from torch.split(rows_ND.to(device=sae.device, dtype=torch.float32), sae.rows_at_once())
