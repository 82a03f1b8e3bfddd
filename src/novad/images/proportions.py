"""The size of the network's input that keeps the proportions of a line's images."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from novad.config.settings import LARGEST_SIDE, SIDE_STEP, SMALLEST_SIDE, TILE_STEP
from novad.errors import ImageError
from novad.images.decode import upright_size
from novad.images.layouts import Sample

__all__ = ["in_proportion"]

MOST_ASKED = 50
# Networks forgive this much; what a factor of 2.5 costs is in docs/research/familiarity.md.
NEARLY_SQUARE = 1.25


def in_proportion(told: int | str, root: Path, samples: Sequence[Sample], *, tiled: bool) -> int | str:
    """What stands for ``told`` on these images: a number of pixels N asks for about N x N of them.

    Images that are no squares get as many in their own proportions, images of several proportions a square.
    What the settings refuse stays as it is.

    Args:
        told: a number, or the very ``WIDTHxHEIGHT``.
        root: folder of the images.
        samples: as the layout finds them; what cannot be read is passed over, for the data gate to name.
        tiled: whether images go through the network in parts.
    Returns:
        A number, or ``WIDTHxHEIGHT``.
    """
    if not str(told).isdecimal() or int(told) not in range(SMALLEST_SIDE, LARGEST_SIDE + 1, SIDE_STEP):
        return told
    stretched = _width_by_height(root, samples)
    if stretched is None or 1 / NEARLY_SQUARE < stretched < NEARLY_SQUARE:
        return told
    step = TILE_STEP if tiled else SIDE_STEP
    longer = math.sqrt(max(stretched, 1 / stretched))
    # Where the longer side would be too long, both shrink.
    asked = min(int(told), LARGEST_SIDE / longer)
    width, height = (
        max(round(asked * share / step) * step, SMALLEST_SIDE)
        for share in (math.sqrt(stretched), 1 / math.sqrt(stretched))
    )
    return f"{width}x{height}"


def _width_by_height(root: Path, samples: Sequence[Sample]) -> float | None:
    """Of most images, some of them asked; None where they differ, or none can be read."""
    asked = samples[:: max(1, len(samples) // MOST_ASKED)]
    found = []
    for sample in asked:
        try:
            width, height = upright_size(root / sample.path)
        except ImageError:
            continue
        found.append(width / height)
    if not found:
        return None
    few, usual, many = np.quantile(found, (0.1, 0.5, 0.9))
    return float(usual) if many / few < NEARLY_SQUARE else None
