"""A file on disk: whole or not at all, whatever happens while it is written."""

import os
import stat
import tempfile
from pathlib import Path

from novad.errors import ConfigError

__all__ = ["write_whole"]


_MODE = 0o644


def write_whole(path: Path, content: bytes, mode: int | None = None) -> None:
    """Put ``content`` in the place of ``path``; it is on disk when this returns, and never readable to more.

    Args:
        mode: permissions of the file; None keeps those that it has, and gives a new one 0644.
    Raises:
        ConfigError: no room, or no right to write; ``path`` holds what it held.
    """
    partial = None
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(partial).chmod(_mode(path) if mode is None else mode)
        Path(partial).replace(path)
    except OSError as error:
        # Not every OSError names a file, and this would be the hidden one.
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return _MODE
