"""Does a detector score images as it did when their scores were recorded?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from novad.vision import Detection

__all__ = ["KINDS", "TOLERANCE", "score_differences"]

KINDS = ("familiarity", "novelty", "hybrid")
# Between the same score on two machines; docs/decisions/edge-bundle.md tells what was measured.
TOLERANCE = 1e-3


def score_differences(recorded: Mapping[str, float], found: "Detection") -> dict[str, float]:
    """|found - recorded| / max(1, |recorded|) of each score of an image."""
    return {
        kind: abs(getattr(found, kind) - recorded[kind]) / max(1.0, abs(recorded[kind])) for kind in KINDS
    }
