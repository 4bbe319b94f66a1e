"""Whole sweeps whose topk SAEs train stacked: resumed runs, what is chosen and kept, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from tests.reliability.conftest import few_trials
from tests.sweep.studies import snapshot, stopping_at


def stacked_sweep(**cohort: Any) -> dict[str, Any]:
    """Return a sweep of topk and standard SAEs in which places are taken over, and dead latents have a loss."""
    tree = few_trials()
    tree["cohort"] |= {"kernels": "stacked", **cohort}
    tree["base"]["dead_feature_window"] = 5
    tree["space"]["sae.architecture"] = {"choice": ["topk", "batchtopk", "standard"]}
    return tree


def kept_kernels(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "choices.json").read_text())["kernels"]
    return found


def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = saesweep.run(stacked_sweep(), run_dir=tmp_path / "whole")
    assert whole.status == "complete"
    assert {row.architecture for row in whole.rows} == {"topk", "batchtopk", "standard"}
    for block in (1, 3):
        stopped = saesweep.run(stacked_sweep(), run_dir=tmp_path / "run", listeners=[stopping_at(block)])
        assert stopped.status == "interrupted"
    assert saesweep.run(stacked_sweep(), run_dir=tmp_path / "run").status == "complete"
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "whole")
    assert kept_kernels(tmp_path / "run")["stacked"] == "batched"


def test_a_trial_has_the_same_course_alone_as_in_a_stack(tmp_path: Path) -> None:
    for size in (1, 4):
        tree = stacked_sweep(size=size)
        tree["space"]["sae.architecture"] = {"choice": ["topk"]}
        del tree["space"]["sae.l1_coefficient"]
        tree["search"] |= {"trials": 4, "pruner": "none"}
        saesweep.run(tree, run_dir=tmp_path / str(size))
    first, same = ((tmp_path / size / "trials" / "0000" / "metrics.jsonl").read_text() for size in ("1", "4"))
    assert first == same


def test_on_a_cpu_nothing_is_stacked_unless_asked_for(tmp_path: Path) -> None:
    for kernels in ("auto", "sparse"):
        saesweep.run(stacked_sweep(kernels=kernels), run_dir=tmp_path / kernels, listeners=[stopping_at(1)])
        assert kept_kernels(tmp_path / kernels)["stacked"] == "no"


def test_stacking_what_cannot_be_stacked_is_refused(tmp_path: Path) -> None:
    tree = stacked_sweep()
    tree["space"]["sae.architecture"] = {"choice": ["standard"]}
    del tree["space"]["sae.k"]
    with pytest.raises(
        UserError, match=r"cohort\.kernels: stacked is for topk, batchtopk and matryoshka_batchtopk SAEs"
    ):
        saesweep.run(tree, run_dir=tmp_path / "run")
    with pytest.raises(UserError, match=r"kernels: stacked .* adam_moments is bfloat16"):
        saesweep.run(stacked_sweep(adam_moments="bfloat16"), run_dir=tmp_path / "run")
