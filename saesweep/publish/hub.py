"""The Hub as `push` needs it: retries, and one clear message for each way in which it says no."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from saesweep.errors import UserError, first_line
from saesweep.hub import http_error

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
"""Doubled after every attempt."""
_BUSY = (408, 425, 429, 500, 502, 503, 504)

T = TypeVar("T")


class Hub:
    """One model repository.

    Args:
        repo: `user/name`.
        token: Access token; None for the stored one.
    """

    def __init__(self, repo: str, token: str | None) -> None:
        from huggingface_hub import HfApi, get_token

        if token is None and get_token() is None:
            raise UserError("no Hugging Face token: run `hf auth login`, or set HF_TOKEN; the token needs write access")
        self._repo = repo
        self._api: Any = HfApi(token=token, library_name="saesweep")

    def open(self, *, private: bool, revision: str | None) -> None:
        """Make the repository and the branch where they do not exist."""
        # None leaves the choice to the Hub: an organisation may have its own default.
        self._try(lambda: self._api.create_repo(self._repo, private=private or None, exist_ok=True))
        if revision is not None:
            self._try(lambda: self._api.create_branch(self._repo, branch=revision, exist_ok=True))

    def read_text(self, path: str, revision: str | None) -> str | None:
        """Return a text file of the repository, None where it has no such file."""
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        def read() -> str | None:
            try:
                local = self._api.hf_hub_download(self._repo, path, revision=revision, etag_timeout=10)
            except LocalEntryNotFoundError:  # the Hub did not answer, which says nothing about the file
                raise
            except EntryNotFoundError:
                return None
            return Path(local).read_text(encoding="utf-8")

        return self._try(read)

    def commit(self, files: Mapping[str, Path | bytes], *, message: str, revision: str | None) -> str:
        """Upload files in one commit and return its address. Contents that the Hub has already are not sent again."""
        from huggingface_hub import CommitOperationAdd

        def upload() -> str:
            operations = [
                CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
                for path, content in files.items()
            ]
            return str(
                self._api.create_commit(self._repo, operations, commit_message=message, revision=revision).commit_url
            )

        return self._try(upload)

    def _try(self, call: Callable[[], T]) -> T:
        """Call, again with growing pauses while the Hub is busy or the network down."""
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        connection_error = http_error()
        wait = FIRST_WAIT_SECONDS
        reason: Exception = RuntimeError("no attempt")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except LocalEntryNotFoundError as error:  # how a download says that the Hub does not answer
                reason = error
            except HfHubHTTPError as error:
                status = error.response.status_code if error.response is not None else None
                if status not in _BUSY:
                    raise UserError(self._refusal(status, error)) from None
                reason = error
            except HFValidationError as error:
                raise UserError(f"{self._repo}: {first_line(error)}") from None
            except RuntimeError as error:  # how the client reports that sending a large file failed
                if not isinstance(error.__cause__, (connection_error, OSError)):
                    raise
                reason = error.__cause__
            except (connection_error, OSError) as error:
                reason = error
            if attempt < ATTEMPTS:
                time.sleep(wait)
                wait *= 2
        raise UserError(
            f"{self._repo}: the Hub did not take the upload in {ATTEMPTS} attempts ({first_line(reason)}); run the same "
            "command again: what has arrived is not sent twice"
        ) from None

    def _refusal(self, status: int | None, error: Exception) -> str:
        if status == 401:
            return f"{self._repo}: the Hub does not know this token; run `hf auth login`, or set HF_TOKEN"
        if status == 403:
            return (
                f"{self._repo}: this token may not write there; use one with write access to that user or organisation"
            )
        if status == 404:
            return f"{self._repo}: the Hub has no such repository or revision, or this token may not see it"
        return f"{self._repo}: the Hub refused ({status}): {first_line(error)}"
