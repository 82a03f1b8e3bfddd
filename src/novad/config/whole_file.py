"""A file on disk: whole or not at all, whatever happens while it is written."""

import os
import tempfile
from pathlib import Path

from novad.errors import ConfigError

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put ``content`` in the place of ``path``; it is on disk when this returns, and never readable to more.

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
        Path(partial).chmod(mode)
        Path(partial).replace(path)
    except OSError as error:
        # Not every OSError names a file, and this would be the hidden one.
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
