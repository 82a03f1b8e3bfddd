"""The stem beside the layers that familiarity chose, by the hybrid with evidence of the memory."""

from collections.abc import Iterator
from typing import Any

from benchmarks.inputs import Request, rows_of_lines
from benchmarks.report import Report
from novad.stages.layer_choice import choose_layers, reading_rows
from novad.stages.line import Line
from novad.stages.stem_choice import SURELY, try_stem
from novad.vision.selection import paired_gains

__all__ = ["measure"]


def measure(request: Request) -> Report:
    """Gain of the stem, in standard errors, on every line that could read it.

    Raises:
        MissingInput: there is no such line.
    """
    rows = rows_of_lines(request, _rows, "labelled anomalies and a stem")
    return Report(
        "The stem: tuning anomalies against calibration and tuning normals",
        {"the test split is": "not opened", "standard errors that the stem must win by": SURELY},
        rows,
    )


def _rows(line: Line) -> Iterator[dict[str, Any]]:
    backbone = line.backbone(line.settings.backbone)
    trial = try_stem(line, backbone, choose_layers(line, backbone))
    if trial is None:
        return
    gains, errors = paired_gains(trial.hybrids, 0, trial.anomalous)
    told = reading_rows(trial.readings, trial.hybrids, trial.anomalous)
    for row, gain, error in zip(told, gains, errors, strict=True):
        yield {
            "line": line.name,
            "layers": "+".join(row["layers"]),
            "neighbourhood": row["neighbourhood"],
            "AUROC of the hybrid": row["auroc"],
            "standard errors": round(float(gain / error), 1) if error > 0 else None,
        }
