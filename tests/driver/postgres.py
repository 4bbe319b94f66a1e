"""A PostgreSQL server of one's own, from Debian's package, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

PASSWORD_VARIABLE = "STUDY_PASSWORD"
PASSWORD = "hunter2-and-more"
"""Of the server's only user; the experiment names the variable that holds it."""
_SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def why_no_server() -> str | None:
    """Return why there can be no server on this machine; None where there can."""
    if find_spec("psycopg") is None:
        return "the extra saesweep[postgres] is not installed"
    return None if _SERVERS else "no PostgreSQL server is installed"


class Server:
    """A server with one user, on a free port of this machine.

    Args:
        folder: Where it keeps its data; its path must be short, because it is also that of a socket.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._bin = folder, _SERVERS[-1]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(f"{PASSWORD}\n")
        (folder / "password").chmod(0o644)
        self._do("initdb", "-D", "data", "-A", "scram-sha-256", "-U", "me", "--pwfile", "password")
        self.start()

    @property
    def url(self) -> str:
        """What an experiment says: the password by reference."""
        return f"postgresql://me:${{env:{PASSWORD_VARIABLE}}}@127.0.0.1:{self.port}/postgres"

    @property
    def open_url(self) -> str:
        """The same with the password in it."""
        return self.url.replace(f"${{env:{PASSWORD_VARIABLE}}}", PASSWORD)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        self._do("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """End the server as a crash does: it writes nothing more, and recovers when it is started."""
        self._do("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def _do(self, name: str, *words: str) -> None:
        command = [*self._as, str(self._bin / name), *words]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, timeout=60)


@contextmanager
def running_server() -> Iterator[Server]:
    """Make a server, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="saesweep-postgres-", dir="/tmp") as name:
        server = Server(Path(name))
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # it has been stopped
                server.stop()
