"""Metrics that others add: one class each, measured beside the built-in ones on every held-out part.

Shape suffixes: N tokens, D = d_in, F = d_sae.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import Tensor

from saesweep.errors import UserError
from saesweep.saes import ExportedSAE
from saesweep.specs import METRICS, Metric
from saesweep.specs.objective import Direction


class HeldOutMetric(Protocol):
    """Accumulates over batches of held-out activations; one object measures one SAE once."""

    def update(self, x_ND: Tensor, recon_ND: Tensor, acts_NF: Tensor) -> None:
        """Add a batch: raw activations, the exported SAE's reconstruction of them, and its latents.

        Batches have any number of rows, also a few: weigh by rows, never by batches.
        """

    def compute(self) -> float:
        """Return the metric over everything added."""


_REGISTERED: dict[str, Callable[[ExportedSAE], HeldOutMetric]] = {}
_MakeT = TypeVar("_MakeT", bound=Callable[[ExportedSAE], HeldOutMetric])


def register_metric(name: str, *, better: Direction, unit: str, description: str) -> Callable[[_MakeT], _MakeT]:
    """Class decorator: measure this at rungs, at the end and in `saesweep eval`, and let objectives name it.

    The class is made with the exported SAE and is a `HeldOutMetric`: `update(x_ND, recon_ND, acts_NF)` for each batch,
    then `compute()`. Gradients are off. It sees activations only, so that it works with every source.

    Args:
        name: What `objective`, `subject_to` and the leaderboard call it.
        better: Which direction is good, `minimize` or `maximize`; an objective the other way round gets a warning.
        unit: Its unit.
        description: Its definition, in one line.

    Raises:
        ValueError: The name is no identifier, or another metric has it.
    """

    def add(make: _MakeT) -> _MakeT:
        if not name.isidentifier():
            raise ValueError(f"metric {name!r}: a name is letters, digits and _, such as mean_max_latent")
        known = _REGISTERED.get(name)
        if name in METRICS and (known is None or known.__qualname__ != make.__qualname__):
            raise ValueError(f"metric {name!r} is defined already, by {known.__module__ if known else 'saesweep'}")
        METRICS[name] = Metric(name=name, better=better, unit=unit, needs_lm_head=False, description=description)
        _REGISTERED[name] = make
        return make

    return add


def registered_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that others added."""
    return tuple(_REGISTERED)


def new_registered(sae: ExportedSAE) -> dict[str, HeldOutMetric]:
    """Return a fresh object of each registered metric, for one measurement of one SAE.

    Raises:
        UserError: A metric is no class that is made with an SAE, or lacks a method.
    """
    found: dict[str, HeldOutMetric] = {}
    for name, make in _REGISTERED.items():
        try:
            found[name] = make(sae)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                raise  # it fails inside
            raise UserError(f"metric {name!r}: it is made with one argument, the exported SAE: {error}") from None
        if missing := [method for method in ("update", "compute") if not hasattr(found[name], method)]:
            raise UserError(f"metric {name!r}: it has no method {' and no '.join(missing)}")
    return found


def values_of(metrics: Mapping[str, HeldOutMetric]) -> dict[str, float]:
    """Return what metrics have measured.

    Raises:
        UserError: One of them returns something else than a number.
    """
    found = {}
    for name, metric in metrics.items():
        value = metric.compute()
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise UserError(f"metric {name!r}: compute() returned {value!r:.80}, which is not one number") from None
    return found
