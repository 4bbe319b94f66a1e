"""Studies that are committed: their experiments are valid, and what they show is there."""

from pathlib import Path

import pytest

from saesweep.experiment import load_experiment

STUDIES = sorted((Path(__file__).parents[2] / "docs" / "studies").iterdir())


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_experiment_is_valid_and_its_answer_is_beside_it(study: Path) -> None:
    experiment = load_experiment(study / "experiment.yaml")
    assert experiment.spec.name == study.name
    text = (study / "README.md").read_text()
    for name in experiment.architectures:
        assert name in text
    assert (study / "leaderboard.json").is_file()
    assert list(study.glob("*.png"))
