"""`evaluation.references`: published SAEs on the tokens that the trials are ranked on."""

import json
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from saesweep.experiment import load_experiment


def small(tree: dict[str, Any], *references: str, **sae: Any) -> dict[str, Any]:
    return {
        "name": "one",
        "base": {
            **tree["base"],
            "training_tokens": 2560,
            "lr_decay_steps": 0,
            "sae": {**tree["base"]["sae"], "architecture": "topk", "k": 8, **sae},
        },
        "space": {},
        "evaluation": {**tree["evaluation"], "references": list(references)},
    }


def test_a_reference_scores_what_its_own_run_measured(tree: dict[str, Any], tmp_path: Path) -> None:
    saesweep.run(small(tree), run_dir=tmp_path / "first")
    best = str(tmp_path / "first" / "best")
    saesweep.run(small(tree, best, k=4), run_dir=tmp_path / "second")
    (row,) = json.loads((tmp_path / "second" / "references.json").read_text())
    (trial,) = json.loads((tmp_path / "first" / "leaderboard.json").read_text())["rows"]
    assert row["source"] == best
    assert row["architecture"] == "topk"
    for metric in ("l0", "mse", "explained_variance"):
        assert row["metrics"][metric] == pytest.approx(trial["metrics"][metric], rel=1e-6)
    notes = json.loads((tmp_path / "second" / "leaderboard.json").read_text())["notes"]
    assert any(note.startswith("reference best (topk, d_sae 128): L0 8.0") for note in notes)


def test_references_may_change_when_a_run_goes_on(tree: dict[str, Any]) -> None:
    assert load_experiment(small(tree)).fingerprint() == load_experiment(small(tree, "a/b/c")).fingerprint()


def test_a_reference_that_does_not_fit_is_refused_before_training(tree: dict[str, Any], tmp_path: Path) -> None:
    saesweep.run(small(tree, d_in=16), run_dir=tmp_path / "first")
    with pytest.raises(UserError, match=r"evaluation\.references: .* reads activations 16 wide"):
        saesweep.run(small(tree, str(tmp_path / "first" / "best")), run_dir=tmp_path / "second")
    with pytest.raises(UserError, match="neither a folder here"):
        saesweep.run(small(tree, str(tmp_path / "nothing")), run_dir=tmp_path / "third")
    assert not (tmp_path / "second" / "trials").exists()
