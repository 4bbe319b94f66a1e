"""Every command in README.md and docs/ works: run as written, shortened where it trains, planned where it would download."""

import re
import shutil
from pathlib import Path

import pytest

from saesweep.cli import main
from saesweep.cli.entry import build_parser
from saesweep.cli.train import experiment_of
from tests.documentation import PAGES, ROOT, SHORT, beginnings, steps, words_of, write_files

SHORT_TRAIN = ["--training_tokens", "8k", "--train_batch_size_tokens", "256", "--d_sae", "128"]
SHORT_TRAIN += ["--set", "evaluation.select_tokens=1k", "--set", "evaluation.test_tokens=1k"]
CHECKED_BY_CI = ("make ", "python benchmarks/", ".venv-bench/bin/python benchmarks/", "pip install ")


def downloads_to_train(arguments: list[str]) -> bool:
    """Check a `train` command up to where it would open its model, and return whether that is one to download."""
    run = experiment_of(build_parser().parse_args(arguments)).base_run()
    return not any(name.startswith("builtin:") for name in (run.model_name or "", run.dataset_path))


def downloads(file: str) -> bool:
    return "builtin:" not in Path(file).read_text()


@pytest.mark.usefixtures("clean_registries")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_works(
    page: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "runs/quickstart" in page.read_text():
        shutil.copytree(prepared / "runs", tmp_path / "runs")
    write_files(page, tmp_path)
    monkeypatch.setenv("SAESWEEP_DISPLAY", "plain")
    monkeypatch.setenv("SAESWEEP_BROWSER", "none")  # pictures have tests of their own
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "texts").mkdir()  # the reader's own data, which `validate` looks for
    (tmp_path / "texts/a.jsonl").write_text('{"text": "a"}\n')
    for given, expected in steps(page):
        capsys.readouterr()
        printed = ""
        for command in given:
            if command.startswith(CHECKED_BY_CI):
                continue
            variables, words = words_of(command)
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            assert words[0] == "saesweep", f"{page.name}: do not know how to check `{command}`"
            arguments = shortened(words[1:])
            if arguments is None:
                continue
            code = main(arguments)
            said = capsys.readouterr()
            printed += said.out + said.err
            assert code == 0, f"{command}\n{said.err}"
        left = iter(beginnings(printed))
        for line in expected:
            assert any(one.startswith(line) for one in left), (
                f"{page.name}: {given} does not print `{line}`:\n{printed}"
            )


def shortened(arguments: list[str]) -> list[str] | None:
    """Return a command as the test runs it: short, and without a download; None where it is checked but not run."""
    if arguments[0] == "run" and downloads(arguments[1]):
        arguments[0] = "plan"
    if arguments[0] == "train":
        if downloads_to_train(arguments):
            return None
        arguments += SHORT_TRAIN
    if arguments[0] in ("run", "cache-activations"):
        is_grid = "sampler: grid" in Path(arguments[1]).read_text()  # whose points are all needed
        for setting in SHORT:
            if not (is_grid and setting.startswith("search.trials")):
                arguments += ["--set", setting]
    return arguments


def test_the_table_of_commands_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listing = capsys.readouterr().out.split("  COMMAND\n")[1].split("\n\n")[0]
    offered = set(re.findall(r"^    ([a-z-]+)", listing, re.MULTILINE))
    assert "run" in offered
    listed = set(re.findall(r"^\| `saesweep ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert listed == offered


def test_links_to_files_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
