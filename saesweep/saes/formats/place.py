"""Where the files of a published SAE lie: a folder on this machine, or one in a repository of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from saesweep.errors import UserError
from saesweep.hub import download


class Place(Protocol):
    """A folder that files are asked of by name."""

    name: str
    """What messages call it."""
    origin: str
    """Path or Hub id: the names in it may say which model and hook the SAE is of."""

    def file(self, name: str) -> Path | None:
        """Return the file on this machine, or None where there is none."""

    def above(self, name: str) -> Path | None:
        """Return a file of the folder above; None where there is none."""


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder.absolute()
        self.origin = str(self._folder)

    def file(self, name: str) -> Path | None:
        """Return the file, or None where there is none."""
        path = self._folder / name
        return path if path.is_file() else None

    def above(self, name: str) -> Path | None:
        """Return a file of the folder above; None where there is none."""
        path = self._folder.parent / name
        return path if path.is_file() else None


class HubFolder:
    """A folder in a repository of the Hub, whose files are downloaded when they are asked for.

    Args:
        source: What the user wrote, for messages.
        repo: `user/name`.
        parts: The folders that lead to it.
        revision: Branch, tag or commit; the main branch when left out.
    """

    def __init__(self, source: str, repo: str, parts: tuple[str, ...], revision: str | None = None) -> None:
        self.name = repr(source)
        self.origin = "/".join((repo, *parts))
        self.repo, self.parts = repo, parts
        self._source, self._revision = source, revision
        self._known: dict[str, Path | None] = {}

    def file(self, name: str) -> Path | None:
        """Return the downloaded file, or None where the repository has none of that name there."""
        return self._download("/".join((*self.parts, name)))

    def above(self, name: str) -> Path | None:
        """Return a file of the folder above; None where there is none."""
        return self._download("/".join((*self.parts[:-1], name))) if self.parts else None

    def _download(self, path: str) -> Path | None:
        if path not in self._known:
            self._known[path] = download(self._source, self.repo, path, revision=self._revision)
        return self._known[path]


def needed(place: Place, name: str, beside: str) -> Path:
    """Return a file that a format cannot do without.

    Args:
        place: Where.
        name: The file.
        beside: The file that says of which format the SAE is.

    Raises:
        UserError: It is not there.
    """
    path = place.file(name)
    if path is None:
        raise UserError(f"{place.name}: has {beside}, but no {name}; restore or download it again")
    return path
