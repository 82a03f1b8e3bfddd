"""Datasets made of symbolic links that lead elsewhere, as downloads of a hub are, gathered in one folder.

A line refuses such links, for whoever can write one among its images could make it read, and keep, any file.
A benchmark is of the user's own choosing and keeps no image: it reads where the links lead.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from novad.images import discover
from novad.images.folders import relative_files
from novad.images.layouts import keep_visa_split, mask_folder

__all__ = ["gathered"]


def gathered(data: Path, layout: str, folder: Path) -> Path:
    """``data`` itself, or where a link in it leads out, its files by name and place in ``folder``.

    Files are linked there, or copied from another disk. Of what is none, a folder or a dead end, the link
    stays, for the data gate to name.

    Args:
        data: folder that follows ``layout``; it is only read.
        layout: which files count.
        folder: where the images may go; need not exist.
    """
    root = data.resolve()
    # Not Path.resolve, which does not take links in a circle.
    sources = {name: Path(os.path.realpath(data / name)) for name in _files(data, layout)}
    if all(source.is_relative_to(root) for source in sources.values()):
        return root
    target = folder / root.name
    # Files first: of a folder whose files are named too, no link may lead back to where these lie.
    for name, source in sorted(sources.items(), key=lambda item: not item[1].is_file()):
        # A table may name places that are not below the folder; the gate does not take those.
        if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts:
            _take(source, target / name)
    if layout == "visa":
        keep_visa_split(data, target)
    return target


def _take(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        if not place.exists():
            place.symlink_to(source)
        return
    try:
        place.hardlink_to(source)
    except OSError:  # another disk, or a file of somebody else's
        shutil.copyfile(source, place)


def _files(data: Path, layout: str) -> Iterator[str]:
    """Images and masks by their layout, and the tables that a layout may read."""
    masks = mask_folder(data, layout)
    for sample in discover(data, layout):
        yield sample.path
        if masks is None and sample.mask_path is not None:
            yield sample.mask_path
    # Not by the samples: a mask may be a folder of files, and what no sample uses is told.
    yield from () if masks is None else relative_files(data, masks)
    yield from (table.relative_to(data).as_posix() for table in data.rglob("*.csv"))
