"""Which mask belongs to which image: by name, in the forms in which data sets come."""

import re
from pathlib import Path, PurePosixPath

from novad.images.folders import relative_files, stem_below

__all__ = ["MaskFiles"]

_MASK_SUFFIX = re.compile("_(mask|gt|label)$", re.IGNORECASE)


class MaskFiles:
    """The files below one folder of masks, and which of them images use.

    The mask of image ``crack/7`` is ``crack/7_mask.png`` (or ``_gt``, ``_label``), else ``crack/7.png``, else
    what lies in a folder ``crack/7/``: MVTec LOCO draws each region of a defect into a file of its own there.
    """

    def __init__(self, root: Path, folder: str) -> None:
        self._suffixed: dict[str, list[str]] = {}
        self._named: dict[str, list[str]] = {}
        self._inside: dict[str, list[str]] = {}
        self._unused: dict[str, None] = {}
        depth = len(PurePosixPath(folder).parts)
        for path in relative_files(root, folder):
            stem = stem_below(path, depth)
            bare = _MASK_SUFFIX.sub("", stem)
            if bare != stem:
                self._suffixed.setdefault(bare, []).append(path)
            self._named.setdefault(stem, []).append(path)
            self._inside.setdefault(PurePosixPath(stem).parent.as_posix(), []).append(path)
            self._unused[path] = None

    def of(self, stem: str) -> str | None:
        """Mask file of an image, or the folder of the files whose union it is; None without.

        Args:
            stem: path of the image below the folder that the masks mirror, without its ending.
        """
        for single in (self._suffixed, self._named):
            if stem in single:
                return self._use(single[stem][-1:])[0]
        parts = self._use(self._inside.get(stem, []))
        return None if not parts else parts[0] if len(parts) == 1 else str(PurePosixPath(parts[0]).parent)

    def unused(self) -> list[str]:
        """Files that no image has used so far."""
        return list(self._unused)

    def _use(self, paths: list[str]) -> list[str]:
        for path in paths:
            self._unused.pop(path, None)
        return paths
