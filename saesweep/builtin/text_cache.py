"""The documents of the built-in text in the user's cache: to extract them takes seconds, to read them a fraction of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from platformdirs import user_cache_path

from saesweep.atomic import write_text


def cache_file() -> Path:
    """Return where this user's documents of this version of Python lie."""
    return user_cache_path("saesweep") / f"python-docs-{sys.implementation.cache_tag}.json"


def cached_documents(sources: Iterable[Path], extract: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the documents as they were extracted before, where nothing that they come from has changed; else extract them.

    Args:
        sources: The files that are read, and those with the code that does it.
        extract: Reads them.
    """
    path, key = cache_file(), _key(sources)
    found = _read(path, key)
    if found is None:
        found = extract()
        with contextlib.suppress(OSError):  # extracted anew each time, which costs nothing but that
            write_text(path, json.dumps({"key": key, "sha256": _sha256(found), "documents": found}))
    return found


def _key(sources: Iterable[Path]) -> str:
    """Return what the documents depend on: the interpreter, and the size and the time of every file."""
    lines = [sys.version]
    for path in sources:
        stat = path.stat()
        lines.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(path: Path, key: str) -> tuple[str, ...] | None:
    """Return what the cache holds under a key; None where it holds nothing, or something damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        documents = tuple(data["documents"])
        is_valid = data["key"] == key and data["sha256"] == _sha256(documents)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return documents if is_valid else None


def _sha256(documents: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(documents).encode()).hexdigest()
