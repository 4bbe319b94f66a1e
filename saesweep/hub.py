"""The Hugging Face Hub: one file from it, and a quick answer where there is no network."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from saesweep.errors import UserError, first_line

CONNECT_SECONDS = 4.0


class HubError(UserError):
    """The Hub, or the repository that was named, cannot be reached."""


def http_error() -> type[Exception]:
    """Return the base class of what the Hub's client raises: that of its HTTP library, httpx, or httpx2 since version 2.4."""
    from huggingface_hub.errors import HfHubHTTPError

    found: type[Exception] = HfHubHTTPError.__mro__[1]
    return found


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
    """Let the libraries of Hugging Face look in their caches alone while the Hub does not answer.

    By themselves they ask again and again, for 20 to 40 seconds, before they say that there is no network.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    modules = [constants, *(config for config in [sys.modules.get("datasets.config")] if config is not None)]
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, was_offline in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = was_offline


def unreachable_text() -> str:
    """Return what to say where the Hub does not answer; empty where it does."""
    from huggingface_hub import constants

    return "" if _answers(constants.ENDPOINT) else f"the Hub ({constants.ENDPOINT}) does not answer"


def download(source: str, repo: str, name: str, *, revision: str | None = None) -> Path | None:
    """Return the local copy of a file of a Hub repository, or None where the repository has no such file.

    Args:
        source: What the user wrote, for messages.
        repo: `user/name`.
        name: Path of the file in the repository.
        revision: Branch, tag or commit; the main branch when left out.

    Raises:
        HubError: The Hub or the repository cannot be reached.
        UserError: The name is no place in a repository.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    if {".", ".."} & {*repo.split("/"), *name.split("/")}:
        raise UserError(f"{source!r} is no place on the Hub; write user/repo/folder, without `.` and `..`")
    try:
        is_offline = not _answers(constants.ENDPOINT)
        return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=5, local_files_only=is_offline))
    except LocalEntryNotFoundError:
        raise HubError(
            f"{source!r} is no folder here, and the Hub could not be reached to look for it there; "
            "check the path or the network"
        ) from None
    except EntryNotFoundError:
        return None
    except (http_error(), HFValidationError, OSError) as error:
        raise HubError(f"{source!r} could not be read from the Hub: {first_line(error)}") from error


@lru_cache
def _answers(endpoint: str) -> bool:
    """Return whether the Hub answers within a few seconds; without this, its client retries for 20 to 40 of them."""
    if getproxies():
        return True  # the proxy reaches it
    url = urlparse(endpoint)
    make = HTTPConnection if url.scheme == "http" else HTTPSConnection
    connection = make(url.hostname or "", url.port, timeout=CONNECT_SECONDS)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (ssl.SSLError, HTTPException):  # somebody answers; whether it is to be trusted, the client decides
        return True
    except OSError:
        return False
    finally:
        connection.close()
    return True
