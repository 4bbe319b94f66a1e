"""What several areas share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation import ROOT, SHORT

# Hundreds of tests start a process of their own; without compiled files each compiles every module again, for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture
def clean_registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Put the registries of architectures, metrics, trackers and plugins back: they are global to the process."""
    from saesweep import plugins
    from saesweep.evaluation import registered
    from saesweep.saes import architecture
    from saesweep.specs import METRICS
    from saesweep.specs.architectures import base
    from saesweep.tracking import registered as trackers

    for module, name in (
        (plugins, "_loaded"),
        (registered, "_REGISTERED"),
        (trackers, "_FACTORIES"),
        (architecture, "_IMPLEMENTATIONS"),
        (base, "_REGISTRY"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.setattr(plugins, "_named", [])
    metrics, modules = dict(METRICS), set(sys.modules)
    yield
    METRICS.clear()
    METRICS.update(metrics)
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]
    plugins.load_installed_plugins.cache_clear()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run of the quickstart in it, as its reader has one."""
    from saesweep.cli import main

    folder = tmp_path_factory.mktemp("prepared")
    settings = [word for setting in SHORT for word in ("--set", setting)]
    run_dir = str(folder / "runs" / "quickstart")
    assert (
        main(["run", str(ROOT / "experiments/quickstart.yaml"), "--run-dir", run_dir, "--display", "none", *settings])
        == 0
    )
    return folder
