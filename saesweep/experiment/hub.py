"""One file from the Hugging Face Hub, with a quick answer where there is no network."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from saesweep.errors import UserError


def download(source: str, repo: str, name: str, *, revision: str | None = None) -> Path | None:
    """Return the local copy of a file of a Hub repository, or None where the repository has no such file.

    Args:
        source: What the user wrote, for messages.
        repo: `user/name`.
        name: Path of the file in the repository.
        revision: Branch, tag or commit; the main branch when left out.

    Raises:
        UserError: The Hub or the repository cannot be reached.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if {".", ".."} & {*repo.split("/"), *name.split("/")}:
        raise UserError(f"{source!r} is no place on the Hub; write user/repo/folder, without `.` and `..`")
    try:
        is_offline = not _resolves(constants.ENDPOINT)
        return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=5, local_files_only=is_offline))
    except LocalEntryNotFoundError:
        raise UserError(
            f"{source!r} is no folder here, and the Hub could not be reached to look for it there; "
            "check the path or the network"
        ) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source!r} could not be read from the Hub: {reason}") from error


def _resolves(endpoint: str) -> bool:
    """Return whether the Hub's name resolves; without this, its client retries for 23 seconds before it gives up."""
    if getproxies():
        return True  # the proxy resolves it
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except socket.gaierror:
        return False
    return True
