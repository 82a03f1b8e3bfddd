"""Image files that a user names, and judging them one batch at a time."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from novad.errors import ConfigError, ImageError
from novad.images.decode import Pixels, decode_bytes, read_regular
from novad.images.folders import files_below

__all__ = ["image_files", "judge_files"]

Judgement = TypeVar("Judgement")


def image_files(paths: Iterable[Path]) -> list[Path]:
    """Every file named or inside a named folder, once each, in the order given.

    Of a folder the same files count as in a line's data, so that what can be trained can be scored: a table
    or a note beside the images is found too, and named by :func:`judge_files` as what cannot be read.

    Raises:
        ConfigError: a path that does not exist, or a folder without an image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(files_below(path))
            if not inside:
                raise ConfigError(f"{path}: no image in this folder")
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise ConfigError(f"{path}: no such image or folder")
    return list(found)


def judge_files(
    judge: Callable[[Iterable[Pixels]], Iterator[Judgement]],
    paths: Iterable[Path],
    max_pixels: int,
    unreadable: list[dict[str, str]],
) -> Iterator[tuple[Path, str, Pixels, Judgement]]:
    """(path, sha256, image, judgement) of every file, with no more than the judge's batch in memory.

    Args:
        judge: takes images and gives one judgement for each, in order: ``Detector.score``.
        paths: of image files.
        max_pixels: images of more pixels are refused.
        unreadable: gains ``path`` and ``error`` of each file that cannot be read; it is passed over.
    """
    held: list[tuple[Path, str, Pixels]] = []

    def decoded() -> Iterator[Pixels]:
        for path in paths:
            try:
                data = read_regular(path)
                image = decode_bytes(data, str(path), max_pixels)
            except (ImageError, OSError) as error:
                unreadable.append({"path": str(path), "error": str(error)})
                continue
            held.append((path, hashlib.sha256(data).hexdigest(), image))
            yield image

    for judgement in judge(decoded()):
        yield (*held.pop(0), judgement)
