"""What several areas share."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation import ROOT, SHORT

pytest.register_assert_rewrite("saesweep.testing")

# Hundreds of tests start a process of their own; without compiled files each compiles every module again, for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
"""Folder in memory, where the system has one."""


def use_memory() -> None:
    """Put temporary folders in memory: a run flushes each of its files to the disk, half the time of a short one.

    Only where there is plenty of it, as a container's usual 64 MB are not, and where nobody has chosen another folder.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < 4 << 30:
        return
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # for the processes that tests start, and for this one


use_memory()


@pytest.fixture(scope="module", autouse=True)
def settled() -> None:
    """Let the garbage collector leave alone what stays: it would walk through PyTorch's modules at every run, for 0.2 s."""
    gc.collect()
    gc.freeze()


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
        (plugins, "_packages"),
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
