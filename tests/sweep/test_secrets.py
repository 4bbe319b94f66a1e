"""Values of environment variables are used and never written: the whole run directory is searched for them, byte by byte."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import saesweep
from saesweep.cli import main
from saesweep.display import make_display
from saesweep.errors import UserError
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.publish.push import push
from saesweep.report import write_report
from tests.models.tiny import WORDS, save_llama
from tests.sweep.studies import snapshot, stopping_at

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of wandb's own imports

TOKEN = "hf_secretSECRETsecretSECRET12345"
PLACE = "S3CR3T-place-of-the-data"
OWNER = "s3cr3t-owner"
SECRETS = (TOKEN, PLACE, OWNER)
REFERENCE = "${env:SAESWEEP_T_TOKEN}"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment whose model, data, token and tracker come from the environment."""
    place = tmp_path / PLACE
    save_llama(place / "model")
    (place / "text.txt").write_text("\n".join(" ".join(WORDS[i % 90 : i % 90 + 30]) for i in range(1500)))
    monkeypatch.setenv("SAESWEEP_T_TOKEN", TOKEN)
    monkeypatch.setenv("SAESWEEP_T_PLACE", str(place))
    monkeypatch.setenv("SAESWEEP_T_OWNER", OWNER)
    monkeypatch.setenv("SAESWEEP_T_TOKENS", "16384")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return {
        "name": "secret",
        "base": {
            "model_name": "${env:SAESWEEP_T_PLACE}/model",
            "model_from_pretrained_kwargs": {"token": REFERENCE, "dtype": "float32"},
            "hook_name": "model.layers.1",
            "dataset_path": "${env:SAESWEEP_T_PLACE}/text.txt",
            "context_size": 16,
            "training_tokens": "${env:SAESWEEP_T_TOKENS}",
            "train_batch_size_tokens": 256,
            "device": "cpu",
            "logger": {"wandb_entity": "${env:SAESWEEP_T_OWNER}"},
            "sae": {"architecture": "topk", "d_sae": 64},
        },
        "space": {"sae.k": {"int": [2, 16]}},
        "evaluation": {"select_tokens": 512, "test_tokens": 512},
        "search": {"trials": 3, "rungs": ["50%"], "min_rung_steps": 1},
        "cohort": {"size": 2, "checkpoint_seconds": 0},
    }


def leaks(folder: Path, secrets: tuple[str, ...] = SECRETS) -> list[str]:
    """Return the files of a folder, links included, whose bytes hold a secret."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 5
    return [f"{file.relative_to(folder)}: {s}" for file in files for s in secrets if s.encode() in file.read_bytes()]


def test_nothing_of_a_run_holds_a_secret(tree: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    tree["base"]["logger"] = {"log_to_wandb": True, "wandb_project": "p"}
    tree["search"]["confirm"] = {"top": 1, "replicates": 1, "training_tokens": "1x"}
    tree["evaluation"]["dataset"] = {"dataset_path": "${env:SAESWEEP_T_PLACE}/text.txt"}
    file, run = tmp_path / "e.yaml", tmp_path / "run"
    file.write_text(dump_yaml(tree))
    with make_display("json") as shown:  # the command would end this process where W&B is slow to write its files
        assert saesweep.run(file, run_dir=run, listeners=(shown,)).status == "complete"
    said = capsys.readouterr()
    assert not [secret for secret in SECRETS if secret in said.out + said.err]
    write_report(run, pngs=False)
    assert (run / "features.html").exists()
    assert leaks(run) == []
    best = run / "best"
    cfg, runner = (json.loads((best / name).read_text()) for name in ("cfg.json", "runner_cfg.json"))
    assert cfg["metadata"]["model_name"] == runner["model_name"] == "${env:SAESWEEP_T_PLACE}/model"
    assert runner["model_from_pretrained_kwargs"] == {"token": REFERENCE, "dtype": "float32"}
    # SAELens would send the reference as a token.
    assert cfg["metadata"]["model_from_pretrained_kwargs"] == {"dtype": "float32"}
    assert runner["training_tokens"] == 16384  # a number decides what is trained, and is written out
    for name in (run / "experiment.yaml", best / "experiment.yaml"):
        assert "${env:SAESWEEP_T_PLACE}/text.txt" in name.read_text()
        assert load_experiment(name).base_run().dataset_path.endswith(f"{PLACE}/text.txt")
    pushed = push({"a/b": best}, "user/name", dry_run=True)
    assert "README.md" in dict(pushed.files)
    # An export is a start for the next experiment, which repeats the references: the folder may be somebody else's.
    start = {"name": "again", "base": {"from_cfg": str(best)}}
    with pytest.raises(UserError, match="which a file that somebody else may have written must not") as caught:
        load_experiment(start)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    again = load_experiment(start, overrides=re.findall(r"--set '([^']*)'", str(caught.value)))
    assert again.base_run().model_from_pretrained_kwargs == {"token": TOKEN, "dtype": "float32"}
    assert TOKEN not in json.dumps(again.written)
    # What lies beside an SAE may be somebody else's: `eval` reads the variables that its own command repeats.
    assert main(["eval", str(best)]) == 2
    refused = capsys.readouterr().err
    asked = [f"base.{name}" for name in ("model_name", "model_from_pretrained_kwargs", "dataset_path")]
    asked.append("evaluation.dataset.dataset_path")
    assert ", ".join(asked) + " refer to environment variables" in refused
    repeated = re.findall(r"--set '([^']*)'", refused)
    assert [text.split("=")[0] for text in repeated] == asked
    assert main(["eval", str(best), *(part for text in repeated for part in ("--set", text))]) == 0
    assert main(["report", str(run), "--no-png", "--feature-tokens", "512"]) == 0
    said = capsys.readouterr()
    assert not [secret for secret in (TOKEN, OWNER) if secret in said.out + said.err]
    assert leaks(run) == []


def test_resumed_with_the_same_value_and_with_another(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree["base"]["training_tokens"] = 4096
    same, other = tmp_path / "same", tmp_path / "other"
    assert saesweep.run(tree, run_dir=same, listeners=(stopping_at(1),)).status == "interrupted"
    shutil.copytree(same, other)
    assert saesweep.run(tree, run_dir=same).status == "complete"
    # The data has moved and the token was renewed.
    (tmp_path / PLACE).rename(tmp_path / "moved")
    monkeypatch.setenv("SAESWEEP_T_PLACE", str(tmp_path / "moved"))
    monkeypatch.setenv("SAESWEEP_T_TOKEN", "hf_another0another0another0")
    assert saesweep.run(tree, run_dir=other).status == "complete"
    assert saesweep.run(tree, run_dir=tmp_path / "whole").status == "complete"
    whole = snapshot(tmp_path / "whole")
    for run in (same, other):
        found = snapshot(run)
        assert found["weights"] == whole["weights"]
        assert found["study"] == whole["study"]
        assert leaks(run, (*SECRETS, str(tmp_path / "moved"), "hf_another0another0another0")) == []


def test_another_number_is_another_run(tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saesweep.run(tree, run_dir=tmp_path / "run", listeners=(stopping_at(1),))
    monkeypatch.setenv("SAESWEEP_T_TOKENS", "32768")
    with pytest.raises(UserError, match=r"base\.training_tokens: '16384' -> '32768'"):
        saesweep.run(tree, run_dir=tmp_path / "run")


def test_searched_places_keep_their_references(tree: dict[str, Any], tmp_path: Path) -> None:
    """Parameters are stored in the study, and name streams, folders and rows."""
    data = tmp_path / PLACE
    (data / "other.txt").write_text((data / "text.txt").read_text()[::-1])
    del tree["base"]["dataset_path"]
    choices = ["${env:SAESWEEP_T_PLACE}/text.txt", "${env:SAESWEEP_T_PLACE}/other.txt"]
    tree["space"]["dataset_path"] = {"choice": choices}
    tree["search"]["baselines"] = [{"dataset_path": choices[1], "sae.k": 4}]
    result = saesweep.run(tree, run_dir=tmp_path / "run")
    assert {row.params["dataset_path"] for row in result.rows} == set(choices)
    assert leaks(tmp_path / "run") == []
    runner = json.loads((tmp_path / "run" / "best" / "runner_cfg.json").read_text())
    assert runner["dataset_path"] in choices


def test_messages_and_representations_show_the_reference(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_experiment(tree)
    shown = repr(experiment) + repr(experiment.base_run()) + str(experiment.base_run())
    assert not [secret for secret in SECRETS if secret in shown]
    wrong = copy.deepcopy(tree)
    wrong["base"]["dataset_path"] = "${env:SAESWEEP_T_PLACE}/nowhere.txt"
    with pytest.raises(UserError) as caught:
        saesweep.run(wrong, run_dir=tmp_path / "run")
    assert "${env:SAESWEEP_T_PLACE}/nowhere.txt" in str(caught.value)
    assert PLACE not in str(caught.value)
    monkeypatch.setenv("SAESWEEP_T_TOKEN", 'quoted \'n "odd" secret')
    wrong = {**tree, "base": {**tree["base"], "model_from_pretrained_kwargs": {"dtype": REFERENCE}}}
    with pytest.raises(UserError) as caught:
        saesweep.run(wrong, run_dir=tmp_path / "other")
    assert REFERENCE in str(caught.value)
    assert "odd" not in str(caught.value)


def test_variables_are_not_needed_to_look_at_a_run(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saesweep.run(tree, run_dir=tmp_path / "run")
    for name in ("TOKEN", "PLACE", "OWNER", "TOKENS"):
        monkeypatch.delenv(f"SAESWEEP_T_{name}")
    assert main(["leaderboard", str(tmp_path / "run"), "--details"]) == 0
    assert main(["report", str(tmp_path / "run"), "--no-png", "--no-features"]) == 0
    assert "not set" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(("here", name) for name in ("runner_cfg.json", "cfg.json", "experiment.yaml")),
        *(("user/repo/folder", name) for name in ("runner_cfg.json", "cfg.json")),  # the third is not read there
    ],
)
def test_a_foreign_file_cannot_ask_for_a_variable(
    source: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model_name: evil/${env:HF_TOKEN}` in somebody's cfg.json would send the token as part of a request."""
    from saesweep.experiment import from_cfg

    monkeypatch.setenv("SAESWEEP_T_TOKEN", TOKEN)
    run = {"model_name": f"evil/{REFERENCE}", "dataset_path": "d", "hook_name": "h"}
    sae = {"architecture": "topk", "d_in": 8, "d_sae": 64, "k": 4}
    files = {
        "runner_cfg.json": {**run, "sae": sae},
        "cfg.json": {**sae, "metadata": run},
        "experiment.yaml": {"name": "evil", "base": {**run, "sae": sae}},
    }
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "cfg.json").write_text(json.dumps({**sae, "metadata": {}}))
    (folder / name).write_text(json.dumps(files[name]))
    monkeypatch.setattr(from_cfg, "download", lambda *asked: folder / name if asked[-1].endswith(name) else None)
    with pytest.raises(UserError, match=r"sets base\.model_name by references to environment variables") as caught:
        load_experiment({"name": "x", "base": {"from_cfg": source}})
    assert TOKEN not in str(caught.value)
    # What the experiment itself says is its author's.
    mine = load_experiment({"name": "x", "base": {"from_cfg": source, "model_name": REFERENCE, "hook_name": "h"}})
    assert mine.base_run().model_name == TOKEN


@pytest.mark.parametrize("has_own_file", [False, True])
def test_eval_of_a_downloaded_folder_reads_no_variable(
    has_own_file: bool, tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that was downloaded lies on this machine as one's own does: it must not read the environment either."""
    from saesweep.evaluation import evaluate_saes

    plain = json.loads(json.dumps(tree))
    place = str(tmp_path / PLACE)
    plain["base"] |= {"model_name": f"{place}/model", "dataset_path": f"{place}/text.txt", "training_tokens": 2048}
    plain["base"]["model_from_pretrained_kwargs"] = None
    plain |= {"space": {}, "search": {}}
    plain["base"]["sae"]["k"] = 4
    best = saesweep.run(plain, run_dir=tmp_path / "run").best_dir
    assert best is not None
    cfg = json.loads((best / "cfg.json").read_text())
    evil = f"evil/{REFERENCE}"
    cfg["metadata"]["model_name"] = evil
    (best / "cfg.json").write_text(json.dumps(cfg))
    (best / "checksums.json").unlink(missing_ok=True)
    own = best / "experiment.yaml"
    if has_own_file:
        own.write_text(own.read_text().replace(f"{place}/model", evil))
        assert REFERENCE in own.read_text()
    else:
        own.unlink()
    with pytest.raises(UserError, match=r"base\.model_name refer to environment variables") as caught:
        evaluate_saes([best])
    assert TOKEN not in str(caught.value)
    # Where the command says what to use instead, what the file asked for does not matter.
    found = evaluate_saes([best], overrides=[f"base.model_name={place}/model", "evaluation.select_tokens=512"])
    assert found.model == f"{place}/model"
    assert TOKEN not in json.dumps(found.to_json())
