"""Spaces that several tests search."""

from typing import Any

from saesweep.space import Parameter, Space
from saesweep.specs import ParameterSpec
from saesweep.study import Study


def parameter(path: str, when: Any = None, **range_: Any) -> Parameter:
    """A range as the file writes it."""
    return Parameter(path=path, spec=ParameterSpec.model_validate(range_), when=when or {})


ARCHITECTURE = parameter("sae.architecture", choice=("topk", "standard", "gated"))
K = parameter("sae.k", int=(4, 64), log=True, when={"sae.architecture": ("topk",)}, grid=(8, 32))
L1_STANDARD = parameter(
    "sae.l1_coefficient", float=(0.5, 30.0), log=True, when={"sae.architecture": ("standard",)}, grid=(1.0, 5.0, 25.0)
)
L1_GATED = parameter(
    "sae.l1_coefficient", float=(0.1, 2.0), log=True, when={"sae.architecture": ("gated",)}, grid=(0.5,)
)
LR = parameter("lr", float=(1e-5, 1e-2), log=True, grid=(1e-4, 1e-3))

SPACE = Space((ARCHITECTURE, K, L1_STANDARD, L1_GATED, LR))


def open_study(path: Any, **changes: Any) -> Study:
    """Open a study of SPACE with one objective, or as changed."""
    settings: dict[str, Any] = {
        "name": "test",
        "directions": ("minimize",),
        "space": SPACE,
        "sampler": "tpe",
        "seed": 7,
        "fingerprint": "f",
        **changes,
    }
    return Study.open(str(path), **settings)


def loss(params: dict[str, Any]) -> float:
    """An objective that depends on every parameter."""
    penalty = {"topk": 0.0, "standard": 1.0, "gated": 0.5}[params["sae.architecture"]]
    return penalty + abs(params["lr"] - 1e-3) * 100 + params.get("sae.k", 16) / 64 + params.get("sae.l1_coefficient", 0)
