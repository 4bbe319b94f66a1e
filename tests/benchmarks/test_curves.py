"""The bench of learning curves: what is shipped can be read, and recording goes end to end."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.curves.curves import CurveSet, load, path_of, save, shipped
from benchmarks.curves.grid import ARCHITECTURES, Grid, TrialPlan, trials
from benchmarks.curves.record import join, missing
from benchmarks.curves.recorder import SHARES, record
from benchmarks.curves.sources import SOURCES, Source

_NONE: dict[str, tuple[float, ...]] = dict.fromkeys(ARCHITECTURES, ())
_MINI = Source(
    "mini",
    {"model_name": None, "dataset_path": "builtin:synthetic"},
    d_in=16,
    d_sae=32,
    steps=100,
    batch_tokens=64,
    select_tokens=256,
    grid=Grid(lrs=_NONE, settings=_NONE, targets=(4,)),
)
_PLANS = (
    TrialPlan("batchtopk", 5e-3, 4, length=0.25),
    TrialPlan("standard", 5e-3, 0.5, target_l0=4),
)


@pytest.fixture(scope="module")
def mini() -> CurveSet:
    return record(replace(missing(_MINI, 3, Path("nowhere")), plans=_PLANS), lambda text: None)


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_shipped_curves_are_whole(path: Path) -> None:
    found = load(path)
    source = SOURCES[found.source]
    assert path == path_of(found.source)
    plans = [
        (c.seed, TrialPlan(c.architecture, c.lr, c.setting, target_l0=c.target_l0, length=c.length))
        for c in found.curves
    ]
    seeds = {seed for seed, _ in plans}
    assert {0, 1} <= seeds
    assert len(plans) == len(set(plans))
    assert set(plans) == {(seed, plan) for seed in seeds for plan in trials(source.grid, seed)}
    for curve in found.curves:
        assert curve.is_complete is (curve.failed_at is None)
        if curve.length == 1.0 and curve.is_complete:
            assert len(curve.points) == len(SHARES)
            assert curve.total_steps == source.steps
        assert [p.step for p in curve.points] == sorted({p.step for p in curve.points})
        seconds = [p.sae_seconds for p in curve.points]
        assert seconds == sorted(seconds)
        assert all(p.tokens == p.step * curve.batch_tokens for p in curve.points)
        assert all(0 <= p.l0 <= curve.d_sae and p.explained_variance < 1 for p in curve.points)


def test_shipped_curves_need_few_megabytes() -> None:
    assert shipped()
    assert sum(path.stat().st_size for path in shipped()) < 6e6


def test_records_trials_to_their_ends(mini: CurveSet) -> None:
    short, steered = mini.curves
    assert (short.total_steps, short.length, short.lr_warm_up_steps, short.lr_decay_steps) == (25, 0.25, 1, 5)
    assert (steered.total_steps, steered.lr_warm_up_steps, steered.lr_decay_steps) == (100, 5, 20)
    assert len(steered.points) == len(SHARES)
    assert short.is_complete
    assert steered.is_complete
    assert all(p.train_l0 == pytest.approx(4, abs=0.02) for p in short.points)  # k holds in every batch
    assert short.points[0].coefficient is None
    assert short.end.explained_variance > short.points[0].explained_variance


def test_steered_trials_keep_their_coefficient(mini: CurveSet) -> None:
    _, steered = mini.curves
    frozen = steered.changes[-1][1]
    assert steered.changes[0][1] != steered.setting
    after = [p.coefficient for p in steered.points if p.step > steered.changes[-1][0]]
    assert after
    assert set(after) == {frozen}


def test_same_seed_gives_the_same_curves(mini: CurveSet) -> None:
    again = record(replace(missing(_MINI, 3, Path("nowhere")), plans=_PLANS), lambda text: None)
    for one, other in zip(mini.curves, again.curves, strict=True):
        timeless = [[replace(p, sae_seconds=0.0) for p in curve.points] for curve in (one, other)]
        assert timeless[0] == timeless[1]


def test_files_keep_five_digits(mini: CurveSet, tmp_path: Path) -> None:
    path = path_of("mini", tmp_path)
    save(mini, path)
    once = load(path)
    assert once.curves[0].end.mse == pytest.approx(mini.curves[0].end.mse, rel=1e-4)
    assert once.curves[1].changes[0][0] == mini.curves[1].changes[0][0]
    before = path.read_bytes()
    save(once, path)
    assert path.read_bytes() == before


def test_passes_are_joined_and_not_repeated(mini: CurveSet, tmp_path: Path) -> None:
    grid = Grid(
        lrs={name: (5e-3,) for name in ARCHITECTURES},
        settings={name: (4.0,) if name.endswith("topk") else (0.5,) for name in ARCHITECTURES},
        targets=(4,),
        seeds=(3, 4),
        steered_seeds=(3,),
        short_seeds=(3,),
    )
    source, parts = replace(_MINI, grid=grid), tmp_path / "parts"
    wanted = missing(source, 3, parts).plans
    assert len(wanted) == 5 + 5 + 3
    assert len(missing(source, 3, parts, with_short=False).plans) == 5 + 3
    save(mini, path_of("mini-3-0", parts))
    found = missing(source, 3, parts).plans
    assert set(wanted) - set(found) == {_PLANS[0], _PLANS[1]}
    save(replace(mini, curves=mini.curves[:1]), path_of("mini-4-0", parts))
    join(source, parts, tmp_path)
    assert len(load(path_of("mini", tmp_path)).curves) == 3


def test_reading_needs_no_torch() -> None:
    code = "import sys, benchmarks.curves.curves; assert 'torch' not in sys.modules"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
