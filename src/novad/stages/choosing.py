"""Who chooses how a line asks, tuning images alone or calibration normals too, and the weight they choose."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.config.settings import TuneFusionSettings
from novad.vision.fusion import Floats, FusionChoice, tune_weight

__all__ = ["ENOUGH", "choose_weight", "choosers", "chosen_by"]

# Good images of the tuning split that are enough to choose by.
ENOUGH = 20


def choosers(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which calibration and tuning images choose layers, evidence and weight.

    A conformal threshold keeps its false-alarm rate on normals that had no say in what it cuts (Vovk et al.
    2005), and calibration normals set it. A handful of others chooses at random, though, so where the tuning
    split has fewer than ``ENOUGH`` normals those of calibration help, and the rate holds nearly
    (docs/decisions/novelty-and-fusion.md).

    Args:
        rows: (n) images with ``label`` and ``split``.
    """
    normal = (rows["label"] == 0).to_numpy()
    calibration = normal & (rows["split"] == "calibration").to_numpy()
    enough = int((normal & ~calibration).sum()) >= ENOUGH
    return ~calibration if enough else np.ones(len(rows), bool)


def choose_weight(
    rows: pd.DataFrame, familiarity: Floats, novelty: Floats, settings: TuneFusionSettings
) -> FusionChoice:
    """The weight of novelty that these images ask for, by anomalies and by the normals that choose.

    Args:
        rows: (n) images with ``label`` and ``split``.
        familiarity: (n,) scores on the scale of normals.
        novelty: (n,) the same.
        settings: of the line's fusion.
    """
    bad = (rows["label"] == 1).to_numpy()
    good = choosers(rows) & ~bad
    return tune_weight(
        (familiarity[good], novelty[good]),
        (familiarity[bad], novelty[bad]),
        settings.max_false_positive_rate,
        settings.equal_weight_prior,
    )


def chosen_by(rows: pd.DataFrame) -> dict[str, object]:
    """How many images chose, and of which splits the normals among them are."""
    asked = rows[choosers(rows)]
    normal, anomalous = (asked[asked["label"] == label] for label in (0, 1))
    return {
        "split": "synthetic" if (anomalous["split"] == "synthetic").any() else "tuning",
        "normals": len(normal),
        "normals_of": sorted(set(normal["split"])),
        "anomalies": len(anomalous),
    }
