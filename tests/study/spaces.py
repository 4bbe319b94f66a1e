"""Spaces that several tests search."""

from typing import Any

from saesweep.study import ParameterView, SpaceView, Study

ARCHITECTURE = ParameterView(path="sae.architecture", kind="choice", choices=("topk", "standard", "gated"))
K = ParameterView(
    path="sae.k", kind="int", low=4, high=64, log=True, when={"sae.architecture": ("topk",)}, grid=(8, 32)
)
L1_STANDARD = ParameterView(
    path="sae.l1_coefficient",
    kind="float",
    low=0.5,
    high=30.0,
    log=True,
    when={"sae.architecture": ("standard",)},
    grid=(1.0, 5.0, 25.0),
)
L1_GATED = ParameterView(
    path="sae.l1_coefficient",
    kind="float",
    low=0.1,
    high=2.0,
    log=True,
    when={"sae.architecture": ("gated",)},
    grid=(0.5,),
)
LR = ParameterView(path="lr", kind="float", low=1e-5, high=1e-2, log=True, grid=(1e-4, 1e-3))

# A child before its parent, on purpose: the order of the file must not matter.
SPACE = SpaceView(parameters=(K, L1_STANDARD, L1_GATED, ARCHITECTURE, LR))


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
