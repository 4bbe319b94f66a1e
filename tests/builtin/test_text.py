"""The built-in text: deterministic, English, fine-grained, with a held-out part that stays put."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from saesweep.builtin import text
from saesweep.builtin.text_cache import cache_file


def test_documents_are_many_english_and_of_bounded_length() -> None:
    documents = text.documents()
    assert len(documents) > 1000
    assert len(set(documents)) == len(documents)
    assert all(text.MIN_CHARS <= len(document) <= text.MAX_CHARS for document in documents)
    everything = "\n".join(documents)
    assert len(everything) > 2_000_000
    letters = sum(map(str.isalpha, everything)) / len(everything)
    assert letters > 0.6
    assert everything.count(" the ") / len(everything.split()) > 0.02


def test_another_process_extracts_the_same_documents_without_a_warning(tmp_path: Path) -> None:
    """Under another hash seed, where the order of sets differs, with warnings as errors, and without a cache."""
    command = [sys.executable, "-W", "error", "-c"]
    script = "from saesweep.builtin.text import documents_digest as d; import sys; print(d(), 'torch' in sys.modules)"
    own_cache = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    environment = {**os.environ, **own_cache, "PYTHONHASHSEED": "12345"}
    result = subprocess.run([*command, script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [text.documents_digest(), "False"]
    assert result.stderr == ""


@pytest.fixture
def extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """A cache of the test's own; one entry for each file that is parsed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    library = tmp_path / "library"
    library.mkdir()
    for name in ("one", "two"):
        (library / f"{name}.py").write_text(f'"""Module {name}. {"words " * 40}"""\n')
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(library))
    parsed: list[Path] = []
    english = text._english
    monkeypatch.setattr(text, "_english", lambda *arguments: parsed.append(library) or english(*arguments))
    text._documents.cache_clear()
    yield parsed
    text._documents.cache_clear()


def in_a_new_process() -> list[str]:
    text._documents.cache_clear()
    return text.documents()


def test_documents_are_extracted_once_until_a_file_changes(extracted: list[Path], tmp_path: Path) -> None:
    first = text.documents()
    assert any(document.startswith("Module one.") for document in first)
    assert len(extracted) == 2
    assert in_a_new_process() == first
    assert len(extracted) == 2
    (tmp_path / "library" / "one.py").write_text(f'"""Another module. {"words " * 40}"""\n')
    changed = in_a_new_process()
    assert len(extracted) == 4
    assert any(document.startswith("Another module.") for document in changed)
    assert not any(document.startswith("Module one.") for document in changed)


@pytest.mark.parametrize("damage", ["", "[]", "{}", "cut", "altered"])
def test_a_damaged_cache_is_made_again(damage: str, extracted: list[Path]) -> None:
    first, file = text.documents(), cache_file()
    whole = file.read_text()
    file.write_text({"cut": whole[:-9], "altered": whole.replace("Module one", "Module 0ne")}.get(damage, damage))
    assert in_a_new_process() == first
    assert len(extracted) == 4
    assert file.read_text() == whole


def test_a_cache_that_cannot_be_written_is_done_without(extracted: list[Path]) -> None:
    file = cache_file()
    file.parent.parent.mkdir(parents=True, exist_ok=True)
    file.parent.write_text("a file where a folder should be")
    first = text.documents()
    assert in_a_new_process() == first
    assert len(extracted) == 4


def test_callers_cannot_change_each_others_documents() -> None:
    first = text.documents()
    first.clear()
    assert text.documents()


def test_held_out_part_is_two_per_cent_and_spread_over_the_order() -> None:
    documents = text.documents()
    half = len(documents) // 2
    parts = [sum(map(text.is_held_out, documents[:half])), sum(map(text.is_held_out, documents[half:]))]
    assert 0.01 < sum(parts) / len(documents) < 0.035
    assert min(parts) > 0.25 * sum(parts)


def test_docstrings_and_comments_come_in_reading_order_and_strings_and_tests_are_left_out(tmp_path: Path) -> None:
    filler = "words " * 39 + "words"
    (tmp_path / "module.py").write_text(
        f'#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n"""First, the module docstring. {filler}"""\n'
        "# Second, a comment block that\n# runs over two lines.\n# -----------------\n"
        'DATA = """\n# not a comment but a line of a string literal\n"""\n'
        'def f():\n    """Third, a function docstring.\n\n    Indented paragraph of it.\n    """\n'
        "    return 1  # an inline comment belongs to its code\n"
    )
    for folder in ("test", "site-packages"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(f'"""Left out. {filler}"""')
    (tmp_path / "latin.py").write_bytes(f'"""Not UTF-8: \xe9 {filler}"""'.encode("latin-1"))
    (tmp_path / "python2.py").write_text(f'"""Not Python 3. {filler}"""\nprint "x"\n')
    (tmp_path / "escapes.py").write_text('"invalid \\d escape"\n')
    assert [found for found in text.module_texts(tmp_path) if found] == [
        f"First, the module docstring. {filler}\n\n"
        "Second, a comment block that\nruns over two lines.\n\n"
        "Third, a function docstring.\n\nIndented paragraph of it."
    ]


def test_long_texts_are_cut_at_paragraphs_and_lose_nothing() -> None:
    paragraphs = [f"Paragraph {number}: " + "word " * 59 + "end." for number in range(40)]
    documents = list(text.split("\n\n".join(paragraphs)))
    assert len(documents) >= 40 * 300 // text.MAX_CHARS
    assert max(map(len, documents)) <= text.MAX_CHARS
    assert "\n\n".join(documents) == "\n\n".join(paragraphs)


def test_a_paragraph_longer_than_a_document_is_cut_at_lines() -> None:
    lines = [f"line {number} " + "word " * 20 for number in range(100)]
    documents = list(text.split("\n".join(lines)))
    assert max(map(len, documents)) <= text.MAX_CHARS
    assert "\n".join(documents) == "\n".join(lines)


def test_short_texts_are_left_out() -> None:
    assert list(text.split("Short.")) == []
