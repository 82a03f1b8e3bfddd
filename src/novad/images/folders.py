"""Which files of a folder count, for whoever lists images or masks."""

import os
from collections.abc import Iterator
from pathlib import Path

from novad.errors import ConfigError

__all__ = ["files_below", "relative_files", "stem_below", "walked"]

_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


def files_below(folder: Path) -> Iterator[Path]:
    """All files but hidden ones and those of the system: whatever its name ends in, each may be an image.

    A stray text file is found, and refused by whoever decodes it, rather than skipped; see :func:`walked`.
    """
    return (path for path in walked(folder) if path.name.lower() not in _SYSTEM_FILES)


def walked(folder: Path) -> Iterator[Path]:
    """All files but hidden ones, in a fixed order.

    Links to folders are given as if they were files, so that whoever reads them refuses them. A folder that
    does not exist holds none.

    Raises:
        ConfigError: a folder that may not be read, which would else count as empty.
    """
    for here, folders, files in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (Path(here) / name).is_symlink()]
        yield from (Path(here) / name for name in sorted([*files, *linked]) if not name.startswith("."))


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}; give novad the right to")


def relative_files(root: Path, folder: str) -> Iterator[str]:
    """Paths, relative to ``root``, of all files below ``folder``.

    Raises:
        ConfigError: a name that is not valid UTF-8.
    """
    for path in files_below(root / folder):
        yield _text(path.relative_to(root).as_posix())


def stem_below(path: str, depth: int) -> str:
    """The path without its ending and its first ``depth`` folders."""
    return Path(*Path(path).parts[depth:]).with_suffix("").as_posix()


def _text(path: str) -> str:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(f"{path!a}: the file name is not valid UTF-8; rename it") from None
    return path
