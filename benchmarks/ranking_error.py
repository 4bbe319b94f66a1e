"""How well fewer cross-entropy tokens rank SAEs: what `evaluation.rung_share` and `ce_tokens` cost.

    python benchmarks/ranking_error.py runs/quickstart

Measures the finished trials of a run on its whole `select` part, context by context, and says for fewer contexts: the standard error of the
difference of delta CE between neighbours in rank (paired over contexts) and of a single value, as shares of the spread of
the trials, and how often two trials change places (over 200 random choices of contexts).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saesweep.activations import open_source
from saesweep.evaluation import HeldOutEvaluator
from saesweep.evaluation.spread import PairedSums
from saesweep.experiment import load_experiment
from saesweep.saes import load_sae_folder

_CHOICES = 200


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run directory")
    args = parser.parse_args()
    experiment = load_experiment(args.run / "experiment.yaml")
    run = experiment.base_run()
    source = open_source(run, experiment.spec.evaluation, experiment.hook_names(), with_model=True)
    try:
        folders = sorted(args.run.glob("trials/*/sae"))
        saes = [load_sae_folder(folder) for folder in folders]
        evaluator = HeldOutEvaluator(source.select, source.model)
        found = evaluator.paired(saes, run.hook_name, "delta_ce")
    finally:
        source.close()
    assert found is not None
    values = found.values()
    order = values.argsort()
    spread = float(values.std())
    context = source.select.tokens_NT.shape[1]  # type: ignore[union-attr]
    n_contexts = len(found.denominator_C)
    shown = ", ".join(f"{float(value):.4f}" for value in values[order])
    print(
        f"{args.run.name}: delta CE of {len(saes)} SAEs on {n_contexts * context} tokens: {shown}; spread {spread:.4f}"
    )
    print("tokens   SE of a difference (median, in spreads)   SE of one value   pairs that change places")
    generator = torch.Generator().manual_seed(0)
    contexts = 2
    while contexts <= n_contexts:
        scale = (n_contexts / contexts) ** 0.5
        neighbours = [
            found.stderr(_weights(len(saes), int(a), int(b))) * scale for a, b in itertools.pairwise(order.tolist())
        ]
        alone = [found.stderr(_weights(len(saes), i)) * scale for i in range(len(saes))]
        swapped = _swapped(found, contexts, generator)
        difference, single = (float(torch.tensor(each).median()) for each in (neighbours, alone))
        print(
            f"{contexts * context:6}   {difference:.4f} ({difference / spread:5.1%})   {single:.4f} ({single / spread:5.1%})   {swapped:.1%}"
        )
        contexts *= 2
    return 0


def _weights(count: int, first: int, second: int | None = None) -> torch.Tensor:
    weights = torch.zeros(count, dtype=torch.float64)
    weights[first] = 1
    if second is not None:
        weights[second] = -1
    return weights


def _swapped(found: PairedSums, contexts: int, generator: torch.Generator) -> float:
    """Return how often two SAEs come out in the other order than on all contexts."""
    whole = found.values()
    truth = whole[:, None] < whole[None]
    pairs = len(whole) * (len(whole) - 1)
    wrong = 0.0
    for _ in range(_CHOICES):
        chosen = torch.randperm(len(found.denominator_C), generator=generator)[:contexts]
        few = found.numerator_SC[:, chosen].sum(1) / found.denominator_C[chosen].sum()
        wrong += float(((few[:, None] < few[None]) != truth).sum()) / pairs
    return wrong / _CHOICES


if __name__ == "__main__":
    sys.exit(main())
