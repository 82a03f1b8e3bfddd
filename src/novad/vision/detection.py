"""What a detector says about one image."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from novad.vision.pooling import resize_maps

__all__ = ["Decision", "Detection", "NearestNormal", "Thresholds"]

Decision = Literal["PASS", "REVIEW", "FAIL"]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Thresholds:
    """Where decisions change, in hybrid score units.

    Attributes:
        fail: above it, FAIL.
        review: above it, and not above ``fail``, REVIEW.
        alpha: false-alarm probability that ``fail`` promises for a normal image.
        map: value that the map of a normal image stays below, with probability 1 - alpha, per kind of map.
    """

    fail: float
    review: float
    alpha: float
    map: dict[str, float]

    def decide(self, hybrid: float) -> Decision:
        """Decision for a hybrid score; one that is no number passes nothing."""
        if not hybrid <= self.fail:
            return "FAIL"
        return "PASS" if hybrid <= self.review else "REVIEW"


@dataclass(frozen=True)
class NearestNormal:
    """The normal patch most like the image's least familiar one.

    Attributes:
        image: path of the training image within the line's data.
        sha256: of that image.
        row: grid row of the patch in it.
        column: grid column.
        distance: in feature units.
        grid: rows and columns of the grid, the same in both images.
        place: row and column of the least familiar patch in the judged image.
    """

    image: str
    sha256: str
    row: int
    column: int
    distance: float
    grid: tuple[int, int] = (1, 1)
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Detection:
    """Scores, decision and maps of one image.

    Attributes:
        familiarity: calibrated distance to the memory bank; 0 is the median normal image.
        novelty: calibrated deviation of the explanation.
        hybrid: both, fused.
        p_value: share of the normals that set the threshold at least as anomalous.
        decision: PASS, REVIEW or FAIL.
        nearest: normal patch nearest to the least familiar one.
        size: (height, width) of the image.
        coarse_maps: the three maps at the detector's own resolution.
    """

    familiarity: float
    novelty: float
    hybrid: float
    p_value: float
    decision: Decision
    nearest: NearestNormal
    size: tuple[int, int]
    coarse_maps: dict[str, Map]

    @cached_property
    def familiarity_map(self) -> Map:
        """(H, W) unfamiliarity at image resolution; comparable with ``Thresholds.map``."""
        return self._full("familiarity")

    @cached_property
    def novelty_map(self) -> Map:
        """(H, W) novelty at image resolution."""
        return self._full("novelty")

    @cached_property
    def hybrid_map(self) -> Map:
        """(H, W) both, fused as the scores are."""
        return self._full("hybrid")

    def _full(self, name: str) -> Map:
        coarse = torch.from_numpy(self.coarse_maps[name])[None]
        return np.asarray(resize_maps(coarse, self.size)[0].numpy(), np.float32)
