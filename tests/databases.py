"""A PostgreSQL server of the tests' own, where Debian's package or another one is installed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["postgresql_server", "restart_postgresql"]

_DEBIAN = Path("/usr/lib/postgresql")


@contextmanager
def postgresql_server() -> Iterator[str]:
    """A fresh server that listens on a socket in a folder of its own: its address without a database.

    Skips the test where PostgreSQL is not installed.
    """
    # pytest's own folders can be entered by one user alone, and the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="novad-pg-"))
    owner = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    try:
        shutil.chown(folder, owner)
        data = folder / "data"
        setup = [_binary("initdb"), "-D", data, "-A", "trust", "-U", "novad", "-E", "UTF8", "--no-sync"]
        subprocess.run(setup, user=owner, cwd=folder, check=True, capture_output=True)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _control(folder, owner, "start", "-o", options)
        try:
            yield f"postgresql://novad@/{{database}}?host={folder}"
        finally:
            _control(folder, owner, "stop", "-m", "fast")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restart_postgresql(address: str) -> None:
    """End the server of an address, and every connection with it, and start it anew."""
    folder = Path(address.partition("host=")[2])
    _control(folder, folder.owner(), "restart", "-m", "fast")


def _control(folder: Path, owner: str, *action: str) -> None:
    command = [_binary("pg_ctl"), "-D", folder / "data", "-l", folder / "log", "-w", *action]
    subprocess.run(command, user=owner, cwd=folder, check=True, capture_output=True, timeout=60)


def _binary(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(_DEBIAN.glob(f"*/bin/{name}"), reverse=True)), None)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed here ({name}; Debian: apt-get install postgresql)")
    return str(found)
