"""saesweep: declarative experiment sweeps for sparse autoencoders.

    import saesweep
    result = saesweep.run("experiments/quickstart.yaml")
    result.best_dir       # load it with SAELens, or as base: {from_cfg: ...}

Importing this loads no numeric library; `run` does when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saesweep.errors import ExperimentError, UserError
from saesweep.version import __version__

if TYPE_CHECKING:
    from saesweep.api import run
    from saesweep.driver import Result
    from saesweep.evaluation import register_metric
    from saesweep.experiment import Experiment, load_experiment
    from saesweep.plugins import load_plugin
    from saesweep.saes import ExportedSAE, load_sae_folder
    from saesweep.tracking import register_tracker

_LAZY = {
    "run": "saesweep.api",
    "Result": "saesweep.driver",
    "load_experiment": "saesweep.experiment",
    "Experiment": "saesweep.experiment",
    "load_sae_folder": "saesweep.saes",
    "ExportedSAE": "saesweep.saes",
    "load_plugin": "saesweep.plugins",
    "register_metric": "saesweep.evaluation",
    "register_tracker": "saesweep.tracking",
}

__all__ = [
    "Experiment",
    "ExperimentError",
    "ExportedSAE",
    "Result",
    "UserError",
    "__version__",
    "load_experiment",
    "load_plugin",
    "load_sae_folder",
    "register_metric",
    "register_tracker",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'saesweep' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
