"""The documentation as a reader uses it: snippets run, experiments are valid, the site is whole and asks nobody else."""

import ast
import copy
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from saesweep.cli.entry import build_parser
from saesweep.experiment import dump_yaml, load_experiment
from saesweep.experiment.yaml_text import read_yaml
from tests.documentation import HUB, OUTPUT, PAGES, ROOT, SAELENS, SHORT, blocks, commands, steps, words_of, write_files

DOCS = ROOT / "docs"
LANGUAGES = {"sh", "python", "yaml", "text"}
MAX_PLUGIN_LINES = 40


def with_blocks(*languages: str) -> Any:
    pages = [page for page in PAGES if any(block.language in languages for block in blocks(page))]
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text()
    found = blocks(page)
    assert len(found) == text.count("```") / 2, "a fence that is not read as one"
    for block in found:
        assert block.language in LANGUAGES, f"{block.language!r}: nothing checks such a block"
        assert block.is_file or block.title in ("", HUB, SAELENS, OUTPUT), block.title
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"^    (saesweep|pip) ", outside, re.MULTILINE), "a command that no test sees"


@with_blocks("python")
@pytest.mark.usefixtures("clean_registries")
@pytest.mark.filterwarnings("default")
def test_every_python_snippet_of_a_page_works(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(prepared / "runs", tmp_path / "runs")
    (tmp_path / "experiments").mkdir()
    for file in ("quickstart.yaml", "synthetic.yaml"):
        overrides = [s for s in SHORT if file == "quickstart.yaml" or "d_sae" not in s]
        short = load_experiment(ROOT / "experiments" / file, overrides=overrides)
        (tmp_path / "experiments" / file).write_text(dump_yaml(short.tree))
    write_files(page, tmp_path)
    names: dict[str, Any] = {}  # the snippets of a page go on from each other
    for block in blocks(page, "python"):
        code = compile(block.text, f"{page.name}", "exec")
        if block.is_for_saelens:
            continue
        if block.title == HUB:
            check_imports(block.text)
        elif not block.is_file:
            exec(code, names)


def test_output_that_is_shown_follows_a_command() -> None:
    shown = {page: sum(block.title == OUTPUT for block in blocks(page)) for page in PAGES}
    assert shown == {page: sum(bool(lines) for _, lines in steps(page)) for page in PAGES}
    assert shown[DOCS / "tutorial.md"] >= 8


def check_imports(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


def merged(tree: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment with a page's part of it in place; a new space brings its own baselines and strata."""
    whole = copy.deepcopy(tree)
    if "space" in change:
        whole["search"] = {"trials": 4}
        whole["by_architecture"] = {}
    for key, value in change.items():
        if key in ("base", "search", "evaluation", "cohort") and isinstance(whole.get(key), dict):
            whole[key] = {**whole[key], **value}
            if key == "base" and "sae" in value:
                whole["base"]["sae"] = {**tree["base"]["sae"], **value["sae"]}
        else:
            whole[key] = value
    if whole.get("search", {}).get("sampler") == "fixed":
        whole["search"].pop("baselines", None)
        whole["search"].pop("trials", None)
        whole["by_architecture"] = {}
        whole["space"] = {
            "sae.architecture": {"choice": ["topk"]},
            "sae.k": {"int": [16, 128]},
            "lr": {"float": [1e-4, 1e-2]},
        }
    return whole


@with_blocks("yaml")
@pytest.mark.usefixtures("clean_registries")
def test_every_yaml_snippet_is_part_of_a_valid_experiment(
    page: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared / "runs", tmp_path / "runs")
    write_files(page, tmp_path)
    for block in blocks(page, "python"):
        if block.is_file:
            from saesweep import load_plugin

            load_plugin(block.title)
    trees = {file: load_experiment(ROOT / f"experiments/{file}.yaml").tree for file in ("quickstart", "synthetic")}
    for block in blocks(page, "yaml"):
        change = read_yaml(block.text, page.name).tree
        tree = trees["synthetic" if "builtin:synthetic" in block.text else "quickstart"]
        load_experiment(change if {"name", "base"} <= set(change) else merged(tree, change))


@with_blocks("sh")
def test_commands_that_need_the_hub_are_well_formed(page: Path) -> None:
    for command in commands(page, hub=True):
        _, words = words_of(command)
        if words[0] == "saesweep":
            assert callable(build_parser().parse_args(words[1:]).execute), command
        else:
            assert words[0] in ("hf", "wandb", "git", "pip"), f"do not know how to check `{command}`"


def test_a_plugin_of_the_documentation_is_short() -> None:
    files = [block for block in blocks(DOCS / "extending.md", "python") if block.is_file]
    assert len(files) == 3
    for block in files:
        assert len(block.text.splitlines()) < MAX_PLUGIN_LINES, block.title


def nav_pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in nav_pages(part)]


def test_every_page_is_in_the_navigation() -> None:
    listed = nav_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed; `make docs` builds the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=no_notice())
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text()
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)', html)
        loaded += re.findall(r'<link [^>]*rel="?(?:stylesheet|icon|preconnect)"? [^>]*href="?([^" >]+)', html)
        assert not [url for url in loaded if "//" in url], page


def no_notice() -> dict[str, str]:
    import os

    return {**os.environ, "NO_MKDOCS_2_WARNING": "1"}


SECTIONS = """
Basic training setup | Training BatchTopk SAEs | Training JumpReLU SAEs | Training Standard L1 SAEs |
Training MatryoshkaBatchTopk SAEs | Training Topk SAEs | Training AbsTopK SAEs | Training Matching Pursuit SAEs |
Training Gated SAEs | Fine-tuning an existing SAE | Training multiple SAEs in parallel | CLI Runner |
Logging to Weights and Biases | Held-out evaluation during training | Best practices for real SAEs | Checkpoints |
Optimizers and Schedulers | Training on Huggingface Models | Datasets, streaming, and context size |
Pretokenizing datasets | List of Pretokenized datasets | Caching activations | Uploading SAEs to Huggingface
""".replace("\n", " ")
"""The sections of docs/training_saes.md of SAELens 6.5x, in order, and the one that came after 6.54."""


def test_the_training_guide_is_covered_section_by_section() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \| ([^|]+?) \|", (DOCS / "saelens_guide.md").read_text(), re.MULTILINE)
    assert [section for section, _, _ in rows[1:]] == [name.strip() for name in SECTIONS.split("|")]
    assert {answer.split(":")[0].split(" (")[0] for _, answer, _ in rows[1:]} <= {"yes", "in part", "no"}


def test_the_advice_page_quotes_what_validate_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row of the table of warnings has a setting; with it `validate` says what the row says."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| `([^`]+)` \|$", (DOCS / "advice.md").read_text(), re.MULTILINE)
    assert len(rows) >= 6
    tree = load_experiment(ROOT / "experiments/quickstart.yaml").tree
    for setting, _, said in rows:
        change = read_yaml(f"{{{setting}}}", "advice").tree
        assert any(said in warning for warning in load_experiment(merged(tree, change)).warnings), setting
