"""Going on without what single errors of the data gate name, for lines that ask for it."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from novad.images.checks import CHECKS
from novad.images.report import Finding, GateReport

__all__ = ["curable", "without"]

_IMAGE, _MASK = "left out", "mask left out"
_CURES = {check.name: check.cure for check in CHECKS}
_MASK_COLUMNS = ("mask_path", "mask_area", "mask_width", "mask_height", "mask_error")


def curable(report: GateReport, manifest: pd.DataFrame) -> list[Finding]:
    """The errors that end once what they name is gone, as findings of what has to go.

    Args:
        report: of the gate.
        manifest: the rows that it saw.
    """
    in_test = set(manifest.loc[manifest["source"] == "test", "path"])
    found = []
    for error in report.errors:
        cure = _CURES[error.check]
        if cure is None:
            continue
        images = tuple(path for path in error.images if cure != "test images" or path in in_test)
        found.append(replace(error, severity=_MASK if cure == "masks" else _IMAGE, images=images))
    return found


def without(manifest: pd.DataFrame, left_out: Sequence[Finding]) -> pd.DataFrame:
    """The manifest as if the images and masks of these findings had never been there."""
    images = _named(left_out, _IMAGE)
    kept = manifest[~manifest["path"].isin(images)].reset_index(drop=True)
    unmasked = kept["path"].isin(_named(left_out, _MASK))
    return kept.assign(**{column: kept[column].mask(unmasked, None) for column in _MASK_COLUMNS})


def _named(findings: Sequence[Finding], severity: str) -> set[str]:
    return {path for finding in findings if finding.severity == severity for path in finding.images}
