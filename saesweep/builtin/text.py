"""English text that every CPython installation carries, as a list of documents.

Read at run time from the standard library of the interpreter that runs: pydoc's topics (most of the language reference),
docstrings and comment blocks; tests are left out. Nothing is copied into this repository, so the text differs by a few
per cent between Python versions: compare `documents_digest()` before comparing results of two installations.
"""

import ast
import functools
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from saesweep.builtin.text_cache import cached_documents

MAX_CHARS = 1500
"""Longer texts are split at paragraphs, so that held-out parts drawn by document are fine-grained."""

MIN_CHARS = 200
"""Shorter texts are left out: a document that is one line teaches little and wastes a separator token."""

HELD_OUT_ONE_IN = 50
"""One document in so many (2%) was never seen by the built-in language model."""

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "pydoc_data", "ensurepip"}
)
_MIN_PIECE_LETTERS = 20
_COMMENT_LINE = re.compile(r"^[ \t]*#(?![!])[ \t]?(.*)$")
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
_CODING_LINE = re.compile(r"coding[:=]\s*[-\w.]+")


def documents() -> list[str]:
    """All documents, of `MIN_CHARS` to `MAX_CHARS` characters each, without repeats.

    The order is that of the documents' SHA-256, so it does not depend on the file system and any prefix is a fair sample.
    Extracting them takes about 2.5 s on one core; they are kept in the user's cache, from which the first call of a process reads
    them until a file changes, and later calls take nothing.

    Returns:
        A new list of the documents: the same ones in the same order for one Python installation.
    """
    return list(_documents())


@functools.cache
def _documents() -> tuple[str, ...]:
    standard_library = Path(sysconfig.get_path("stdlib"))

    def extract() -> tuple[str, ...]:
        unique = {document for text in [*_topics(), *module_texts(standard_library)] for document in split(text)}
        return tuple(sorted(unique, key=_digest))

    read = [Path(__file__), standard_library / "pydoc_data" / "topics.py", *sorted(_module_paths(standard_library))]
    return cached_documents([path for path in read if path.is_file()], extract)


@functools.cache
def documents_digest() -> str:
    """SHA-256, in hexadecimal, over all documents in order: the identity of this installation's text."""
    return hashlib.sha256("".join(map(_digest, _documents())).encode()).hexdigest()


def is_held_out(document: str) -> bool:
    """Whether the built-in language model was not trained on `document`.

    Decided by the document's own hash. It holds for the Python version in the model's `card.json`; another version may
    cut a changed module elsewhere, and then a held-out document can overlap text that was trained on.
    """
    # The last digits: the first ones give the order of `documents()`, and held-out documents must be spread over it.
    return int(_digest(document)[-8:], 16) % HELD_OUT_ONE_IN == 0


def _digest(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def _topics() -> list[str]:
    """Pydoc's topics: chapters of the language reference as plain text."""
    from pydoc_data.topics import topics

    return [topics[name].strip() for name in sorted(topics)]


def module_texts(root: Path) -> Iterator[str]:
    """For each Python file below a folder, in path order, its docstrings and comment blocks in reading order.

    Tests, installed packages and files that this Python cannot parse (templates, other encodings) are left out.
    """
    for path in sorted(_module_paths(root), key=lambda path: path.relative_to(root).as_posix()):
        try:
            # utf-8-sig: a byte order mark is no Python source character. Strict decoding: a file in another
            # encoding is left out on every machine alike, instead of being read differently by locale.
            source = path.read_text(encoding="utf-8-sig")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in somebody else's source are not our news
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError):  # ValueError: undecodable, or with null bytes
            continue
        yield "\n\n".join(_english(source, tree))


def _module_paths(root: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _SKIPPED_FOLDERS]
        # _sysconfigdata*: written by each installation's build, with its own paths.
        for name in names:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield Path(folder, name)


def _english(source: str, tree: ast.Module) -> list[str]:
    """Docstrings and blocks of whole-line comments in the order of their lines, cleaned; short ones are left out."""
    pieces: list[tuple[int, str]] = []
    string_lines: set[int] = set()  # lines inside a multi-line string: a "#" there starts no comment
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                pieces.append((node.body[0].lineno, docstring))
        elif isinstance(node, ast.Constant | ast.JoinedStr):
            string_lines.update(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    pieces.extend(_comment_blocks(source, string_lines))
    return [text for _, text in sorted(pieces) if sum(map(str.isalpha, text)) >= _MIN_PIECE_LETTERS]


def _comment_blocks(source: str, string_lines: set[int]) -> Iterator[tuple[int, str]]:
    """Runs of whole-line comments as (first line number, text without the marks)."""
    block: list[str] = []
    first = 0
    for number, line in enumerate([*source.split("\n"), ""], start=1):
        match = _COMMENT_LINE.match(line) if number not in string_lines else None
        if match:
            first = first or number
            text = match[1].strip("#").rstrip()
            # Rulers ("-----") and coding lines are no English; an empty comment line separates paragraphs.
            if not text or (any(map(str.isalpha, text)) and not (number <= 2 and _CODING_LINE.search(text))):
                block.append(text)
        elif block:
            yield first, inspect.cleandoc("\n".join(block))
            block, first = [], 0
        else:
            first = 0


def split(text: str) -> Iterator[str]:
    """Cuts a text into documents of at most `MAX_CHARS` characters at paragraphs, else at lines, else anywhere.

    What remains shorter than `MIN_CHARS` is left out.
    """
    document = ""
    for separator, part in _parts(_BLANK_LINES.sub("\n\n", text)):
        if document and len(document) + len(separator) + len(part) > MAX_CHARS:
            if len(document) >= MIN_CHARS:
                yield document
            document = part
        else:
            document = document + separator + part if document else part
    if len(document) >= MIN_CHARS:
        yield document


def _parts(text: str) -> Iterator[tuple[str, str]]:
    """The smallest parts `split` puts together, each with the separator that stood before it."""
    for paragraph in text.split("\n\n"):
        if len(paragraph) <= MAX_CHARS:
            yield "\n\n", paragraph
            continue
        for line_number, line in enumerate(paragraph.split("\n")):
            for start in range(0, len(line), MAX_CHARS):
                separator = "" if start else "\n" if line_number else "\n\n"
                yield separator, line[start : start + MAX_CHARS]
