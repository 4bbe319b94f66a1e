"""The feature page of a run on the built-in language model, in a real browser."""

import json
import re
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest

import saesweep
from saesweep.errors import UserError
from saesweep.report import write_report
from saesweep.report.feature_page import token_text
from tests.report.browsing import dump_dom, needs_browser

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
    "evaluation": {"select_tokens": 2048, "test_tokens": 4096},
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
def page(run_dir: Path) -> Path:
    report = write_report(run_dir, pngs=False, per_band=4, latents=[7])
    assert report.features is not None
    assert 'href="features.html"' in report.page.read_text()
    return report.features


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_latents_come_with_contexts_density_and_output_tokens(page: Path) -> None:
    data = data_of(page)
    assert page.stat().st_size < 5_000_000
    assert data["d_sae"] == 256
    assert 7 in [latent["n"] for latent in data["latents"]]
    firing = [latent for latent in data["latents"] if latent["d"] > 0]
    assert firing
    for latent in firing:
        assert len(latent["p"]) == len(latent["s"]) == 8
        tokens, activations, peak = latent["c"][0]
        assert activations[peak] == latent["m"] == max(activations)
        assert all(str(token) in data["vocabulary"] for token in tokens)


class SentencePiece:
    pieces = ("\u2581with", "out", "<0xE2>", "\u2581")

    def decode(self, ids: list[int]) -> str:
        return ("with", "out", "\ufffd", "")[ids[0]]

    def convert_ids_to_tokens(self, token: int) -> str:
        return self.pieces[token]


def test_a_token_keeps_the_space_before_it() -> None:
    assert [token_text(SentencePiece(), token) for token in range(4)] == [" with", "out", "<0xE2>", " "]


def test_a_latent_that_does_not_exist_is_refused(run_dir: Path) -> None:
    with pytest.raises(UserError, match="0 to 255"):
        write_report(run_dir, pngs=False, latents=[256])


@needs_browser
def test_a_browser_shows_and_searches_the_latents(page: Path) -> None:
    latents = data_of(page)["latents"]
    dom = dump_dom(page.as_uri())
    assert f'data-drawn="{len(latents)}"' in dom
    assert dom.count('class="latent"') == len(latents)
    assert "rgba(230, 120, 0" in dom  # shaded tokens
    found = dump_dom(page.as_uri() + "#search=7")
    assert re.findall(r'id="latent-(\d+)"', found) == ["7"]
