"""Stage evaluate: the detector as it will be registered, and its figures on the test split only."""

import time
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from novad.config import Workspace
from novad.evaluation.pixels import PixelFigures
from novad.evaluation.plots import candidates_plot, false_negatives_plot, roc_plot, score_histograms
from novad.evaluation.summary import summarise
from novad.stages.detector_folder import write_detector
from novad.stages.explanation_figures import ExplanationFigures
from novad.stages.gallery import write_gallery
from novad.stages.heatmaps import HeatmapGallery
from novad.stages.line import Line
from novad.stages.runner import main, peak_rss_mb, read_json, stage_output, write_json
from novad.vision import Detection, Detector

__all__ = ["run"]

STAGE = "evaluate"
KINDS = ("familiarity", "novelty", "hybrid")
BATCH = 8


def run(workspace: Workspace, name: str) -> None:
    """Score the test split of one line and keep the evidence."""
    line = Line.open(workspace, name)
    with stage_output(workspace, name, STAGE) as folder:
        write_detector(line, folder / "detector")
        detector = Detector.load(folder / "detector")
        evidence = _Evidence(line, detector, folder)
        for row, image, detection in _judged(line, detector, evidence):
            evidence.take(row, image, detection)
        evidence.write()


def _judged(line: Line, detector: Detector, evidence: "_Evidence") -> Any:
    """(row, image, detection) of every test image; images are held one batch at a time."""
    rows = line.rows("test")
    held: list[Any] = []

    def remembered() -> Any:
        for image in line.images(rows):
            held.append(image)
            yield image

    started = time.perf_counter()
    for row, detection in zip(rows.itertuples(), detector.score(remembered(), BATCH), strict=True):
        evidence.seconds += time.perf_counter() - started
        yield row, held.pop(0), detection
        started = time.perf_counter()


class _Evidence:
    """Everything that one pass over the test split leaves."""

    def __init__(self, line: Line, detector: Detector, folder: Path) -> None:
        self.line, self.detector, self.folder = line, detector, folder
        self.seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        self.pixels = {kind: PixelFigures() for kind in KINDS}
        self.explanation = ExplanationFigures(detector, line.settings.seed)
        self.gallery = HeatmapGallery(
            folder / "heatmaps", line.rows("test"), detector.thresholds, line.settings.evaluate.heatmaps
        )

    def take(self, row: Any, image: Any, detection: Detection) -> None:
        """Keep what one judged image says."""
        mask = self.line.mask(row)
        self.rows.append(
            {
                "path": row.path,
                "sha256": row.sha256,
                "split": row.split,
                "label": row.label,
                "defect_type": row.defect_type,
                **{kind: getattr(detection, kind) for kind in KINDS},
                "p_value": detection.p_value,
                "decision": detection.decision,
            }
        )
        maps = {kind: getattr(detection, f"{kind}_map") for kind in KINDS}
        if row.label == 0 or mask is not None:
            for kind, figures in self.pixels.items():
                figures.add(maps[kind], mask, row.path)
        self.explanation.add(image, maps, mask)
        self.gallery.offer(row, image, maps, mask, detection)

    def write(self) -> None:
        """Write scores, figures, plots and the pictures that depend on the scores."""
        scores = pd.DataFrame(self.rows)
        scores.to_parquet(self.folder / "scores.parquet", index=False)
        fusion = read_json(self.line.output("tune_fusion", "fusion.json"))
        told = fusion["thresholds"]
        summary = summarise(
            scores,
            told["scores"],
            {kind: figures.finish() for kind, figures in self.pixels.items()},
            self.line.settings.evaluate.bootstrap,
            self.line.settings.seed,
        )
        write_json(
            self.folder / "metrics.json",
            {
                "line": self.line.name,
                "backbone": self.detector.backbone,
                "explainer": self.detector.novelty.explainer.method,
                "counts": self._counts(),
                **summary,
                "fusion": {"weight": fusion["weight"], "tuned_on": fusion["tuned_on"]},
                "threshold": {"value": told["fail"], "alpha": told["alpha"], "method": told["method"]},
                "explanation": self.explanation.finish(),
                "cost": self._cost(len(scores)),
            },
        )
        self._plots(scores, told["scores"])
        write_gallery(
            self.line,
            self.detector,
            scores,
            self.folder / "gallery",
            ceil(self.line.settings.evaluate.heatmaps / 3),
        )

    def _counts(self) -> dict[str, int]:
        splits, test = self.line.manifest["split"].value_counts(), self.line.rows("test")
        return {
            "train": len(self.line.bank_rows()),
            "calibration": int(splits.get("calibration", 0)),
            "tuning": int(splits.get("tuning", 0)),
            "test_normal": int((test["label"] == 0).sum()),
            "test_anomalous": int((test["label"] == 1).sum()),
        }

    def _cost(self, images: int) -> dict[str, Any]:
        seconds = {}
        for stage in ("validate", "memory_bank", "calibrate_explainer", "tune_fusion"):
            path = self.line.output(stage, "cost.json")
            seconds[stage] = read_json(path)["seconds"] if path.is_file() else None
        bank = self.folder / "detector" / "bank.safetensors"
        return {
            "seconds_per_stage": seconds,
            "score_ms_per_image": round(1000 * self.seconds / max(images, 1), 2),
            "bank_bytes": bank.stat().st_size,
            "peak_rss_mb": peak_rss_mb(),
        }

    def _plots(self, scores: pd.DataFrame, thresholds: dict[str, float]) -> None:
        folder = self.folder / "plots"
        folder.mkdir()
        candidates = read_json(self.line.output("calibrate_explainer", "candidates.json"))["candidates"]
        score_histograms(scores, thresholds, folder / "score_histograms.png")
        candidates_plot(candidates, folder / "candidates.png")
        if len(np.unique(scores["label"])) == 2:
            roc_plot(scores, folder / "roc.png")
            false_negatives_plot(scores, folder / "false_negatives.png")


if __name__ == "__main__":
    main(run, STAGE)
