"""What happens to parts at the thresholds in force, counted on the test images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from novad.evaluation.rates import Rate

__all__ = ["DECISIONS", "Outcome", "decided", "defect_types", "outcome"]

DECISIONS = ("FAIL", "REVIEW", "PASS")


@dataclass(frozen=True)
class Outcome:
    """How the test images of one kind were decided."""

    name: str
    images: int
    rates: Mapping[str, Rate]
    """By decision; empty without images."""


def decided(scores: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Test scores with the ``decision`` at other thresholds than they may have been judged by."""
    hybrid = scores["hybrid"].to_numpy(np.float64)
    decision = np.where(
        hybrid > thresholds["fail"], "FAIL", np.where(hybrid > thresholds["review"], "REVIEW", "PASS")
    )
    return scores.assign(decision=decision)


def outcome(name: str, rows: pd.DataFrame) -> Outcome:
    """Counts of the decisions on ``rows``."""
    counts = rows["decision"].value_counts()
    rates = {each: Rate(int(counts.get(each, 0)), len(rows)) for each in DECISIONS} if len(rows) else {}
    return Outcome(name, len(rows), rates)


def defect_types(scores: pd.DataFrame) -> list[Outcome]:
    """One outcome per defect type, by name."""
    return [outcome(str(name), rows) for name, rows in scores[scores["label"] == 1].groupby("defect_type")]
