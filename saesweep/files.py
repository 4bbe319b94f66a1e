"""Files that somebody else may have written, damaged or replaced: read whole, or refused with one message."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saesweep.errors import UserError

WANDB_FOLDER = "wandb"
"""W&B's own folder in a run directory: it makes links there, and nothing of ours is read or written in it."""
_MAX_DEPTH_IN_RUN = 6
"""`confirm/<fingerprint>/trials/0000/snapshots/<tokens>` lies this deep."""


def read_text(path: Path, *, fix: str) -> str:
    """Return the text of a UTF-8 file.

    Args:
        path: The file.
        fix: What to do where it is damaged, for the message.

    Raises:
        UserError: It is not there, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged, not UTF-8 text (byte {error.start}); {fix}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}; {fix}") from None


def parse_json(text: str, *, place: object, fix: str) -> Any:
    """Return the data of a JSON text.

    Args:
        text: The text.
        place: Where it comes from, for the message.
        fix: What to do where it is damaged, for the message.

    Raises:
        UserError: It is not JSON, nests too deep, or holds a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UserError(f"{place}: damaged, not valid JSON ({reason}); {fix}") from None


def read_json(path: Path, *, fix: str = "start a new run with --run-dir") -> Any:
    """Return the data of a JSON file.

    Args:
        path: The file.
        fix: What to do where it is damaged, for the message.

    Raises:
        UserError: It cannot be read, or is damaged.
    """
    return parse_json(read_text(path, fix=fix), place=path, fix=fix)


def is_run_directory(path: Path) -> bool:
    """Return whether a folder is a run directory, however far its run has come."""
    return (path / "run.json").is_file()


def no_run_directory(path: Path) -> UserError:
    """Return what to say where a run directory is to be named and something else is."""
    if path.is_file():
        return UserError(
            f"{path}: is a file; name the run directory, which is runs/<name> unless --run-dir said otherwise"
        )
    return UserError(f"{path}: no such run directory")


def read_json_object(path: Path, *, fix: str = "start a new run with --run-dir") -> dict[str, Any]:
    """Return the data of a JSON file that holds one object.

    Args:
        path: The file.
        fix: What to do where it is damaged, for the message.

    Raises:
        UserError: It cannot be read, is damaged, or holds something else.
    """
    data = read_json(path, fix=fix)
    if not isinstance(data, dict):
        raise UserError(f"{path}: damaged, it must be a JSON object, got a {type(data).__name__}; {fix}")
    return data


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def refuse_links(folder: Path, *, deep: bool = True) -> None:
    """Refuse a folder of a run that holds anything but plain files and folders.

    A link would be followed: its target printed in a message, copied into an export, or overwritten. A pipe would be
    waited for.

    Args:
        folder: A run directory, or a folder in one; it may itself be reached through a link.
        deep: Look into its folders too, but for that of W&B.

    Raises:
        UserError: Something in it is a link, a pipe, a socket or a device.
    """
    for entry in _entries(folder, deep):
        if entry.is_symlink():
            raise UserError(
                f"{entry.path}: is a link to {os.readlink(entry.path)}; links in a run directory are not followed. "
                "Put the file itself there, or remove the link"
            )
        if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            kind = stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
            named = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(kind, "a device")
            raise UserError(f"{entry.path}: is {named}, no file of a run; remove it")


def refuse_links_in_run(folder: Path) -> None:
    """Refuse links in a folder that is a run directory, or lies in one; other folders (the Hub's cache) may have them.

    Raises:
        UserError: Something in it, or a folder between it and its run directory, is a link.
    """
    place = folder.absolute()
    for root in (place, *place.parents[:_MAX_DEPTH_IN_RUN]):
        if is_run_directory(root):
            for parent in (place, *place.parents):
                if parent == root:
                    break
                if parent.is_symlink():
                    raise UserError(f"{parent}: is a link; links in a run directory are not followed. Remove it")
            refuse_links(folder)
            return


def _entries(folder: Path, deep: bool) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                yield entry
                if deep and entry.is_dir(follow_symlinks=False) and entry.name != WANDB_FOLDER:
                    waiting.append(entry.path)
