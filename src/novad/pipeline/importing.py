"""Copying a folder of images into the workspace, so that a line never hangs on files elsewhere."""

import shutil
from pathlib import Path

from novad.errors import ConfigError, RefusedError
from novad.images.folders import walked

__all__ = ["copy_images"]

# The copy, and DVC's own copy in its cache where the file system cannot share them.
_COPIES = 2


def copy_images(source: Path, target: Path) -> int:
    """Copy every file below ``source`` to the new folder ``target``; hidden files stay behind.

    Links are judged here, because DVC would silently turn them into what they point to: one to a file
    inside ``source`` becomes that file, any other is refused.

    Returns:
        Number of files.
    Raises:
        ConfigError: a file or folder cannot be read, or the disk has no room.
        RefusedError: links that lead out of the folder; the message names each.
    """
    files = list(walked(source))
    outside = [path for path in files if path.is_symlink() and not _inside(path, source)]
    if outside:
        names = ", ".join(path.relative_to(source).as_posix() for path in outside)
        raise RefusedError(f"{source}: symbolic links that lead out of the folder: {names}; copy the images")
    needed = _COPIES * sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise ConfigError(f"{target.parent}: {needed >> 20} MiB needed for the images, {free >> 20} MiB free")
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, place)
        except (OSError, shutil.SpecialFileError) as error:
            raise ConfigError(f"{path}: cannot be copied: {error}") from None
    return len(files)


def _inside(link: Path, source: Path) -> bool:
    """Whether a link ends at a file of the folder itself."""
    end = link.resolve()
    return end.is_file() and end.is_relative_to(source.resolve())
