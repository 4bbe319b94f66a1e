from pathlib import Path
from typing import Any

import pytest

from tests.activations.cache.runs import cached_run, save_texts, write


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


@pytest.fixture
def run(llama: Path, texts: Path) -> Any:
    return cached_run(llama, texts)


@pytest.fixture(scope="session")
def finished(llama: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache; tests that damage it work on a copy."""
    folder = tmp_path_factory.mktemp("finished") / "cache"
    write(cached_run(llama, texts), folder)
    return folder
