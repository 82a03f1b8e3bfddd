"""Addresses on this machine: a port that is free, whether a server answers, and whose it is."""

import http.client
import os
import socket
import urllib.request
from typing import Any

from novad.errors import ConfigError

__all__ = ["HOST", "answers", "free_port", "listener", "listens", "taken"]

HOST = "127.0.0.1"
_SECONDS = 2.0


def listener(name: str, named: int | None, usual: int = 0) -> socket.socket:
    """A port to hand on, held until closed: the named one; else the usual one, or any when that is taken.

    Raises:
        ConfigError: the named port is taken; ``name`` is what names it.
    """
    try:
        return socket.create_server((HOST, usual if named is None else named))
    except OSError as error:
        if named is None and usual:
            return listener(name, None)
        raise ConfigError(f"{name} {named}: cannot listen there: {os.strerror(error.errno or 0)}") from None


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with listener("port", None) as held:
        return int(held.getsockname()[1])


def taken(port: int) -> bool:
    """Whether somebody listens on ``port``."""
    try:
        listener("port", port).close()
    except ConfigError:
        return True
    return False


def listens(pid: int, port: int) -> bool:
    """Whether ``port`` is a process's own, or of one below it; also True where that cannot be asked."""
    import psutil

    try:
        process = psutil.Process(pid)
        return any(_holds(each, port) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):
        return True


def _holds(process: Any, port: int) -> bool:
    import psutil

    try:
        found = process.net_connections("tcp")
    except psutil.NoSuchProcess:  # It ended meanwhile.
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def answers(url: str) -> bool:
    """Whether ``url`` answers with success, whatever proxy the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS):
            return True
    except (OSError, ValueError, http.client.HTTPException):
        # No server, no address at all, or something that does not speak HTTP.
        return False
