"""A PostgreSQL server of the tests' own, where Debian's package or another one is installed."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["postgresql_server"]

_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A fresh server that listens on a socket in a folder of its own: its address without a database.

    Skips the test where PostgreSQL is not installed.
    """
    server = _binary("postgres")
    # pytest's own folders can be entered by one user alone, and the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="novad-pg-"))
    owner = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    try:
        shutil.chown(folder, owner)
        data = folder / "data"
        setup = [_binary("initdb"), "-D", data, "-A", "trust", "-U", "novad", "-E", "UTF8", "--no-sync"]
        subprocess.run(setup, user=owner, cwd=folder, check=True, capture_output=True)
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(
                [server, "-D", data, *options], user=owner, cwd=folder, stdout=log, stderr=log
            )
        try:
            ready = [_binary("pg_isready"), "-h", folder, "-t", "20"]
            while subprocess.run(ready, capture_output=True, check=False).returncode:
                assert running.poll() is None, (folder / "log").read_text()
            yield f"postgresql://novad@/{{database}}?host={folder}"
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binary(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(_DEBIAN.glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed here ({name}; Debian: apt-get install postgresql)")
    return str(found)
