"""The console script: start-up, exit codes, and what a failure prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

from saesweep import __version__
from saesweep.cli import main
from saesweep.errors import ExperimentError, Problem, UserError

HEAVY = (
    "torch",
    "optuna",
    "transformers",
    "datasets",
    "transformer_lens",
    "pydantic",
    "yaml",
    "rich",
    "numpy",
    "wandb",
)
COMMANDS = ("run", "plan", "validate", "schema", "init", "leaderboard", "report", "export")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


def loaded_after(code: str) -> list[str]:
    done = python("-c", f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)")
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    "code",
    [
        "import saesweep",
        "import saesweep.cli, contextlib\nwith contextlib.suppress(SystemExit): saesweep.cli.main(['--help'])",
        "import saesweep.cli, contextlib\nwith contextlib.suppress(SystemExit): saesweep.cli.main(['run', '--help'])",
        "import saesweep.cli\nsaesweep.cli.main([])",
    ],
    ids=["import", "help", "run-help", "nothing"],
)
def test_nothing_heavy_is_imported_before_a_command_needs_it(code):
    assert not set(HEAVY) & set(loaded_after(code))


def test_the_leaderboard_needs_no_numeric_library(tmp_path):
    board = {"name": "a", "status": "complete", "rows": [], "metrics": [], "goals": ["minimize l0"]}
    (tmp_path / "leaderboard.json").write_text(json.dumps(board))
    loaded = loaded_after(f"import saesweep.cli\nsaesweep.cli.main(['leaderboard', {str(tmp_path)!r}])")
    assert not {"torch", "optuna", "transformers", "numpy"} & set(loaded)


def test_python_dash_m_and_version():
    done = python("-m", "saesweep", "--version")
    assert (done.returncode, done.stdout) == (0, f"saesweep {__version__}\n")


def test_without_a_command_the_help_goes_to_stderr(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"\n    {command}" in err for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"examples:\n  saesweep {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["run"],
        ["run", "a.yaml", "--disp", "none"],
        ["run", "a.yaml", "--display", "tui"],
        ["export", "a"],
    ],
)
def test_wrong_arguments_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: saesweep" in capsys.readouterr().err


def failing(monkeypatch, error: BaseException) -> None:
    def template() -> str:
        raise error

    module = ModuleType("saesweep.experiment.authoring")
    module.template = template
    monkeypatch.setitem(sys.modules, "saesweep.experiment.authoring", module)


def test_a_users_mistake_is_its_message_alone(monkeypatch, tmp_path, capsys):
    problem = Problem(
        path="base.lr", message="lr is 0; it must be above 0", file="a.yaml", line=3, column=7, source="  lr: 0"
    )
    failing(monkeypatch, ExperimentError([problem]))
    assert main(["init", str(tmp_path / "a.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "a.yaml:3:7: base.lr: lr is 0; it must be above 0\n      lr: 0\n          ^\n1 mistake\n"


def test_an_interruption_exits_130(monkeypatch, tmp_path, capsys):
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["init", str(tmp_path / "a.yaml")]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_shows_its_traceback_and_asks_for_a_report(monkeypatch, tmp_path, capsys):
    failing(monkeypatch, ZeroDivisionError("in the depths"))
    assert main(["init", str(tmp_path / "a.yaml")]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "ZeroDivisionError: in the depths" in err
    assert "this is a bug in saesweep" in err
    assert "report" in err.splitlines()[-1]


def test_a_reader_that_leaves_is_no_bug(tmp_path):
    rows = [
        {"number": i, "architecture": "topk", "sparsity": "k 8", "params": {}, "lr": 1e-3, "hook": "h"}
        | {"status": "complete", "tokens": 1, "total_tokens": 1}
        for i in range(3000)
    ]
    board = {
        "name": "a",
        "status": "complete",
        "rows": rows,
        "metrics": [],
        "stream_tokens": 0,
        "goals": ["minimize l0"],
    }
    (tmp_path / "leaderboard.json").write_text(json.dumps(board))
    program = subprocess.Popen(
        [sys.executable, "-m", "saesweep", "leaderboard", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # unbuffered, Python itself drops what a pipe did not take, and nobody notices that the reader left
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert program.stdout is not None
    assert program.stderr is not None
    with program.stdout, program.stderr:
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(timeout=60) == 141


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_bug(tmp_path, closed):
    program = f"{sys.executable} -m saesweep"
    code = f"{program} init a.yaml {closed} && {program} validate a.yaml {closed}; echo $? >code"
    done = subprocess.run(["sh", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, (tmp_path / "code").read_text()) == ("", "", "0\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
@pytest.mark.parametrize(("error", "code"), [(UserError("x"), 2), (KeyboardInterrupt(), 130), (OSError(28, "full"), 2)])
def test_the_exit_code_stays_where_the_message_cannot_be_written(monkeypatch, tmp_path, error, code):
    failing(monkeypatch, error)
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(sys, "stderr", Unbuffered(full))
    assert main(["init", str(tmp_path / "a.yaml")]) == code
    os.close(full)


class Unbuffered:
    """Writes at once, as standard error does at the end of a line."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def write(self, text):
        return os.write(self.descriptor, text.encode())

    def flush(self):
        pass
