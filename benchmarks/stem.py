"""The stem beside the layers that familiarity chose, by the hybrid with evidence of the memory."""

from collections.abc import Iterator
from typing import Any

from benchmarks.inputs import Request, trained_lines
from benchmarks.report import MissingInput, Report
from novad.stages.layer_choice import auroc, choose_layers, compared
from novad.stages.line import Line
from novad.stages.stem_choice import SURELY, stem_readings, trial_hybrids
from novad.vision.selection import paired_gains

__all__ = ["measure"]


def measure(request: Request) -> Report:
    """Gain of the stem, in standard errors, on every line that could read it.

    Raises:
        MissingInput: there is no such line.
    """
    rows = [row for line in trained_lines(request) for row in _rows(line)]
    if not rows:
        raise MissingInput(f"no line with labelled anomalies and a stem in {request.artifacts}")
    return Report(
        "The stem: tuning anomalies against calibration and tuning normals",
        {"the test split is": "not opened", "standard errors that the stem must win by": SURELY},
        rows,
    )


def _rows(line: Line) -> Iterator[dict[str, Any]]:
    backbone = line.backbone(line.settings.backbone)
    choice, stems = choose_layers(line, backbone), stem_readings(line, backbone)
    if not choice.table or not stems:
        return
    rows, readings = compared(line), [choice.reading, *stems]
    anomalous = (rows["label"] == 1).to_numpy()
    hybrids = trial_hybrids(line, readings, rows)
    gains, errors = paired_gains(hybrids, 0, anomalous)
    for reading, column, gain, error in zip(readings, hybrids.T, gains, errors, strict=True):
        yield {
            "line": line.name,
            "layers": "+".join(reading.layers),
            "neighbourhood": reading.neighbourhood,
            "AUROC of the hybrid": auroc(column, anomalous),
            "standard errors": round(float(gain / error), 1) if error > 0 else None,
        }
