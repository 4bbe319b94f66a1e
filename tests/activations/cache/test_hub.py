"""Caches on the Hub, through the real client against a stub of its endpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from saesweep.activations import open_source
from saesweep.activations.cache.hub import upload_cache
from saesweep.errors import UserError
from tests.activations.cache.runs import EVALUATION, HOOKS, files_of
from tests.publish.hub_stub import READER, StubHub, connected

# The Hub's client itself sends large files in a way that its HTTP library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubHub]:
    with connected(monkeypatch, tmp_path / "client") as stub:
        yield stub


def cached(run: Any) -> Any:
    return run.model_copy(update={"use_cached_activations": True, "cached_activations_path": "me/rows"})


def test_a_cache_there_and_back(run: Any, finished: Path, hub: StubHub) -> None:
    upload_cache(finished, "me/rows", private=True)
    assert hub.private["me/rows"] is True
    sent = {name: content for name, content in hub.files("me/rows").items() if name != ".gitattributes"}
    assert sent == files_of(finished)
    rows = open_source(cached(run), EVALUATION, HOOKS, with_model=False).stream.next_batch()[HOOKS[0]]
    assert torch.equal(rows, open_source(run, EVALUATION, HOOKS).stream.next_batch()[HOOKS[0]])
    asked = len(hub.requests)
    open_source(cached(run), EVALUATION, HOOKS, with_model=False)
    later = [path for method, path in hub.requests[asked:] if method == "GET" and path.endswith(".safetensors")]
    assert later == []  # it lies in the Hub's local cache now


def test_a_failed_upload_says_what_to_do(finished: Path, hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", READER)
        with pytest.raises(
            UserError, match=r"--hf_repo_id: me/rows could not .*The cache is complete in .*same command"
        ):
            upload_cache(finished, "me/rows", private=False)
    hub.faults.append(("POST", "/commit/", 500))
    with pytest.raises(UserError, match=r"could not be uploaded: .*500"):
        upload_cache(finished, "me/rows", private=False)
    upload_cache(finished, "me/rows", private=False)
    assert "manifest.json" in hub.files("me/rows")


def test_an_unknown_hub_id_is_named(run: Any, hub: StubHub) -> None:
    with pytest.raises(UserError, match="no folder 'me/rows', and the dataset me/rows could not be downloaded"):
        open_source(cached(run), EVALUATION, HOOKS, with_model=False)
