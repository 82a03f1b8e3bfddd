"""What trained lines find: familiarity, novelty and hybrid side by side, from their metrics.json."""

import json
from typing import Any

from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.evaluation.summary import KINDS

__all__ = ["measure"]

FIGURES = {
    "AUROC": "image_auroc",
    "AUPR": "image_aupr",
    "missed at 1 % FPR": "fnr_at_fpr_01",
    "missed at 5 % FPR": "fnr_at_fpr_05",
    "F1": "f1",
    "pixel AUROC": "pixel_auroc",
    "AUPRO": "aupro",
    "AUPIMO": "aupimo",
}
# How well the map of a score tells where the defect is.
PLACES = {
    "energy in mask": "energy_in_mask",
    "pointing game": "pointing_game",
    "pointing game, near": "pointing_game_near",
}


def measure(request: Request) -> Report:
    """Gather the figures of every line that has been evaluated.

    Raises:
        MissingInput: no line has been.
    """
    found = sorted(request.artifacts.glob("*/evaluate/metrics.json"))
    if not found:
        raise MissingInput(
            f"no evaluated line in {request.artifacts}; train one, or name a folder by --artifacts"
        )
    lines = [json.loads(path.read_text("utf-8")) for path in found]
    return Report(
        "Detection on the test splits",
        {
            "lines": len(lines),
            "tuned on": ", ".join(sorted({each["fusion"]["tuned_on"]["split"] for each in lines})),
        },
        [row for line in lines for row in _rows(line)],
    )


def _rows(line: dict[str, Any]) -> list[dict[str, Any]]:
    return [_row(line, kind, line["scores"][kind]) for kind in KINDS]


def _row(line: dict[str, Any], kind: str, figures: dict[str, Any]) -> dict[str, Any]:
    counts, reduction, explanation = line["counts"], line["false_negative_reduction"], line["explanation"]
    interval = figures["ci95"].get("image_auroc")
    return {
        "line": line["line"],
        "backbone": line["backbone"],
        "normal + anomalous": f"{counts['test_normal']} + {counts['test_anomalous']}",
        "score": kind,
        **{name: figures[key] for name, key in FIGURES.items()},
        **{name: (explanation.get(key) or {}).get(kind) for name, key in PLACES.items()},
        "AUROC, 95 %": f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else None,
        "fewer missed at 5 % FPR": reduction["at_fpr_05"] if kind == "hybrid" else None,
    }
