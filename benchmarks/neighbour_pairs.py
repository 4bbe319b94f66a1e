"""What serving neighbouring tokens together costs, and what the loss that compares them does.

    python benchmarks/neighbour_pairs.py --shared ../shared                 # minutes on two cores

Matryoshka SAEs of stories260K: on single tokens, on pairs of neighbours (`base.neighbour_pairs`), and on pairs with several
`sae.temporal_coefficient`, three seeds each. Prints a Markdown table: reconstruction on held-out text, and how alike the latents of
neighbours and of tokens of different texts are there (mean cosines), among the first inner width and among the rest.
`benchmarks/shuffle.py --pairs` says what pairs do to the shuffle.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import saesweep
from saesweep.activations import open_source
from saesweep.activations.rows import paired
from saesweep.display.plain import PlainDisplay
from saesweep.events import Row
from saesweep.experiment import Experiment, load_experiment
from saesweep.saes import ExportedSAE, open_sae

HOOK = "model.layers.2"
D_SAE, FIRST = 1024, 204
COEFFICIENTS = (0.0, 0.4, 2.0, 10.0)
REPLICATES = 3
AWAY = 1000
"""Pairs between one and another text."""


def experiment(shared: Path, tokens: str) -> Experiment:
    """Return the sweep: two streams, one of them with and without the loss."""
    return load_experiment(
        {
            "name": "neighbour_pairs",
            "base": {
                "model_name": str(shared / "models" / "stories260K"),
                "hook_name": HOOK,
                "dataset_path": str(shared / "text" / "stories_sampled.txt"),
                "context_size": 128,
                "exclude_special_tokens": True,
                "training_tokens": tokens,
                "train_batch_size_tokens": 512,
                "lr": 1e-3,
                "lr_warm_up_steps": "2%",
                "lr_decay_steps": "20%",
                "sae": {
                    "architecture": "matryoshka_batchtopk",
                    "d_in": 64,
                    "d_sae": D_SAE,
                    "k": 16,
                    "matryoshka_widths": [FIRST],
                    "normalize_activations": "expected_average_only_in",
                },
            },
            "space": {
                "neighbour_pairs": {"choice": [False, True]},
                "sae.temporal_coefficient": {"choice": list(COEFFICIENTS), "when": {"neighbour_pairs": True}},
            },
            "objective": {"minimize": "delta_ce"},
            "evaluation": {"select_tokens": "50k", "test_tokens": "20k", "ce_tokens": "20k"},
            "search": {"sampler": "grid", "pruner": "none", "replicates": REPLICATES},
            "cohort": {"size": REPLICATES * len(COEFFICIENTS)},
        }
    )


def neighbours(what: Experiment) -> tuple[Tensor, Tensor]:
    """Return held-out activations of tokens [P,D], and of the tokens after them."""
    run = what.base_run()
    source = open_source(run, what.spec.evaluation, (HOOK,))
    part = source.select
    assert part.tokens_NT is not None
    assert part.mask_NT is not None
    kept_NT = paired(part.mask_NT)
    of_row = kept_NT[part.mask_NT]  # of the rows that the part gives, in order
    rows_BD = torch.cat(list(part.batches(HOOK)))[of_row]
    source.close()
    return rows_BD[0::2], rows_BD[1::2]


def alike(sae: ExportedSAE, first_PD: Tensor, second_PD: Tensor) -> list[float]:
    """Return the mean cosine between the latents of neighbours and of tokens that are none, of the first inner width and of the rest."""
    before_PF, after_PF = (sae.encode(rows_PD) for rows_PD in (first_PD, second_PD))
    return [
        float(cosine_similarity(before_PF[:, part], other_PF[:, part]).mean())
        for part in (slice(FIRST), slice(FIRST, None))
        for other_PF in (after_PF, after_PF.roll(AWAY, 0))
    ]


def line(row: Row, run_dir: Path, first_PD: Tensor, second_PD: Tensor) -> str:
    """Return the table's line of a trial."""
    folder = run_dir / "trials" / f"{row.number:04d}"
    names = ["sae", *(f"sae-replicate-{i}" for i in range(1, REPLICATES))]
    found = [alike(open_sae(folder / name), first_PD, second_PD) for name in names]
    params: dict[str, Any] = dict(row.params)
    rows = "pairs" if params["neighbour_pairs"] else "single tokens"
    cells = [f"{row.metrics[m]:.4f} ± {row.spread[m]:.4f}" for m in ("explained_variance", "delta_ce")]
    cells += [" / ".join(_with_spread([each[i + j] for each in found]) for j in (0, 1)) for i in (0, 2)]
    return f"| {rows} | {params.get('sae.temporal_coefficient', 0):g} | {row.metrics['l0']:.1f} | {' | '.join(cells)} |"


def _with_spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> int:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of models/stories260K and text/")
    parser.add_argument("--tokens", default="1M", help="training tokens of each SAE")
    parser.add_argument("--run-dir", type=Path, help="where the run goes (default: a temporary folder)")
    arguments = parser.parse_args()
    what = experiment(arguments.shared, arguments.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = arguments.run_dir or Path(scratch) / "run"
        result = saesweep.run(what.tree, run_dir=run_dir, listeners=[PlainDisplay(sys.stderr)])
        if result.status == "interrupted":
            return result.exit_code
        first_PD, second_PD = neighbours(what)
        print(
            "| batches of | coefficient | L0 | explained variance | ΔCE | first latents: neighbours / others | the rest |"
        )
        print("|---|---|---|---|---|---|---|")
        for row in sorted(result.rows, key=lambda row: row.number):
            print(line(row, run_dir, first_PD, second_PD))
    return 0


if __name__ == "__main__":
    sys.exit(main())
