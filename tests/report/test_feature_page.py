"""The feature page of a run on the built-in language model, in a real browser."""

import base64
import gzip
import json
import re
import shutil
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch

import saesweep
from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.report import write_report
from saesweep.report.data import read_run
from saesweep.report.feature_data import FeatureData, gather, token_text
from saesweep.report.feature_page import MAX_BYTES, feature_page
from saesweep.report.feature_sources import from_run
from tests.report.audit import faults_of
from tests.report.browsing import dump_dom, needs_browser, open_tab

TREE: dict[str, Any] = {
    "name": "words",
    "base": {
        "model_name": "builtin:tiny-lm",
        "hook_name": "model.layers.2",
        "context_size": 64,
        "exclude_special_tokens": True,
        "training_tokens": 8192,
        "train_batch_size_tokens": 1024,
        "lr": 3e-3,
        "device": "cpu",
        "sae": {"architecture": "topk", "k": 8, "d_sae": 256},
    },
    "space": {"sae.architecture": {"choice": ["topk", "batchtopk"]}},
    "objective": {"pareto": [{"minimize": "l0"}, {"minimize": "delta_ce"}]},
    "evaluation": {"select_tokens": 2048, "test_tokens": 4096},
    "search": {"sampler": "grid", "pruner": "none"},
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    text = folder / "topics.jsonl"
    text.write_text("".join(json.dumps({"text": topic}) + "\n" for topic in list(topics.values())[:30]))
    TREE["base"]["dataset_path"] = str(text)
    saesweep.run(TREE, run_dir=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def data(run_dir: Path) -> FeatureData:
    return gather(from_run(read_run(run_dir)), max_tokens=4096)


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Path:
    report = write_report(run_dir, pngs=False, latents=[7])
    assert report.features is not None
    assert 'href="features.html"' in report.page.read_text()
    return report.features


def content_of(text: str) -> dict[str, Any]:
    found = re.search(r'id="data-gz">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return content


def test_every_latent_is_there_with_contexts_density_and_output_tokens(page: Path) -> None:
    content = content_of(page.read_text())
    assert page.stat().st_size < MAX_BYTES
    first = content["saes"][0]
    assert len(first["f"]) == len(first["b"]) == len(first["latents"]) == 256
    assert sum(first["f"]) == pytest.approx(first["tokens"] * 8, rel=0.2)
    firing = [n for n, count in enumerate(first["f"]) if count > 0]
    for n in firing:
        latent = first["latents"][str(n)]
        assert len(latent["p"]) == len(latent["s"]) == 10
        assert sum(latent["h"]) == first["f"][n]
        assert len(latent["k"]) == 6
        assert 0 <= latent["o"][0] < 256
        strongest = latent["x"][0]
        context, begin, end, peak, interval, acts = strongest
        assert interval == -1
        assert dict(zip(acts[::2], acts[1::2], strict=True))[peak - begin] == first["m"][n]
        assert content["contexts"][context][peak] == first["t"][n]
        bos = content["contexts"][context][0]
        assert bos not in content["contexts"][context][begin:end]


def test_a_page_that_would_be_too_large_keeps_every_latent_and_says_what_it_leaves_out(data: FeatureData) -> None:
    whole = len(feature_page(data))
    text = feature_page(data, max_bytes=whole // 2)
    assert len(text.encode()) <= whole // 2
    content = content_of(text)
    assert len(content["saes"][0]["f"]) == 256
    kept = len(content["saes"][0]["latents"])
    assert 0 < kept < 256
    assert f"{kept} of 256 latents come with examples" in text
    assert max(found[0] for latent in content["saes"][0]["latents"].values() for found in latent["x"]) < len(
        content["contexts"]
    )
    with pytest.raises(UserError, match="larger than"):
        feature_page(data, max_bytes=1000)


def test_two_saes_of_the_run_stand_side_by_side(data: FeatureData, run_dir: Path) -> None:
    best, rival = data.saes
    assert best.shown.architecture != rival.shown.architecture
    assert len(rival.described) == 256
    for own in best.described[:20]:
        assert own.beside is not None
        rows = [one.shown.sae.tensors["W_dec"].float() for one in (best, rival)]
        cosines = torch.nn.functional.cosine_similarity(rows[0][own.number], rows[1])
        cosines[rival.scan.fired_F == 0] = -1.0
        assert own.beside[0] == int(cosines.argmax())


def test_any_exported_sae_has_a_page(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(run_dir / "best", copy)
    (copy / "experiment.yaml").unlink()  # what is left are the metadata of cfg.json
    out = tmp_path / "page.html"
    text = TREE["base"]["dataset_path"]
    arguments = [
        str(copy),
        "--to",
        str(out),
        "--tokens",
        "1000",
        "--dataset",
        text,
        "--set",
        "evaluation.test_tokens=2048",
    ]
    assert main(["features", *arguments, "--set", "evaluation.select_tokens=2048"]) == 0
    (only,) = content_of(out.read_text())["saes"]
    assert (len(only["f"]), only["tokens"]) == (256, 1000)
    assert f"wrote {out}" in capsys.readouterr().out


def test_neuronpedia_gets_every_feature_that_fires(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "upload"
    arguments = ["--to", str(tmp_path / "p.html"), "--neuronpedia", str(out), "--neuronpedia-set", "res-x"]
    assert main(["features", str(run_dir / "best"), *arguments]) == 0
    batches = [json.loads(file.read_text()) for file in sorted(out.glob("batch-*.json"))]
    assert {(b["model_id"], b["layer"], b["sae_set"]) for b in batches} == {("tiny-lm", 2, "res-x")}
    features = {feature["feature_index"]: feature for batch in batches for feature in batch["features"]}
    counted = content_of((tmp_path / "p.html").read_text())["saes"][0]
    assert set(features) == {n for n, count in enumerate(counted["f"]) if count}
    for number, feature in features.items():
        assert feature["frac_nonzero"] == pytest.approx(counted["f"][number] / counted["tokens"])
        assert sum(feature["freq_hist_data_bar_heights"]) == counted["f"][number]
        assert len(feature["pos_str"]) == len(feature["pos_values"]) == len(feature["neg_str"]) == 10
        strongest = feature["activations"][0]
        assert (strongest["bin_min"], strongest["bin_contains"]) == (-1, -1)
        assert strongest["values"][strongest["qualifying_token_index"]] == max(strongest["values"])
        assert max(strongest["values"]) == pytest.approx(strongest["bin_max"], rel=1e-3)
        for shown in feature["activations"]:
            assert len(shown["tokens"]) == len(shown["values"])
            if shown["bin_min"] >= 0:
                peak = shown["values"][shown["qualifying_token_index"]]
                assert shown["bin_min"] * 0.99 <= peak <= shown["bin_max"] * 1.01
        shares = {(s["bin_min"], s["bin_contains"]) for s in feature["activations"] if s["bin_min"] >= 0}
        assert sum(share for _, share in shares) <= 1.001


def test_wrong_arguments_are_one_message(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = str(run_dir / "best")
    assert main(["features", best, "--tokens", "0"]) == 2
    assert main(["features", best, "--neuronpedia-set", "x"]) == 2
    assert main(["features", best, best, best]) == 2
    assert main(["features", str(run_dir), "--hook", "model.layers.1"]) == 2
    errors = capsys.readouterr().err.splitlines()
    for error, part in zip(errors, ("--tokens", "--neuronpedia-set", "two side by side", "own file"), strict=True):
        assert part in error


class SentencePiece:
    pieces = ("\u2581with", "out", "<0xE2>", "\u2581")

    def decode(self, ids: list[int]) -> str:
        return ("with", "out", "\ufffd", "")[ids[0]]

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.pieces[token]


def test_a_token_keeps_the_space_before_it() -> None:
    assert [token_text(SentencePiece(), token) for token in range(4)] == [" with", "out", "<0xE2>", " "]


class ByteLevel:
    pieces = ("\u00e2\u0122", "\u0120\u00e2\u0122", "\u0120the")

    def decode(self, ids: list[int]) -> str:
        return ("\ufffd", " \ufffd", " the")[ids[0]]

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.pieces[token]


def test_bytes_of_a_character_are_named() -> None:
    assert [token_text(ByteLevel(), token) for token in range(3)] == ["<0xE2><0x80>", " <0xE2><0x80>", " the"]


def test_a_latent_that_does_not_exist_is_refused(run_dir: Path) -> None:
    with pytest.raises(UserError, match="0 to 255"):
        write_report(run_dir, pngs=False, latents=[256])


@needs_browser
def test_a_browser_shows_searches_expands_and_compares(page: Path) -> None:
    content = content_of(page.read_text())
    first = content["saes"][0]
    with open_tab() as tab:
        for width, dark in ((1400, False), (400, True)):
            tab.open(page.as_uri(), width=width, dark=dark)
            assert faults_of(tab) == []
        tab.open(page.with_name("report.html").as_uri(), width=1400)  # its tables have the language model's metrics
        assert faults_of(tab) == []
        tab.open(page.as_uri())
        count = "document.getElementById('count').textContent"
        shown = "[...document.querySelectorAll('#latents > .pair > .latent:first-child')].map((e) => Number(e.dataset.number))"
        assert tab.ask(count) == "256 of 256 latents"
        bands = [first["b"][n] for n in tab.ask(shown)]
        assert bands == sorted(bands)
        before = len(bands)
        tab.click("#more")
        assert len(tab.ask(shown)) == 2 * before
        assert tab.ask("document.querySelectorAll('.pair.two').length") == 2 * before
        tab.type("#search", "7")
        tab.wait_for(f"{count} === '1 of 256 latents'")
        assert tab.ask(shown) == [7]
        token = next(text for text in content["vocabulary"].values() if len(text) > 5 and text.strip().isalpha())
        tab.type("#search", token)
        tab.wait_for(f"{count} !== '1 of 256 latents'")
        assert 0 < len(tab.ask(shown)) <= 30
        tab.type("#search", "no such text at all")
        tab.wait_for(f"{count} === '0 of 256 latents'")
        tab.type("#search", "")
        tab.ask(
            "document.getElementById('search').value = ''; document.getElementById('search').dispatchEvent(new Event('input'))"
        )
        tab.wait_for(f"{count} === '256 of 256 latents'")
        tab.choose("#order", "density")
        assert first["f"][tab.ask(shown)[0]] == max(first["f"])
        words = "document.querySelector('.example .words').textContent.length"
        narrow = tab.ask(words)
        tab.click(".example")
        assert tab.ask(words) > narrow
        tab.click(".example")
        assert tab.ask(words) == narrow
        tab.hover(".histogram rect")
        assert "tokens between" in tab.ask("document.querySelector('.histogram rect title').textContent")
        assert tab.ask("document.querySelector('.example .token[style]').style.background").startswith(
            "rgba(230, 120, 0"
        )
        link = tab.ask("document.querySelector('.link').textContent")
        tab.click(".link")
        tab.wait_for(f"{count} === '1 of 256 latents'")
        assert f"#{tab.ask(shown)[0]}" == link
        tab.click("#beside")
        assert tab.ask("document.querySelectorAll('.pair.two').length") == 0
        tab.choose("#sae", "1")
        assert tab.ask("document.querySelector('.latent').id").startswith("latent-1-")
        assert tab.errors == []


@needs_browser
def test_a_link_can_name_a_latent(page: Path) -> None:
    found = dump_dom(page.as_uri() + "#search=7")
    assert re.findall(r'id="latent-0-(\d+)"', found) == ["7"]
