"""One table of all methods: the same test images, the same figures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from novad.benchmarking.anomalib_runs import Anomalib, OtherRun, run_method
from novad.benchmarking.temporary_line import novad_costs, train_temporary_line
from novad.config import LineSettings
from novad.errors import CalibrationError
from novad.evaluation.intervals import bootstrap_intervals, paired_comparison
from novad.evaluation.pixels import PixelFigures
from novad.evaluation.summary import KINDS, image_figures
from novad.images import decode_mask
from novad.images.report import Finding
from novad.stages.line import Line
from novad.stages.runner import read_json
from novad.stages.thresholds import threshold_warnings
from novad.vision.pooling import resize_maps

__all__ = ["Benchmark", "Comparison", "compare"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """What is to be compared.

    Attributes:
        settings: of the temporary line, with absolute paths.
        methods: of anomalib, in the order of the table.
        anomalib: where they run; None where nobody named an environment.
        weights: timm ``architecture``, ``checkpoint`` and ``layers`` for them, where they are not the line's.
    """

    settings: LineSettings
    methods: Sequence[str]
    anomalib: Anomalib | None = None
    weights: dict[str, Any] | None = None


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        document: plain values, for JSON.
        scores: one row per test image, one column per measured method.
        thresholds: of novad's scores.
    """

    document: dict[str, Any]
    scores: pd.DataFrame
    thresholds: dict[str, float]


def compare(asked: Benchmark, folder: Path, step: Callable[[str], object]) -> Comparison:
    """Train and judge with novad, then with each of anomalib's methods; one that fails says so in its row.

    Args:
        asked: what to compare.
        folder: for what lives no longer than the benchmark.
        step: told what happens next.
    Raises:
        NovadError: novad itself refused the images or the settings.
    """
    line = train_temporary_line(folder, asked.settings, step)
    metrics = read_json(line.output("evaluate", "metrics.json"))
    gate = read_json(line.output("validate", "report.json"))
    fusion = read_json(line.output("tune_fusion", "fusion.json"))
    costs = novad_costs(line, step)
    scores = pd.read_parquet(line.output("evaluate", "scores.parquet"))
    weights = asked.weights or own_weights(line)
    others = []
    for method in asked.methods:
        step(f"anomalib's {method}")
        others.append(run_method(asked.anomalib, method, line, weights, folder / f"anomalib-{method}"))
    rows = [_own_row(kind, metrics["scores"][kind], costs[kind]) for kind in KINDS]
    rows += [_other_row(line, scores, other) for other in others]
    measured = {other.method: other.scores for other in others if other.scores is not None}
    scores = scores.assign(**measured)
    document = {
        "conditions": _conditions(line, asked, weights),
        "counts": metrics["counts"],
        "left_out": gate.get("left_out", []),
        "warnings": [*gate["warnings"], *_threshold_findings(fusion, asked.settings.tune_fusion.alpha)],
        "methods": rows,
        "hybrid_vs_familiarity": metrics["hybrid_vs_familiarity"],
        "false_negative_reduction": metrics["false_negative_reduction"],
        "hybrid_vs": {name: _hybrid_against(line, scores, name) for name in measured},
        "novad": {
            "fusion": metrics["fusion"],
            "explanation": metrics["explanation"],
            "cost": metrics["cost"],
        },
    }
    return Comparison(document, scores, fusion["thresholds"]["scores"])


def _threshold_findings(fusion: dict[str, Any], alpha: float) -> list[dict[str, Any]]:
    """Warnings about the thresholds, told as those of the data gate are."""
    told = threshold_warnings(fusion, alpha)
    return [asdict(Finding("thresholds", "warning", (), warning)) for warning in told]


def own_weights(line: Line) -> dict[str, Any] | None:
    """The line's own network as timm calls it; None for a B-cos network."""
    told = line.settings.backbone
    if told.architecture.startswith(("novad-", "bcos:")):
        return None
    layers = read_json(line.output("memory_bank", "bank.json"))["layers"]
    return {"architecture": told.architecture, "checkpoint": told.checkpoint, "layers": layers}


def _own_row(kind: str, figures: Row, cost: Row) -> Row:
    return {"method": kind, "by": "novad", "reason": None, **figures, "cost": cost}


def _other_row(line: Line, scores: pd.DataFrame, other: OtherRun) -> Row:
    """Figures from the scores and maps of another's method, by novad's own evaluation."""
    if other.scores is None:
        return {"method": other.method, "by": "anomalib", "reason": other.reason}
    labels, settings = scores["label"].to_numpy(), line.settings
    intervals = bootstrap_intervals(
        {other.method: other.scores}, labels, {}, settings.evaluate.bootstrap, settings.seed
    )
    try:
        pixels = _pixel_figures(line, other)
    except CalibrationError as error:
        return {"method": other.method, "by": "anomalib", "reason": f"failed: {error}"}
    return {
        "method": other.method,
        "by": "anomalib",
        "reason": None,
        **image_figures(other.scores, labels),
        **pixels,
        "ci95": intervals[other.method],
        "cost": other.cost,
    }


def _pixel_figures(line: Line, other: OtherRun) -> dict[str, float | None]:
    """Over the images that the evaluate stage takes: normal ones, and defects that have a mask."""
    figures = PixelFigures()
    if other.maps is None:
        return figures.finish()
    rows: Iterator[Any] = line.rows("test").itertuples()
    for row, heat in zip(rows, other.maps, strict=True):
        mask = None
        if row.label == 1:
            if not isinstance(row.mask_path, str):
                continue
            mask = decode_mask(line.path(row.mask_path), line.settings.validation.max_pixels)
        size = (int(row.height), int(row.width)) if mask is None else (mask.shape[0], mask.shape[1])
        whole = resize_maps(torch.from_numpy(np.array(heat))[None], size)[0].numpy()
        figures.add(whole, mask, f"{other.method}: {row.path}")
    return figures.finish()


def _hybrid_against(line: Line, scores: pd.DataFrame, other: str) -> dict[str, Any]:
    values = {name: scores[name].to_numpy(np.float64) for name in ("hybrid", other)}
    settings = line.settings
    return paired_comparison(
        values["hybrid"],
        values[other],
        scores["label"].to_numpy(),
        settings.evaluate.bootstrap,
        settings.seed,
    )


def _conditions(line: Line, asked: Benchmark, weights: dict[str, Any] | None) -> dict[str, Any]:
    settings = line.settings
    return {
        "data": Path(settings.data).name,
        "layout": settings.layout,
        "backbone": settings.backbone.architecture,
        "backbone_sha256": settings.backbone.sha256,
        "explainer": settings.explainer.method,
        "explained": settings.explainer.backbone.architecture,
        "size": settings.backbone.image_size,
        "tile": settings.backbone.tile or None,
        "anomaly_type": settings.anomaly_type,
        "seed": settings.seed,
        "anomalib": None if asked.anomalib is None else asked.anomalib.version,
        "anomalib_backbone": None if weights is None else weights["architecture"],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
