"""Copies of exported SAEs in a store that fsspec reaches by a URL, such as a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saesweep.errors import UserError, first_line
from saesweep.runs.exports import check_replaceable

_LAST = "cfg.json"
"""Written after all other files: what has none is no SAE, so nobody loads half of one."""


def is_url(target: str) -> bool:
    """Return whether a target is a URL and no path."""
    return "://" in target


def upload_export(source: Path, url: str, *, exported_files: Collection[str], force: bool) -> None:
    """Copy the files of an exported SAE to a folder of a store.

    Args:
        source: The SAE's folder.
        url: The folder to make, such as `s3://bucket/sae`.
        exported_files: Names that an exported SAE's files can have; a folder with others is left alone.
        force: Replace an SAE that is there.

    Raises:
        UserError: The store cannot be reached, or the folder may not be written.
    """
    import fsspec

    with _translated(url):
        store, folder = fsspec.core.url_to_fs(url)
        found = _names(store, folder)
    check_replaceable(url, found, is_own=exported_files.__contains__, kind="an exported SAE", force=force)
    files = sorted(
        (file for file in source.iterdir() if file.is_file()), key=lambda file: (file.name == _LAST, file.name)
    )
    with _translated(url):
        for name in sorted(found, key=lambda name: name != _LAST):
            store.rm_file(f"{folder}/{name}")
        store.makedirs(folder, exist_ok=True)
        for file in files:
            store.put_file(str(file), f"{folder}/{file.name}")
        store.invalidate_cache()
        wrong = [file.name for file in files if store.info(f"{folder}/{file.name}")["size"] != file.stat().st_size]
    if wrong:
        raise UserError(f"{url}: {wrong[0]} has another size there; the same command with --force copies it again")


def _names(store: Any, folder: str) -> set[str]:
    """Return the names in a folder; none where there is no such folder, as in a bucket."""
    try:
        paths = store.ls(folder, detail=False)
    except FileNotFoundError:
        return set()
    if [path.strip("/") for path in paths] == [folder.strip("/")]:
        raise UserError(f"{folder}: is a file; --to names the folder to make")
    return {path.rstrip("/").rpartition("/")[2] for path in paths} - {""}


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn what a store raises, each in its own way, into one message."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{url}: {error}; that package lets fsspec reach this store") from error
    except Exception as error:
        reason = first_line(error)
        raise UserError(f"{url}: {reason}; check the address, the network and the credentials of the store") from error
