"""The fenced blocks of the documentation: what a reader would copy, in the order of the page."""

from __future__ import annotations

import glob
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = ["base.training_tokens=8k", "base.train_batch_size_tokens=256", "search.trials=2", "cohort.size=2"]
SHORT += ["evaluation.select_tokens=1k", "evaluation.test_tokens=1k", "base.sae.d_sae=128", "cohort.kernels=reference"]
"""Settings that make a run of the built-in model short."""
HUB = "needs the Hub"
"""Title of blocks that need a network: their arguments and names are checked, they are not run."""
SAELENS = "SAELens"
"""Title of Python blocks for SAELens' environment, where tests/interop/saelens_docs.py runs them."""
OUTPUT = "output"
"""Title of text blocks that show what the commands above them print: the beginning of each line, up to its first figure, is checked."""
_FENCE = re.compile(r'^( *)```(\S*)(?: title="([^"]*)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    title: str
    text: str

    @property
    def is_file(self) -> bool:
        """The title is the name of a file, which the page's commands then use."""
        return self.title.endswith((".py", ".yaml"))

    @property
    def is_for_saelens(self) -> bool:
        """Python that imports SAELens, which lives in an environment of its own."""
        return self.language == "python" and "import" in self.text and "sae_lens" in self.text


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, of one language or all."""
    found = [
        Block(language, title, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, title, text in _FENCE.findall(page.read_text(encoding="utf-8"))
    ]
    return found if language is None else [block for block in found if block.language == language]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows, and then names in its commands."""
    for block in blocks(page):
        if block.is_file:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text, encoding="utf-8")


def commands(page: Path, *, hub: bool = False) -> list[str]:
    """Return the command lines of a page: those to run, or those that need the Hub."""
    return [line for block in blocks(page, "sh") if (block.title == HUB) == hub for line in _lines(block)]


def steps(page: Path) -> list[tuple[list[str], list[str]]]:
    """Return what a reader does on a page, block by block: commands to run, and how the lines begin that they should print."""
    found = blocks(page)
    after = [*found, Block("", "", "")][1:]
    return [
        (_lines(block), beginnings(then.text) if then.title == OUTPUT else [])
        for block, then in zip(found, after, strict=True)
        if block.language == "sh" and block.title != HUB
    ]


def beginnings(output: str) -> list[str]:
    """Return each line up to its first figure or `…`, blanks squeezed: what does not depend on the run or the machine.

    Marks alone say nothing: which rows a short run has is another matter.
    """
    lines = (" ".join(re.split(r"\d|…", line)[0].split()) for line in output.splitlines())
    return [line for line in lines if re.search(r"[^\W\d_]", line)]


def _lines(block: Block) -> list[str]:
    lines = [line.split("  #")[0].strip() for line in block.text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def words_of(command: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables set before a command, and its words, with paths for patterns as a shell gives them."""
    words = shlex.split(command)
    variables: dict[str, str] = {}
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    return variables, [
        path for word in words for path in (sorted(glob.glob(word)) if "*/" in word or word.endswith("/*") else [word])
    ]
