"""Names of SAELens' table, and places on the Hub, with a stub of the table and of the downloads."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saesweep.errors import UserError
from saesweep.hub import HubError
from saesweep.publish import pull
from saesweep.saes import open_sae
from saesweep.saes.formats import place, registry

from .peers import Peer, dictionary_learning, gemma_scope_2, llama_scope, qwen_scope, sparsify

TABLE = """
bench:
  conversion_func: dictionary_learning_1
  model: pythia-70m
  repo_id: someone/bench
  config_overrides: {dataset_path: some/text}
  saes:
  - {id: blocks.5.hook_resid_post__trainer_0, path: deep/trainer_0}
qwen-scope:
  conversion_func: qwen_scope
  model: Qwen/Qwen3-1.7B-Base
  repo_id: Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3
  saes:
  - {id: layer7, path: layer7.sae.pt}
temporal-sae:
  conversion_func: temporal
  repo_id: someone/temporalSAEs
  saes:
  - {id: blocks.12.hook_resid_post, path: layer_12/temporal}
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the Hub: `hub/user/repo/path`."""
    root = tmp_path / "hub"

    def download(source: str, repo: str, name: str, *, revision: str | None = None) -> Path | None:
        if not (root / repo).is_dir():
            raise HubError(f"{source!r} could not be read from the Hub: 404")
        return root / repo / name if (root / repo / name).is_file() else None

    monkeypatch.setattr(place, "download", download)
    return root


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package `sae_lens` whose code would fail if it were imported."""
    package = tmp_path / "site" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / registry.TABLE).write_text(TABLE)
    monkeypatch.syspath_prepend(str(package.parent))
    yield
    assert "sae_lens" not in sys.modules


def on_hub(hub: Path, peer: Peer, repo: str, *path: str) -> None:
    """Move a peer's folder to its place."""
    folder = peer.source if peer.source.is_dir() else peer.source.parent
    target = hub / repo / Path(*path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


def test_every_format_is_found_on_the_hub(hub: Path, tmp_path: Path) -> None:
    on_hub(
        hub,
        gemma_scope_2(tmp_path / "a"),
        "google/gemma-scope-2-1b-pt",
        "resid_post_all",
        "layer_10_width_16k_l0_small",
    )
    on_hub(hub, dictionary_learning(tmp_path / "b", "BatchTopKSAE"), "someone/bench", "deep", "trainer_0")
    on_hub(hub, llama_scope(tmp_path / "c"), "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x")
    on_hub(hub, qwen_scope(tmp_path / "d"), "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3")
    on_hub(hub, sparsify(tmp_path / "e"), "EleutherAI/sae-pythia", "layers.5")
    (tmp_path / "e" / "config.json").rename(hub / "EleutherAI/sae-pythia" / "config.json")
    found = {
        source: open_sae(source).metadata["model_name"]
        for source in (
            "google/gemma-scope-2-1b-pt/resid_post_all/layer_10_width_16k_l0_small",
            "google/gemma-scope-2-1b-pt/resid_post_all/layer_10_width_16k_l0_small/params.safetensors",
            "someone/bench/deep/trainer_0",
            "fnlp/Llama3_1-8B-Base-LXR-8x/Llama3_1-8B-Base-L15R-8x",
            "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3/layer7.sae.pt",
            "EleutherAI/sae-pythia/layers.5",
        )
    }
    assert list(found.values()) == [
        "google/gemma-3-1b-pt",
        "google/gemma-3-1b-pt",
        "EleutherAI/pythia-70m-deduped",
        "meta-llama/Llama-3.1-8B",
        "Qwen/Qwen3-1.7B-Base",
        "EleutherAI/pythia-70m",
    ]
    copied = pull("EleutherAI/sae-pythia/layers.5", tmp_path / "copy")
    assert copied.cfg == open_sae("EleutherAI/sae-pythia/layers.5").cfg
    with pytest.raises(UserError, match=r"there is no layer8\.sae\.pt"):
        open_sae("Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3/layer8.sae.pt")


@pytest.mark.usefixtures("table")
def test_names_of_saelens_table(hub: Path, tmp_path: Path) -> None:
    on_hub(
        hub, dictionary_learning(tmp_path / "b", "AutoEncoderTopK", lm_name=None), "someone/bench", "deep", "trainer_0"
    )
    on_hub(hub, qwen_scope(tmp_path / "d"), "Qwen/SAE-Res-Qwen3-1.7B-Base-W1K-L0_3")
    sae = open_sae("bench/blocks.5.hook_resid_post__trainer_0")
    assert sae.architecture == "topk"
    assert sae.metadata["model_name"] == "pythia-70m"  # its own files do not say
    assert sae.metadata["dataset_path"] == "some/text"
    assert open_sae("qwen-scope/layer7").metadata["hook_name"] == "blocks.7.hook_resid_post"
    assert pull("qwen-scope/layer7", tmp_path / "copy").cfg["k"] == 3
    with pytest.raises(UserError, match="release qwen-scope has no layer9; nearest: layer7"):
        open_sae("qwen-scope/layer9")
    with pytest.raises(UserError, match="is a temporal SAE"):
        open_sae("temporal-sae/blocks.12.hook_resid_post")
    with pytest.raises(UserError, match=r"404$"):
        open_sae("nobody/nothing")


def test_without_saelens_the_message_says_what_to_install(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"404; a name of SAELens' table .* pip install --no-deps sae-lens"):
        open_sae("gemma-scope-2b-pt-res-canonical/layer_20/width_16k/canonical")
