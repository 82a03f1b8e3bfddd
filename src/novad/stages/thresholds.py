"""Thresholds of the decision, and which good parts set them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.config.settings import TuneFusionSettings
from novad.evaluation.rates import surplus_p_value
from novad.vision.calibration import coarse_promise, promised_alpha, promised_threshold
from novad.vision.fusion import Floats

__all__ = ["UNLIKELY", "GoodParts", "conformal_thresholds", "threshold_warnings"]

# Chance that good parts of the tuning split fail so often by accident, from which on it is told.
UNLIKELY = 0.01


@dataclass(frozen=True)
class GoodParts:
    """Calibration normals and good tuning images, and which of them set thresholds.

    Calibration normals had no part in anything: a good part that looks as they do exceeds the threshold that
    they ask for with probability at most alpha. Good parts of the tuning split may look otherwise (another
    folder, another day), and such parts are what comes; evidence judged each without having learned from it.
    So where both together ask for at least as high a threshold, both set it (cross-conformal prediction, Vovk
    2015). What was promised of parts as the n calibration normals holds all the more, and of parts as the m
    in the tuning split at most alpha (n + m + 1) / (m + 1) fail.

    Attributes:
        calibration: (k,) which images are calibration normals.
        tuning: (k,) which are good and of the tuning split.
        hybrid: (k,) scores, by the weight that was chosen.
        alpha: wanted false-alarm rate.
    """

    calibration: NDArray[np.bool_]
    tuning: NDArray[np.bool_]
    hybrid: Floats
    alpha: float

    @classmethod
    def of(cls, rows: pd.DataFrame, hybrid: Floats, alpha: float) -> "GoodParts":
        """From (k) images with ``label`` and ``split``."""
        good, split = (rows["label"] == 0).to_numpy(), rows["split"]
        return cls(
            good & (split == "calibration").to_numpy(), good & (split == "tuning").to_numpy(), hybrid, alpha
        )

    @property
    def setters(self) -> NDArray[np.bool_]:
        """(k,) which set thresholds."""
        both = self.calibration | self.tuning
        return both if self._asks_for(both) >= self._asks_for(self.calibration) else self.calibration

    def check(self) -> dict[str, Any]:
        """How many tuning normals exceed what calibration normals ask for, and the chance of that."""
        scores, count = self.hybrid[self.tuning], int(self.calibration.sum())
        failed = int((scores > self._asks_for(self.calibration)).sum())
        chance = surplus_p_value(failed, len(scores), count, promised_alpha(count, self.alpha))
        return {"normals": len(scores), "failed": failed, "p_value": chance}

    def _asks_for(self, normals: NDArray[np.bool_]) -> float:
        return promised_threshold(self.hybrid[normals], self.alpha)


def conformal_thresholds(
    parts: GoodParts,
    calibrated: dict[str, Floats],
    peaks: list[dict[str, Floats]],
    settings: TuneFusionSettings,
) -> dict[str, Any]:
    """Thresholds of scores and maps; with few normals, at the rate that they can promise.

    Args:
        parts: good ones.
        calibrated: (k,) scores of each kind.
        peaks: (c,) highest values of each kind of map, of calibration normals, then of good tuning images if
            there are any; these raise its threshold, too, though masks may have been taught beside them.
        settings: of the line's fusion.
    """
    setters = parts.setters
    count = int(setters.sum())
    return {
        "method": "split conformal",
        "normals": count,
        "normals_of": ["calibration", "tuning"] if (setters & parts.tuning).any() else ["calibration"],
        "alpha": promised_alpha(count, settings.alpha),
        "review_alpha": promised_alpha(count, settings.review_alpha),
        "fail": promised_threshold(parts.hybrid[setters], settings.alpha),
        "review": promised_threshold(parts.hybrid[setters], settings.review_alpha),
        "scores": {
            kind: promised_threshold(each[setters], settings.alpha) for kind, each in calibrated.items()
        },
        "map": {kind: _highest([each[kind] for each in peaks], settings.alpha) for kind in peaks[0]},
    }


def _highest(peaks: list[Floats], alpha: float) -> float:
    """The threshold that calibration normals ask for, or all together where that is higher."""
    return max(promised_threshold(each, alpha) for each in (peaks[0], np.concatenate(peaks)))


def threshold_warnings(fusion: Mapping[str, Any], alpha: float) -> list[str]:
    """What people must know of the thresholds: that they promise less than ``alpha``, or had to be raised.

    Args:
        fusion: ``fusion.json``, or as much of it as tells of thresholds.
        alpha: wanted false-alarm rate.
    """
    told = coarse_promise(fusion["thresholds"]["normals"], alpha), _contradiction(fusion["tuning_check"])
    return [warning for warning in told if warning]


def _contradiction(check: Mapping[str, Any]) -> str | None:
    """What good parts of the tuning split say against calibration normals; None where they agree."""
    if check["p_value"] >= UNLIKELY:
        return None
    return (
        f"{check['failed']} of {check['normals']} good parts of the tuning split exceed what calibration "
        f"normals ask for (chance {check['p_value']:.1g}): they do not look as those that the line learned "
        "from; the threshold was raised for them, and more defects pass; add good parts of their kind to the "
        "training images"
    )
