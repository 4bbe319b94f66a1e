"""`from_pretrained_path` through a whole run."""

from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError


def one_run(tree: dict[str, Any], **base: Any) -> dict[str, Any]:
    sae = {**tree["base"]["sae"], "architecture": "topk", "k": 8}
    return {
        "name": "one",
        "base": {**tree["base"], "sae": sae, **base},
        "space": {},
        "objective": {"maximize": "explained_variance"},
        "evaluation": tree["evaluation"],
    }


def test_a_run_continues_from_an_exported_sae(tree: dict[str, Any], tmp_path: Path) -> None:
    first = saesweep.run(one_run(tree), run_dir=tmp_path / "first")
    brief = {"training_tokens": 512, "lr": 1e-6, "lr_decay_steps": 0}
    fresh = saesweep.run(one_run(tree, **brief), run_dir=tmp_path / "fresh")
    resumed = saesweep.run(
        one_run(tree, **brief, from_pretrained_path=str(tmp_path / "first" / "best")), run_dir=tmp_path / "second"
    )
    trained, again, untrained = (r.test_metrics["explained_variance"] for r in (first, resumed, fresh))
    assert trained > untrained + 0.1
    assert again == pytest.approx(trained, abs=2e-3)


def test_weights_that_do_not_fit_are_refused_before_training(tree: dict[str, Any], tmp_path: Path) -> None:
    saesweep.run(one_run(tree, training_tokens=512, lr_decay_steps=0), run_dir=tmp_path / "first")
    other = one_run(tree, from_pretrained_path=str(tmp_path / "first" / "best"))
    other["base"]["sae"]["d_sae"] = 64
    with pytest.raises(UserError, match=r"from_pretrained_path: .*this run needs \[32, 64\]"):
        saesweep.run(other, run_dir=tmp_path / "second")
    assert not (tmp_path / "second" / "trials").exists()
