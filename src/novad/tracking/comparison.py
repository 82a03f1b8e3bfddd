"""Whether one version is better than another: both on the same test images, image by image."""

from typing import Any

import pandas as pd

from novad.evaluation.intervals import paired_comparison
from novad.tracking.published import SCORES, PublishedRun

__all__ = ["compared"]

_RESAMPLES = 1000


def compared(left: PublishedRun, right: PublishedRun, kind: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The figures of ``right`` less those of ``left``, with paired bootstrap intervals.

    Args:
        kind: familiarity, novelty or hybrid.
    Returns:
        Number of test images that both judged, and ``value``, ``ci95`` and ``p_value`` of ``auroc``,
        ``fnr_at_fpr_05`` and ``fnr_at_fpr_01``; none of them without both classes.
    Raises:
        IntegrityError: a file is not the one that was published.
    """
    first, second = (_scores(run, kind) for run in (left, right))
    shared = first.merge(second, on=["sha256", "label"], suffixes=("_left", "_right"))
    found = paired_comparison(
        shared[f"{kind}_right"].to_numpy(),
        shared[f"{kind}_left"].to_numpy(),
        shared["label"].to_numpy(),
        _RESAMPLES,
        seed=0,
    )
    return len(shared), {
        name.removesuffix("_difference"): told for name, told in found.items() if name.endswith("_difference")
    }


def _scores(run: PublishedRun, kind: str) -> pd.DataFrame:
    scores: pd.DataFrame = run.table(SCORES, ["sha256", "label", kind]).to_pandas()
    return scores
