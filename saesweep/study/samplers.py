"""Samplers by name or class path, each built afresh from a seed for every single suggestion."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import optuna
from optuna.samplers import BaseSampler, BruteForceSampler, GridSampler, QMCSampler, RandomSampler, TPESampler

from saesweep.errors import UserError

SamplerFactory = Callable[[int], BaseSampler]
"""Builds a sampler from a seed."""

Direction = Literal["minimize", "maximize"]
N_PROBES = 12
"""Asks of a dry run: the samplers of Optuna leave their random phase after at most 10 trials."""


def sampler_factory(name: str, *, conditional: bool, n_startup_trials: int) -> SamplerFactory:
    """Return what builds the sampler.

    Args:
        name: `tpe`, `random`, `fixed`, or the class path of an Optuna sampler whose constructor takes `seed`.
        conditional: Whether parameters of the space may be absent; TPE then models each group of parameters that occur
            together, instead of only those that every trial has.
        n_startup_trials: Finished trials before TPE stops sampling at random.

    Raises:
        UserError: When the class path cannot be imported, is no sampler, or cannot suggest one trial at a time.
    """
    if name == "tpe":
        return lambda seed: _tpe(seed, conditional, n_startup_trials)
    if name in ("random", "fixed"):  # a fixed list leaves nothing to sample
        return lambda seed: RandomSampler(seed=seed)
    sampler = _sampler_class(name)
    if "seed" not in inspect.signature(sampler).parameters:
        raise UserError(f"search.sampler: {name} takes no seed, so that its study could not be repeated")
    return lambda seed: _quietly(lambda: sampler(seed=seed))


def _tpe(seed: int, conditional: bool, n_startup_trials: int) -> BaseSampler:
    """Return a multivariate TPE; constant liar, Optuna's default, keeps a cohort's suggestions apart."""
    return _quietly(
        lambda: TPESampler(seed=seed, multivariate=True, group=conditional, n_startup_trials=n_startup_trials)
    )


def _sampler_class(name: str) -> Callable[..., BaseSampler]:
    """Import a sampler class."""
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        raise UserError(
            f"search.sampler: {name!r} is not tpe, random, grid, or a class path as optuna.samplers.GPSampler"
        )
    try:
        sampler = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"search.sampler: {name} cannot be imported: {error}") from error
    if not (inspect.isclass(sampler) and issubclass(sampler, BaseSampler)):
        raise UserError(f"search.sampler: {name} is not an Optuna sampler")
    if issubclass(sampler, QMCSampler):
        # It counts its points in the study that it samples for, here a copy made for each suggestion.
        raise UserError(f"search.sampler: {name} cannot resume after a restart; use `sampler: random` or tpe")
    if issubclass(sampler, (GridSampler, BruteForceSampler)):
        # Both end the study from within the last `tell`, which a cohort cannot have.
        raise UserError(f"search.sampler: {name} cannot suggest for a cohort; use `sampler: grid`")
    return sampler


def _quietly(build: Callable[[], BaseSampler]) -> BaseSampler:
    """Build a sampler without Optuna's warning that it is experimental: one would come with every suggestion."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return build()


def check_sampler(name: str, directions: Sequence[Direction]) -> None:
    """Try a sampler out before anything is trained.

    Raises:
        UserError: When it is unknown, lacks a package, or cannot serve this number of objectives.
    """
    factory = sampler_factory(name, conditional=False, n_startup_trials=1)
    if name in ("tpe", "random", "fixed"):
        return
    try:
        study = optuna.create_study(directions=list(directions), sampler=factory(0))
        for number in range(N_PROBES):
            trial = study.ask()
            x = trial.suggest_float("x", 0.0, 1.0) + trial.suggest_float("y", 0.0, 1.0)
            study.tell(trial, [x + number] * len(directions))
    except ImportError as error:
        raise UserError(f"search.sampler: {name} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise UserError(f"search.sampler: {name} cannot search for {len(directions)} objectives: {error}") from error
