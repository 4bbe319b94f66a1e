"""Publishing on the Hub, and reading back what was published, against a stub of its endpoints."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saesweep.publish.hub
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.experiment.from_cfg import read_cfg
from saesweep.publish import collect_run, pull, push
from saesweep.saes import ExportedSAE, Normalizer, architecture_for, load_sae_folder, open_sae, save_sae_folder
from saesweep.specs.architectures import spec_class

from .hub_stub import READER, WRITER, StubHub, serve

REPO = "me/saes"
# The Hub's client itself sends large files in a way that its HTTP library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubHub]:
    from huggingface_hub import constants

    with serve() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", stub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(saesweep.publish.hub, "FIRST_WAIT_SECONDS", 0.01)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield stub


def sae(seed: int = 0) -> ExportedSAE:
    spec = spec_class("topk")(d_in=8, d_sae=32, k=4)
    implementation = architecture_for(spec)
    params = implementation.init(torch.Generator().manual_seed(seed))
    exported = implementation.export(params, Normalizer(mode="none"))
    return exported.with_metadata(
        {"model_name": "google/gemma-2-2b", "hook_name": "blocks.12.hook_resid_post", "dataset_path": "some/text"}
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a best SAE and a front of two."""
    for number, folder in enumerate(("best", "pareto/0001-topk-k-4", "pareto/0002-topk-k-8")):
        path = tmp_path / "run" / folder
        save_sae_folder(path, sae(number), sparsity_F=torch.rand(32), extra_files={"runner_cfg.json": runner()})
        provenance = {"select_metrics": {"l0": 4.0 + number}, "trial": number, "seed": 1, "tokens": 1000}
        if folder == "best":
            provenance["test_metrics"] = {"l0": 4.1, "delta_ce": 0.1234}
        (path / "provenance.json").write_text(json.dumps(provenance))
        (path / "experiment.yaml").write_text("name: one\n")
        (path / "notes.txt").write_text("private")
    return tmp_path / "run"


def runner() -> dict[str, Any]:
    return {
        "model_name": "google/gemma-2-2b",
        "model_class_name": "AutoModelForCausalLM",
        "hook_name": "model.layers.12",
        "dataset_path": "some/text",
        "lr": 0.0012,
        "training_tokens": 123456,
        "sae": {"architecture": "topk", "k": 4, "d_in": 8, "d_sae": 32},
    }


BEST = "blocks.12.hook_resid_post/best"


def test_the_best_sae_and_its_card(hub: StubHub, run: Path) -> None:
    done = push(collect_run(run), REPO, licence="mit")
    files = hub.files(REPO)
    assert set(files) == {path for path, _ in done.files}
    assert {path.removeprefix(f"{BEST}/") for path in files if path.startswith(BEST)} == {
        "cfg.json", "sae_weights.safetensors", "sparsity.safetensors", "runner_cfg.json", "provenance.json", "experiment.yaml",
        "checksums.json",
    }  # fmt: skip
    assert files[f"{BEST}/sae_weights.safetensors"] == (run / "best" / "sae_weights.safetensors").read_bytes()
    card = files["README.md"].decode()
    front = card.split("---")[1].splitlines()
    assert "library_name: saelens" in front
    assert "license: mit" in front
    assert "base_model: google/gemma-2-2b" in front
    assert {"- sae", "- saelens", "- saesweep"} <= set(front)
    assert f"`{BEST}` | topk |" in card
    assert "0.1234" in card  # the test part's metrics, where there are some
    assert f'SAE.from_pretrained("{REPO}", "{BEST}")' in card
    assert hub.private[REPO] is None


def test_what_was_pushed_comes_back(hub: StubHub, run: Path) -> None:
    push(collect_run(run), REPO)
    back = open_sae(f"{REPO}/{BEST}")
    assert back.cfg == load_sae_folder(run / "best").cfg
    assert torch.equal(back.tensors["W_dec"], sae(0).tensors["W_dec"])
    imported = read_cfg(f"{REPO}/{BEST}").base
    assert imported["lr"] == 0.0012
    assert imported["sae"]["k"] == 4
    with pytest.raises(UserError, match=r"holds no SAE of a format that is read here"):
        open_sae(f"{REPO}/other")
    with pytest.raises(UserError, match="could not be read from the Hub"):
        open_sae("me/nothing/here")


def test_pull_copies_everything_or_nothing(
    hub: StubHub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(collect_run(run), REPO, revision="wip")
    target = tmp_path / "copy"
    command = ["pull", f"{REPO}/{BEST}", "--to", str(target), "--revision"]
    assert main([*command, "wip"]) == 0
    assert "(topk, 8 to 32)" in capsys.readouterr().out
    whole = {file.name: file.read_bytes() for file in target.iterdir()}
    assert whole == {file.name: file.read_bytes() for file in (run / "best").iterdir() if file.name != "notes.txt"}

    hub.repos[REPO]["wip"][f"{BEST}/cfg.json"] = b"{"
    shutil.rmtree(tmp_path / "cache")
    for arguments, message in (
        ([*command, "wip"], "--force"),
        ([*command, "wip", "--force"], "not valid JSON"),
        ([*command, "main", "--force"], "holds no SAE of a format that is read here"),
        (["pull", "saes", "--to", str(target), "--force"], "write user/repo/folder"),
        (["pull", "me/nothing/here", "--to", str(target), "--force"], "could not be read from the Hub"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
        assert {file.name: file.read_bytes() for file in target.iterdir()} == whole
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".copy")]


def test_pull_reads_gemma_scope(hub: StubHub, tmp_path: Path) -> None:
    sink, eye = io.BytesIO(), np.eye(4, dtype=np.float32)
    np.savez(sink, W_enc=eye, W_dec=eye, b_enc=eye[0], b_dec=eye[0], threshold=eye[0])
    repo = "google/gemma-scope-2b-pt-att"
    hub.repos[repo] = {"main": {"layer_1/width_4/params.npz": sink.getvalue()}}
    copied, direct = pull(f"{repo}/layer_1/width_4", tmp_path / "scope"), open_sae(f"{repo}/layer_1/width_4")
    assert copied.cfg == direct.cfg
    assert copied.cfg["reshape_activations"] == "hook_z"  # what only its place on the Hub says
    assert all(torch.equal(copied.tensors[name], tensor) for name, tensor in direct.tensors.items())


def test_a_front_keeps_the_rows_that_are_there(hub: StubHub, run: Path) -> None:
    push(collect_run(run), REPO)
    push(collect_run(run, pareto=True), REPO)
    card = hub.files(REPO)["README.md"].decode()
    rows = [line.split("`")[1] for line in card.splitlines() if line.startswith("| `")]
    hook = "blocks.12.hook_resid_post"
    assert rows == [BEST, f"{hook}/0001-topk-k-4", f"{hook}/0002-topk-k-8"]


def test_somebodys_own_readme_stays(hub: StubHub, run: Path) -> None:
    hub.repos[REPO] = {"main": {"README.md": b"---\nlicense: mit\n---\nMy repository."}}
    done = push(collect_run(run), REPO)
    assert hub.files(REPO)["README.md"].endswith(b"My repository.")
    assert "left as it is" in done.notes[0]


def test_private_repository_and_branch(hub: StubHub, run: Path) -> None:
    push(collect_run(run), REPO, private=True, revision="wip")
    assert hub.private[REPO] is True
    assert hub.files(REPO) == {}
    assert f"{BEST}/cfg.json" in hub.files(REPO, "wip")


def test_names_and_saes_from_python(hub: StubHub, run: Path) -> None:
    push({"layer12/mine": sae(3), "layer12/best": run / "best"}, REPO)
    assert {path.rsplit("/", 1)[0] for path in hub.files(REPO) if "/" in path} == {"layer12/mine", "layer12/best"}
    with pytest.raises(UserError, match="no folder inside a repository"):
        push({"../up": sae()}, REPO)
    with pytest.raises(UserError, match="write user/name"):
        push({"a": sae()}, "saes")


def test_a_dry_run_makes_no_request(hub: StubHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "--repo", REPO, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"{BEST}/sae_weights.safetensors" in out
    assert f"{BEST}/checksums.json" in out
    assert "would upload 8 files" in out
    assert "notes.txt" not in out
    assert hub.requests == []
    push(collect_run(run), REPO)
    assert hub.files(REPO)["README.md"].decode() in out  # the very card


@pytest.mark.parametrize(
    "fault", [("POST", "/commit/", 503), ("POST", "repos/create", 429), ("POST", "objects/batch", 502)]
)
def test_a_busy_hub_is_asked_again(hub: StubHub, run: Path, fault: tuple[str, str, int]) -> None:
    hub.faults = [fault]
    push(collect_run(run), REPO)
    assert f"{BEST}/cfg.json" in hub.files(REPO)


def test_an_interrupted_upload_shows_nothing_and_resumes(hub: StubHub, run: Path) -> None:
    hub.faults = [("POST", "/commit/", 503)] * saesweep.publish.hub.ATTEMPTS
    with pytest.raises(UserError, match="what has arrived is not sent twice"):
        push(collect_run(run), REPO)
    assert hub.files(REPO) == {}
    sent = len(hub.blobs)
    assert sent == 2
    hub.requests.clear()
    push(collect_run(run), REPO)
    assert not [request for request in hub.requests if request[0] == "PUT"]
    assert f"{BEST}/sae_weights.safetensors" in hub.files(REPO)


@pytest.mark.parametrize(("token", "message"), [("hf_nobodynobodynobody", "does not know"), (READER, "may not write")])
def test_tokens_that_do_not_do(
    hub: StubHub, run: Path, monkeypatch: pytest.MonkeyPatch, token: str, message: str, capsys: Any
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["push", str(run), "--repo", REPO]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert token not in said.err + said.out


def test_no_token(hub: StubHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UserError, match="no Hugging Face token"):
        push(collect_run(run), REPO)


def test_a_token_in_a_file_is_not_published(hub: StubHub, run: Path) -> None:
    (run / "best" / "experiment.yaml").write_text(
        "base: {model_from_pretrained_kwargs: {token: hf_abcdefghijklmnopqrst}}"
    )
    with pytest.raises(UserError, match=r"experiment\.yaml: holds an access token") as caught:
        push(collect_run(run), REPO)
    assert "abcdefgh" not in str(caught.value)
    assert hub.requests == []


def test_a_provenance_beyond_every_float_is_refused(run: Path) -> None:
    file = run / "best" / "provenance.json"
    file.write_text(json.dumps({"test_metrics": {"l0": 10**400}}))
    with pytest.raises(UserError, match=r"provenance\.json: test_metrics holds a number beyond every float"):
        push(collect_run(run), "a/b", dry_run=True)


def test_half_a_character_in_a_provenance_is_refused(run: Path) -> None:
    (run / "best" / "provenance.json").write_text('{"experiment": "\\ud800"}')
    with pytest.raises(UserError, match="the model card cannot be written as UTF-8"):
        push(collect_run(run), "a/b", dry_run=True)


@pytest.mark.parametrize("name", ["x", "a/b/c", "a b/c", "../x", "a/b.git", "a--b/c", "a/-b"])
def test_a_name_that_no_repository_has_is_refused_before_the_network(run: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no repository"):
        push(collect_run(run), name, dry_run=True)


def test_there_must_be_something_to_push(run: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"trial": 7}, "no exported SAE"),
        ({"run": tmp_path / "nowhere"}, "no such run directory"),
    ):
        with pytest.raises(UserError, match=message):
            collect_run(**{"run": run, **arguments})  # type: ignore[arg-type]
    assert list(collect_run(run / "pareto" / "0001-topk-k-4")) == ["blocks.12.hook_resid_post/0001-topk-k-4"]


def test_the_command_in_a_process_of_its_own(hub: StubHub, run: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT alone leads there: nothing in this package names the Hub."""
    env = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "saesweep", "push", str(run), "--repo", REPO]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{BEST}/cfg.json" in hub.files(REPO)
    assert WRITER not in done.stdout + done.stderr
