"""The last measurements of a stream: winners on `test`, paired comparisons on `select`, copies of their exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from saesweep.activity import doing
from saesweep.engines.records import Export, Finished, Tested
from saesweep.evaluation import ByContext, Densities, FiringCounter, PairedSums, seed_stability
from saesweep.evaluation.published import read_hook
from saesweep.saes import ExportedSAE, load_sae_folder
from saesweep.specs import METRICS
from saesweep.worker.artifacts import copy_tested, replicate_folder
from saesweep.worker.compared import load_by_context
from saesweep.worker.device import measuring
from saesweep.worker.measure import mean_and_spread
from saesweep.worker.setup import Setup


class Finals:
    """Measures finished trials through their exports.

    Args:
        setup: What is open.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._densities: dict[int, Densities] = {}
        self._numbers: dict[str, list[int]] = {}
        self._sums: dict[str, list[PairedSums]] = {}

    def test(self, trial: Finished) -> Tested:
        """Measure the replicates of a trial on `test`; the first of them is the one exported."""
        doing(f"measuring trial {trial.number} on the test part")
        saes = self._replicates(trial)
        counters = [FiringCounter() for _ in saes]
        with measuring():
            found = self._setup.test_evaluator().measure(
                saes,
                trial.hook,
                with_model=True,
                spread=True,
                counters=counters,
                hook_in=read_hook(saes[0], trial.hook),
            )
        self._densities[trial.number] = counters[0].densities("test")
        metrics, spread = mean_and_spread(found)
        if len(saes) > 1 and self._setup.base.from_pretrained_path is None:
            with measuring():
                metrics |= seed_stability(saes, [counter.densities("test").share_F > 0 for counter in counters])
        return Tested(metrics=metrics, spread=spread)

    def compare(self, trials: Sequence[Finished], metric: str) -> None:
        """Take trials by context of `select`, hook by hook, as they were measured when they finished.

        One whose figures are not on disk any more is measured again.
        """
        self._numbers, self._sums = {}, {}
        for trial in trials:  # one at a time: all SAEs of a comparison need not fit into memory
            found = load_by_context(self._setup.directory, trial.number, metric) or self._remeasure(trial, metric)
            if found is not None:
                self._numbers.setdefault(trial.hook, []).append(trial.number)
                self._sums.setdefault(trial.hook, []).append(found)

    def _remeasure(self, trial: Finished, metric: str) -> PairedSums | None:
        """Return a trial's metric by context, measured anew; None for one that contexts do not add up to."""
        doing(f"measuring trial {trial.number} for the comparison at matched L0")
        saes, by_context = self._replicates(trial), ByContext(metric)
        with measuring():
            self._setup.evaluator.measure(
                saes,
                trial.hook,
                with_model=METRICS[metric].needs_lm_head,
                spread=True,
                by_context=by_context,
                hook_in=read_hook(saes[0], trial.hook),
            )
        return None if by_context.sums is None else PairedSums.stacked(by_context.sums).mean()

    def stderr(self, weights: Mapping[int, float]) -> float | None:
        """Return the standard error over contexts of a weighted sum; None where its trials were not compared."""
        for hook, own in self._numbers.items():
            if set(weights) <= set(own):
                shares = torch.tensor([weights.get(number, 0.0) for number in own], dtype=torch.float64)
                return PairedSums.stacked(self._sums[hook]).stderr(shares)
        return None

    def export(self, export: Export) -> None:
        """Copy a trial's SAE to a folder, with the densities of `test` where it was measured there."""
        densities = self._densities[export.number] if export.is_tested else None
        copy_tested(self._setup.directory.trial_sae(export.number), Path(export.target), export.extra, densities)

    def _replicates(self, trial: Finished) -> list[ExportedSAE]:
        directory = self._setup.directory
        return [
            load_sae_folder(replicate_folder(directory, trial.number, replicate)).to(self._setup.device)
            for replicate in range(trial.replicates)
        ]
