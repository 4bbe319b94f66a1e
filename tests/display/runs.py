"""Made-up runs for the tests of the displays."""

from __future__ import annotations

from typing import Any

from saesweep.display.columns import states_of
from saesweep.events import BlockDone, BlockProgress, Row, RunEnded, RunStarted

TOTAL_TOKENS = 1_000_000


def row(number: int, **changes: Any) -> Row:
    """A finished batchtopk trial; `changes` replace fields."""
    fields: dict[str, Any] = {
        "number": number,
        "architecture": "batchtopk",
        "sparsity": "k 32",
        "params": {"sae.architecture": "batchtopk", "sae.k": 32, "lr": 3e-4},
        "lr": 3e-4,
        "hook": "model.layers.2",
        "status": "complete",
        "tokens": TOTAL_TOKENS,
        "total_tokens": TOTAL_TOKENS,
        "joined_at_tokens": 0,
        "rank": number + 1,
        "metrics": {"l0": 31.9, "delta_ce": 0.2134, "explained_variance": 0.8713, "dead_fraction": 0.031},
        "measured_at_tokens": TOTAL_TOKENS,
        "dead_window_tokens": 500_000,
    }
    return Row(**{**fields, **changes})


ROWS = (
    row(3, rank=1, on_front=True),
    row(1, rank=2, architecture="jumprelu", sparsity="λ 1.5", is_baseline=True, lr=7e-5, joined_at_tokens=50_000),
    row(0, rank=3, status="training", tokens=430_000, slot=0, measured_at_tokens=200_000),
    row(
        2,
        rank=4,
        status="pruned",
        tokens=50_000,
        architecture="topk",
        measured_at_tokens=50_000,
        reason="rung 1: 5 of 6",
    ),
    row(
        4,
        rank=None,
        status="failed",
        tokens=12_288,
        metrics={},
        measured_at_tokens=None,
        reason="loss was NaN at step 3",
    ),
)

STARTED = RunStarted(
    name="quickstart",
    run_dir="runs/quickstart",
    trials=12,
    slots=4,
    total_tokens=TOTAL_TOKENS,
    goals=("minimize l0", "minimize delta_ce"),
    metrics=("l0", "delta_ce", "explained_variance", "dead_fraction"),
    notes=("the text has 2 epochs",),
    details=("cohort of 4: memory allows 9",),
)


def block(**changes: Any) -> BlockDone:
    """A block after 430k tokens of the stream."""
    fields: dict[str, Any] = {
        "block": 7,
        "stream_tokens": 430_000,
        "sae_tokens": 1_492_288,
        "expected_sae_tokens": 9_000_000,
        "seconds": 2.5,
        "sae_tokens_per_second": 152_345.0,
        "eta_seconds": 192.0,
        "losses": {0: 12.5},
        "rows": ROWS,
        **changes,
    }
    return BlockDone(**{"states": fields.get("states") or states_of(fields["rows"]), **fields})


def within(tokens: int) -> BlockProgress:
    """Part of a block, in which trial 0 has so many tokens."""
    return BlockProgress(
        stream_tokens=tokens,
        sae_tokens=tokens,
        expected_sae_tokens=9_000_000,
        sae_tokens_per_second=152_345.0,
        eta_seconds=192.0,
        tokens={0: tokens},
    )


def ended(**changes: Any) -> RunEnded:
    """The end of the run."""
    fields: dict[str, Any] = {
        "status": "complete",
        "rows": ROWS,
        "best": 3,
        "best_dir": "runs/quickstart/best",
        "test_metrics": {"explained_variance": 0.8699, "l0": 32.1},
        "trained_tokens": 1_492_288,
        "seconds": 10.0,
        "notes": ("best/ is the knee of the front",),
    }
    return RunEnded(**{**fields, **changes})
