"""`saesweep run`: arguments handed on, display chosen and fed, exit code handed back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from saesweep.cli import main
from saesweep.errors import UserError
from saesweep.events import Note, RunEnded


@dataclass
class Result:
    exit_code: int
    resume_command: str | None = None


@pytest.fixture
def sweep(monkeypatch):
    """A stand-in for the run loop that records its arguments."""
    module = ModuleType("saesweep.driver")
    module.calls = []
    module.result = Result(0)

    def run(experiment, *, run_dir=None, overrides=(), listeners=(), engine=None):
        module.calls.append((experiment, run_dir, list(overrides)))
        if isinstance(module.result, BaseException):
            raise module.result
        for listener in listeners:
            listener(Note(level="info", message="hello from the run"))
            listener(RunEnded(status="complete", rows=(), best=None, best_dir=None))
        return module.result

    module.run = run
    monkeypatch.setitem(sys.modules, "saesweep.driver", module)
    monkeypatch.setattr("saesweep.experiment.load_experiment", lambda *_, **__: None)
    monkeypatch.delenv("SAESWEEP_DISPLAY", raising=False)
    return module


def test_arguments_reach_the_run(sweep, capsys):
    code = main(["run", "a.yaml", "--set", "base.lr=1e-4", "--set", "search.trials=3", "--run-dir", "/data/first"])
    assert code == 0
    assert sweep.calls == [(Path("a.yaml"), Path("/data/first"), ["base.lr=1e-4", "search.trials=3"])]
    assert "hello from the run" in capsys.readouterr().out


def test_the_default_folder_is_the_runs_own_choice(sweep):
    main(["run", "a.yaml", "--display", "none"])
    assert sweep.calls == [(Path("a.yaml"), None, [])]


@pytest.mark.parametrize(
    ("kind", "first"), [("plain", "[     0s] loading PyTorch\n"), ("json", '{"event": "Activity"'), ("none", "")]
)
def test_the_display_hears_the_events(sweep, capsys, kind, first):
    assert main(["run", "a.yaml", "--display", kind]) == 0
    out = capsys.readouterr().out
    assert out.startswith(first)
    assert ("hello from the run" in out) == (kind != "none")


def test_an_interruption_is_said_even_without_a_display(sweep, capsys):
    sweep.result = Result(130, "saesweep run a.yaml --run-dir runs/a")
    assert main(["run", "a.yaml", "--display", "none"]) == 130
    assert capsys.readouterr().err == "interrupted; resume with: saesweep run a.yaml --run-dir runs/a\n"


def test_an_interruption_before_training_says_how_to_start_again(sweep, capsys, monkeypatch):
    sweep.result = KeyboardInterrupt()
    monkeypatch.setattr(sys, "argv", ["saesweep", "run", "a b.yaml"])
    assert main(["run", "a b.yaml", "--display", "none"]) == 130
    assert capsys.readouterr().err == "interrupted; continue with: saesweep run 'a b.yaml'\n"


def test_a_wrong_display_in_the_environment_stops_before_the_run(sweep, monkeypatch, capsys):
    monkeypatch.setenv("SAESWEEP_DISPLAY", "loud")
    assert main(["run", "a.yaml"]) == 2
    assert "SAESWEEP_DISPLAY is 'loud'" in capsys.readouterr().err
    assert sweep.calls == []


@pytest.mark.parametrize("code", [0, 1, 130])
def test_the_runs_exit_code_is_the_commands(sweep, code):
    sweep.result = Result(code)
    assert main(["run", "a.yaml", "--display", "none"]) == code


@pytest.mark.parametrize(("error", "code"), [(UserError("k is above d_sae"), 2), (KeyboardInterrupt(), 130)])
def test_failures_of_the_run(sweep, capsys, error, code):
    sweep.result = error
    assert main(["run", "a.yaml", "--display", "live"]) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert out.rfind("\x1b[?25h") > out.rfind("\x1b[?25l")  # the cursor is back
