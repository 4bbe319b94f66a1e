"""`evaluation.references`: published SAEs on the tokens that the trials are ranked on, as rows of the leaderboard."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.display import make_display
from saesweep.driver import references as module
from saesweep.driver.references import ranked_references, reference_notes
from saesweep.errors import UserError
from saesweep.events import BlockDone, ReferenceRow
from saesweep.experiment import load_experiment
from saesweep.specs import ObjectiveSpec
from tests.display.runs import row


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
        "objective": {"maximize": "explained_variance"},
        "evaluation": {**tree["evaluation"], "references": list(references)},
    }


def test_a_reference_scores_what_its_own_run_measured_and_is_no_trial(
    tree: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = small(tree)
    longer["base"]["training_tokens"] = 10_240
    saesweep.run(longer, run_dir=tmp_path / "first")
    best = str(tmp_path / "first" / "best")
    blocks: list[BlockDone] = []
    plain = io.StringIO()
    with make_display("plain", plain) as display:
        result = saesweep.run(
            small(tree, best, k=4),
            run_dir=tmp_path / "second",
            listeners=[display, lambda event: blocks.extend([event] * isinstance(event, BlockDone))],
        )
    board = json.loads((tmp_path / "second" / "leaderboard.json").read_text())
    (reference,) = board["references"]
    (trial,) = json.loads((tmp_path / "first" / "leaderboard.json").read_text())["rows"]
    assert (reference["source"], reference["status"], reference["architecture"]) == (best, "reference", "topk")
    assert (reference["rank"], reference["sparsity"], reference["d_sae"]) == (1, "k 8", 128)
    for metric in ("l0", "mse", "explained_variance", "explained_variance_stderr"):
        assert reference["metrics"][metric] == pytest.approx(trial["metrics"][metric], rel=1e-6)
    assert [row["number"] for row in board["rows"]] == [0]
    assert board["rows"][0]["rank"] == 1  # trials are ranked without it
    assert (result.best, len(result.rows), len(result.references)) == (0, 1, 1)
    assert blocks[-1].references[0].metrics == result.references[0].metrics
    assert any(f"reference {best} is better in explained_variance than trial 0" in note for note in board["notes"])

    assert main(["leaderboard", str(tmp_path / "second")]) == 0
    printed = capsys.readouterr().out
    for text in (printed, plain.getvalue()):
        line = next(line for line in text.splitlines() if line.endswith("  reference"))
        assert line.split()[:5] == ["1", "r0", "topk", "k", "8"]
        assert f"r0: reference {best} (topk, d_sae 128); trials are ranked without it" in text
        assert "trials: topk 1 (1 complete)" in text
    assert main(["leaderboard", str(tmp_path / "second"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == board


def test_references_may_change_when_a_run_resumes_and_are_measured_once(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_experiment(small(tree)).fingerprint() == load_experiment(small(tree, "a/b/c")).fingerprint()
    saesweep.run(small(tree), run_dir=tmp_path / "first")
    best, trial = (str(tmp_path / "first" / folder) for folder in ("best", "trials/0000/sae"))
    assert saesweep.run(small(tree, best), run_dir=tmp_path / "first").status == "complete"
    assert saesweep.run(small(tree, best), run_dir=tmp_path / "first").status == "already complete"
    measured = json.loads((tmp_path / "first" / "references.json").read_text())
    measured[0]["metrics"]["l0"] = 77.0  # shows that it is read, not measured again
    (tmp_path / "first" / "references.json").write_text(json.dumps(measured))
    result = saesweep.run(small(tree, best, trial), run_dir=tmp_path / "first")
    assert [round(row.metrics["l0"]) for row in result.references] == [77, 8]
    assert result.rows[0].metrics["l0"] == pytest.approx(8, abs=0.1)


def test_a_reference_that_does_not_fit_is_refused_before_training(tree: dict[str, Any], tmp_path: Path) -> None:
    saesweep.run(small(tree, d_in=16), run_dir=tmp_path / "first")
    with pytest.raises(UserError, match=r"evaluation\.references: .* reads activations 16 wide"):
        saesweep.run(small(tree, str(tmp_path / "first" / "best")), run_dir=tmp_path / "second")
    with pytest.raises(UserError, match="does not exist; give the folder of an exported SAE"):
        saesweep.run(small(tree, str(tmp_path / "nothing")), run_dir=tmp_path / "third")
    assert not (tmp_path / "second" / "trials").exists()


def reference(number: int, **metrics: float) -> ReferenceRow:
    return module._row(
        number,
        {
            "source": f"r{number}",
            "hook": "h",
            "architecture": "jumprelu",
            "sparsity": "",
            "d_sae": 8,
            "metrics": metrics,
        },
    )


PARETO = ObjectiveSpec.model_validate({"pareto": [{"minimize": "l0"}, {"minimize": "delta_ce"}]})
TRIALS = [
    row(0, rank=1, metrics={"l0": 10, "delta_ce": 0.5}),
    row(1, rank=1, metrics={"l0": 40, "delta_ce": 0.1}),
    row(2, rank=2, metrics={"l0": 50, "delta_ce": 0.3}),
    row(3, rank=None, status="pruned", metrics={"l0": 1, "delta_ce": 0.01}),
]


def test_on_a_front_a_reference_stands_behind_what_dominates_it() -> None:
    found = ranked_references(
        [
            reference(0, l0=20, delta_ce=0.3),
            reference(1, l0=45, delta_ce=0.2),
            reference(2, l0=60, delta_ce=0.4),
            reference(3, l0=60),
        ],
        TRIALS,
        PARETO,
    )
    assert [(r.rank, r.on_front) for r in found] == [(1, True), (2, False), (3, False), (None, False)]
    assert reference_notes(found, TRIALS, PARETO, best=2) == [
        f"reference r{n} is better in l0 and delta_ce than trial 2, which best/ holds" for n in (0, 1)
    ]


def test_a_reference_that_misses_a_constraint_has_no_rank() -> None:
    objective = ObjectiveSpec.model_validate({"minimize": "delta_ce", "subject_to": {"l0": {"max": 45}}})
    trials = [row(1, rank=1, metrics={"l0": 40, "delta_ce": 0.1}), row(0, rank=2, metrics={"l0": 10, "delta_ce": 0.5})]
    found = ranked_references([reference(0, l0=44, delta_ce=0.2), reference(1, l0=60, delta_ce=0)], trials, objective)
    assert [(r.rank, r.feasible) for r in found] == [(2, True), (None, False)]
    assert ranked_references([reference(0, l0=1, delta_ce=0)], [], objective)[0].rank is None
