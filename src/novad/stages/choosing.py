"""Which images choose how a line asks: the tuning split, and calibration normals where it has too few."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["ENOUGH", "choosers", "chosen_by"]

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
