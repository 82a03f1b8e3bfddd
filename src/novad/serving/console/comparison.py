"""Whether one version is better than another: both on the same test images, image by image."""

import pandas as pd

from novad.config import Workspace
from novad.evaluation.intervals import paired_comparison
from novad.serving.console.answers import Comparison, Difference
from novad.serving.console.evidence import SCORES
from novad.tracking import PublishedRun

__all__ = ["compared"]

_RESAMPLES = 1000


def compared(workspace: Workspace, line: str, left: int, right: int, kind: str) -> Comparison:
    """The figures of ``right`` less those of ``left``, with paired bootstrap intervals.

    Args:
        kind: familiarity, novelty or hybrid.
    Raises:
        ConfigError: no such version.
        IntegrityError: a file is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    first, second = (_scores(workspace, line, version, kind) for version in (left, right))
    shared = first.merge(second, on=["sha256", "label"], suffixes=("_left", "_right"))
    found = paired_comparison(
        shared[f"{kind}_right"].to_numpy(),
        shared[f"{kind}_left"].to_numpy(),
        shared["label"].to_numpy(),
        _RESAMPLES,
        seed=0,
    )
    differences = {
        name.removesuffix("_difference"): Difference(**told)
        for name, told in found.items()
        if name.endswith("_difference")
    }
    return Comparison(line=line, left=left, right=right, images=len(shared), differences=differences)


def _scores(workspace: Workspace, line: str, version: int, kind: str) -> pd.DataFrame:
    run = PublishedRun.open(workspace, line, version)
    scores: pd.DataFrame = run.table(SCORES, ["sha256", "label", kind]).to_pandas()
    return scores
