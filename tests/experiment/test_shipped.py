"""The experiments in the repository, the studies that are committed and the starter file: valid, and every point of their spaces resolves."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from saesweep.experiment import Experiment, load_experiment
from saesweep.experiment.authoring import template
from saesweep.specs import ParameterSpec

FOLDER = Path(__file__).parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))


def draw(spec: ParameterSpec, rng: random.Random) -> Any:
    if spec.choice is not None:
        return rng.choice(spec.choice)
    if spec.log:
        value = math.exp(rng.uniform(math.log(spec.low), math.log(spec.high)))
    else:
        value = rng.uniform(spec.low, spec.high)
    return round(value) if spec.kind == "int" else min(max(value, spec.low), spec.high)


def random_point(experiment: Experiment, rng: random.Random) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for parameter in experiment.parameters():
        if parameter.is_active(params):
            assert parameter.path not in params
            params[parameter.path] = draw(parameter.spec, rng)
    return params


def test_the_experiments_of_the_documentation_are_there() -> None:
    assert {p.stem for p in FILES} >= {
        "quickstart",
        "gemma_l12",
        "gpt2_small_l8",
        "pythia70m_l3",
        "tinystories_1l21m",
        "synthetic",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_point_resolves(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.warnings == ()
    assert experiment.spec.name == path.stem
    rng = random.Random(0)
    for _ in range(50):
        run = experiment.resolve(random_point(experiment, rng))
        assert run.problems() == []
        is_built_in = str(run.model_name).startswith("builtin:")
        assert run.sae.d_in is not None or is_built_in  # so that `plan` needs no download


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_begin_with_their_command_and_state_trade_offs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# saesweep run experiments/{path.name}")
    assert "# Trade-offs." in text
    assert not re.search(r"\t|[ ]+$", text, re.MULTILINE)


def test_quickstart_shows_what_it_promises() -> None:
    experiment = load_experiment(FOLDER / "quickstart.yaml")
    assert experiment.n_trials >= 12
    assert len(experiment.architectures) >= 4
    assert experiment.spec.base["model_name"] == "builtin:tiny-lm"


def test_the_tutorial_run_is_the_tutorials() -> None:
    experiment = load_experiment(FOLDER / "tinystories_1l21m.yaml", overrides=["space={}", "search.baselines=[]"])
    run = experiment.resolve({})
    sae = run.sae.model_dump(mode="json")
    assert (run.total_steps, run.train_batch_size_tokens, run.context_size, run.lr) == (30_000, 4096, 256, 5e-5)
    assert (sae["architecture"], sae["d_sae"], sae["l1_coefficient"]) == ("standard", 16 * 1024, 5.0)
    assert run.hook_name == "blocks.0.hook_mlp_out"


def test_template(tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    path.write_text(template(), encoding="utf-8")
    experiment = load_experiment(path)
    assert experiment.warnings == ()
    rng = random.Random(0)
    for _ in range(50):
        experiment.resolve(random_point(experiment, rng))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_for_real_models_leave_attention_sinks_out(path: Path) -> None:
    run = load_experiment(path).base_run()
    is_builtin = run.model_name is None or run.model_name.startswith("builtin:")
    assert run.max_activation_norm_multiple == (None if is_builtin else 10)


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
