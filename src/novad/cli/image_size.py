"""Images to be judged whose size is not that of the images that a version was made of."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from novad.cli.outcome import tell
from novad.config import Workspace
from novad.errors import NovadError

if TYPE_CHECKING:
    from novad.tracking import ResolvedModel

__all__ = ["warn_of_other_sizes"]

Size = tuple[int, int]


def warn_of_other_sizes(workspace: Workspace, model: "ResolvedModel", sizes: Mapping[Path, Size]) -> None:
    """Tell how many images are not of the size that the data gate held the version's own images to.

    A version whose own images are of several sizes has no such size.

    Args:
        sizes: width and height of each judged image.
    """
    try:
        known = _sizes(workspace, model)
    except NovadError as error:
        tell(f"warning: whether these images have the size of the version's own is not known: {error}")
        return
    others = [path for path, size in sizes.items() if size not in known]
    if len(known) != 1 or not others:
        return
    [(width, height)], (found_width, found_height) = known, sizes[others[0]]
    tell(
        f"warning: {len(others)} of {len(sizes)} images are not {width}x{height} as those that {model.line} "
        f"version {model.version} was made of, and their scores may mean nothing; the first is {others[0]} "
        f"({found_width}x{found_height})"
    )


def _sizes(workspace: Workspace, model: "ResolvedModel") -> set[Size]:
    """Width and height of the images in the version's data.

    Raises:
        IntegrityError: the record of images is not the published one.
        ServiceError: it is gone, or cannot be fetched.
    """
    from novad.tracking import PublishedRun

    run = PublishedRun.open(workspace, model.line, model.version)
    table = run.table("validate/manifest.parquet", ["width", "height"])
    return set(zip(*(table[name].to_pylist() for name in ("width", "height")), strict=True))
