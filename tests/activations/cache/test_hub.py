"""Caches on the Hub: what is sent, and that a Hub id is read where there is no such folder."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from saesweep.activations import open_source
from saesweep.activations.cache.hub import upload_cache
from saesweep.errors import UserError
from tests.activations.cache.runs import EVALUATION, HOOKS


def test_upload(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any, Any]] = []
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "create_repo", lambda self, repo, **options: calls.append(("repo", repo, options)))
    monkeypatch.setattr(api, "upload_folder", lambda self, **options: calls.append(("folder", None, options)))
    upload_cache(finished, "me/rows", private=True)
    assert calls[0] == ("repo", "me/rows", {"repo_type": "dataset", "private": True, "exist_ok": True})
    sent = calls[1][2]
    names = [path.relative_to(finished).as_posix() for path in finished.rglob("*")]
    kept = list(
        huggingface_hub.utils.filter_repo_objects(
            names, allow_patterns=sent["allow_patterns"], ignore_patterns=sent["ignore_patterns"]
        )
    )
    assert sorted(kept) == sorted(name for name in names if name != ".lock")
    assert (sent["repo_id"], sent["repo_type"], sent["folder_path"]) == ("me/rows", "dataset", finished)


def test_a_failed_upload_says_what_to_do(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, repo: str, **options: Any) -> None:
        raise OSError("connection lost")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=r"connection lost\. The cache is complete in .*run the same command again"):
        upload_cache(finished, "me/rows", private=False)


def test_a_hub_id_is_downloaded(run: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(repo: str, *, repo_type: str) -> str:
        asked.append(f"{repo_type} {repo}")
        return str(finished)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    cached = run.model_copy(update={"use_cached_activations": True, "cached_activations_path": "me/rows"})
    rows = open_source(cached, EVALUATION, HOOKS, with_model=False).stream.next_batch()[HOOKS[0]]
    assert torch.equal(rows, open_source(run, EVALUATION, HOOKS).stream.next_batch()[HOOKS[0]])
    assert asked == ["dataset me/rows"]


def test_an_unknown_hub_id_is_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repo: str, *, repo_type: str) -> str:
        raise OSError("404")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    cached = run.model_copy(update={"use_cached_activations": True, "cached_activations_path": "me/rows"})
    with pytest.raises(UserError, match="no folder 'me/rows', and the dataset me/rows could not be downloaded"):
        open_source(cached, EVALUATION, HOOKS, with_model=False)
