"""`validate`, `schema`, `init` and `plan` on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saesweep.cli import main
from saesweep.experiment import experiment_schema
from saesweep.specs import METRICS

GOOD = """\
name: tiny
base:
  model_name: null
  dataset_path: builtin:synthetic
  training_tokens: 64k
  train_batch_size_tokens: 1024
  lr: 1e-3
  sae: {architecture: topk, d_in: 64, d_sae: 256}
space:
  sae.architecture: {choice: [topk, batchtopk]}
  sae.k: {int: [4, 16], log: true}
  lr: {float: [1e-4, 1e-2], log: true}
objective: {pareto: [{minimize: l0}, {maximize: explained_variance}]}
search: {trials: 6}
"""
BAD = """\
name: tiny
base:
  model_name: null
  dataset_path: builtin:synthetic
  training_tokens: 64 bananas
  lrr: 1e-3
  sae: {architecture: topk, d_in: 64, d_sae: 256}
space:
  sae.architecture: {choice: [topk, batchtopkk]}
  sae.k: {int: [16, 4]}
  sae.banana: {int: [1, 2]}
objective: {minimize: sharpness}
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_validate_counts_what_is_in_the_file(good, capsys):
    assert main(["validate", str(good)]) == 0
    out = capsys.readouterr().out
    assert out == f"{good}: ok: 6 trials, 2 architectures (topk, batchtopk), 3 searched parameters\n"


def test_validate_takes_overrides(good, capsys):
    assert main(["validate", str(good), "--set", "search.trials=1"]) == 0
    assert ": ok: 1 trial," in capsys.readouterr().out
    assert main(["validate", str(good), "--set", "search.trails=1"]) == 2
    assert "trials" in capsys.readouterr().err


def test_validate_prints_every_mistake_with_its_place_and_checks_the_next_file(good, tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text(BAD)
    assert main(["validate", str(bad), str(tmp_path / "missing.yaml"), str(good)]) == 2
    out, err = capsys.readouterr()
    assert f"{good}: ok" in out
    assert "missing.yaml" in err
    located = [line for line in err.splitlines() if line.startswith(f"{bad}:")]
    lines = {int(line.removeprefix(f"{bad}:").split(":")[0]) for line in located}
    assert {5, 6, 9, 10, 11, 12} <= lines
    assert "did you mean 'lr'" in err.replace('"', "'")
    assert "Traceback" not in err


def test_schema_is_json_schema_on_stdout_or_in_a_file(tmp_path, capsys):
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"name", "base", "space", "objective", "search"} <= set(schema["properties"])
    file = tmp_path / "schema.json"
    assert main(["schema", "--output", str(file)]) == 0
    assert json.loads(file.read_text()) == schema
    assert main(["schema", "--output", str(tmp_path / "nowhere" / "schema.json")]) == 2
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err


def test_init_writes_a_valid_experiment_and_never_overwrites(tmp_path, capsys):
    path = tmp_path / "new" / "mine.yaml"
    assert main(["init", str(path)]) == 0
    assert f"saesweep run {path}" in capsys.readouterr().out
    assert "#" in path.read_text()
    assert main(["validate", str(path)]) == 0
    path.write_text("mine now")
    assert main(["init", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert path.read_text() == "mine now"


def test_init_prints_commands_that_a_shell_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my first.yaml"]) == 0
    assert "saesweep run 'my first.yaml'" in capsys.readouterr().out


def test_init_on_a_folder_or_below_a_file_is_refused(tmp_path, capsys):
    assert main(["init", str(tmp_path)]) == 2
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file" / "a.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_plan_says_what_would_run(good, capsys):
    assert main(["plan", str(good)]) == 0
    text = capsys.readouterr().out
    assert "6 trials" in text
    assert "topk" in text
    assert main(["plan", str(good), "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_a_missing_file_is_one_clean_message(tmp_path, capsys, command):
    assert main([command, str(tmp_path / "nowhere.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "nowhere.yaml" in err
    assert "Traceback" not in err


def test_init_writes_the_line_and_the_schema_that_editors_read(tmp_path, capsys):
    path = tmp_path / "a.yaml"
    assert main(["init", str(path)]) == 0
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=saesweep.schema.json"
    schema = json.loads((tmp_path / "saesweep.schema.json").read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "saesweep.schema.json" in capsys.readouterr().out
    (tmp_path / "saesweep.schema.json").write_text("{}")
    assert main(["init", str(tmp_path / "b.yaml")]) == 0
    assert (tmp_path / "saesweep.schema.json").read_text() == "{}"  # somebody's own


def test_the_schema_knows_the_names_of_architectures_and_metrics():
    schema = experiment_schema()
    architecture = schema["properties"]["space"]["properties"]["sae.architecture"]
    assert set(architecture["properties"]["choice"]["items"]["enum"]) >= {"topk", "jumprelu", "matryoshka_batchtopk"}
    known = schema["$defs"]["Goal"]["properties"]["minimize"]["anyOf"][0]["enum"]
    assert set(known) == set(METRICS)
    objective = schema["$defs"]["ObjectiveSpec"]["properties"]
    assert objective["maximize"]["anyOf"][0]["enum"] == known
    assert objective["subject_to"]["propertyNames"]["enum"] == known


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_what_is_not_on_this_machine_is_said_with_its_line(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(
        "name: a\nbase:\n  model_name: ./nowhere\n  hook_name: model.layers.2\n"
        "  dataset_path: nowhere.jsonl\n  training_tokens: 100k\n  sae: {d_in: 128, d_sae: 256}\n"
    )
    assert main([command, "a.yaml"]) == 2
    err = capsys.readouterr().err
    assert "a.yaml:3:15: base.model_name: the folder './nowhere' does not exist" in err
    assert "a.yaml:5:17: base.dataset_path: 'nowhere.jsonl' does not exist" in err
    assert err.rstrip().endswith("2 mistakes")
