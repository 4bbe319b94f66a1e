"""The language model between two activation streams: used again where the next one reads the same, never two at once."""

from __future__ import annotations

import gc

import torch

from saesweep.experiment.fields import MODEL_PATHS
from saesweep.models import LanguageModel
from saesweep.specs import BaseRun


class LoadedModel:
    """Holds at most one language model."""

    def __init__(self) -> None:
        self._model: LanguageModel | None = None
        self._key: tuple[object, ...] = ()

    def for_run(self, run: BaseRun) -> LanguageModel | None:
        """Return the model where a run reads the same one; otherwise give its memory back first."""
        if self._key != _key(run):
            self.drop()
        return self._model

    def keep(self, run: BaseRun, model: LanguageModel | None) -> None:
        """Hold the model of a run."""
        self._model, self._key = model, _key(run)

    def drop(self) -> None:
        """Give the memory of the model, and of everything that is not in use any more, back."""
        self._model, self._key = None, ()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _key(run: BaseRun) -> tuple[object, ...]:
    """Return what decides the model among the fields that streams can differ in."""
    return tuple(getattr(run, path) for path in MODEL_PATHS)
