"""How familiarity reads patches: layers, neighbourhood and size of the bank, on tuning images alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import Request, read_mask, trained_lines
from benchmarks.report import MissingInput, Report
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.evaluation.pixels import PixelFigures
from novad.stages.guarded_bank import fit_bank
from novad.stages.layer_choice import Reading, candidate_readings, half_features, wide_backbone
from novad.stages.line import Line
from novad.stages.runner import read_json
from novad.vision.familiarity import familiarity_scores
from novad.vision.pooling import resize_maps

__all__ = ["ReadLine", "measure"]

VECTORS = (1000, 8000)
Features = list[dict[str, Tensor]]


def measure(request: Request) -> Report:
    """Banks of several sizes by every reading that the layer choice compares, for every line.

    Raises:
        MissingInput: there is no line of patches with labelled anomalies.
    """
    lines = ReadLine.labelled(request)
    rows = [row for line in lines for row in _rows(line)]
    return Report(
        "Readings of familiarity: tuning anomalies against calibration and tuning normals",
        {"the test split is": "not opened"},
        rows,
    )


@dataclass(frozen=True)
class ReadLine:
    """Features of one line, in half precision, for banks of any reading.

    Attributes:
        line: trained.
        readings: candidates, the start first.
        bank: of the bank's images.
        judged: of calibration and tuning images.
    """

    line: Line
    readings: list[Reading]
    bank: Features
    judged: Features

    @classmethod
    def labelled(cls, request: Request) -> Iterator["ReadLine"]:
        """Lines whose patches are compared and whose tuning split has anomalies, one at a time.

        Raises:
            MissingInput: there is none.
        """
        found = [
            line
            for line in trained_lines(request)
            if line.settings.anomaly_type == "sensory" and (line.rows("tuning")["label"] == 1).any()
        ]
        if not found:
            raise MissingInput(f"no line with labelled anomalies in {request.artifacts}")
        return (cls._read(line) for line in found)

    @classmethod
    def _read(cls, line: Line) -> "ReadLine":
        readings = candidate_readings(line.backbone(line.settings.backbone), line.settings)
        backbone = wide_backbone(line, readings)
        with torch.inference_mode():
            bank, judged = (
                list(half_features(line, backbone, line.rows(*splits)))
                for splits in (("bank",), ("calibration", "tuning"))
            )
        return cls(line, readings, bank, judged)

    def score(self, reading: Reading, vectors: int) -> tuple[Tensor, Tensor]:
        """Scores and distance maps of the judged images by a bank of so many vectors."""
        told = self.line.settings.memory_bank.model_copy(
            update={"min_vectors": vectors, "max_vectors": vectors, "smoothing": reading.smoothing}
        )
        images = sum(len(next(iter(each.values()))) for each in self.bank)
        grids = (grid for features in self.bank for grid in reading.grids(features, "sensory"))
        bank = fit_bank(grids, images, told, self.line.settings.seed).bank
        with torch.inference_mode():
            parts = [
                familiarity_scores(
                    bank,
                    reading.grids(features, "sensory"),
                    told.neighbours,
                    told.top_share,
                    reading.smoothing,
                )
                for features in self.judged
            ]
        return torch.cat([each.scores for each in parts]), torch.cat([each.maps for each in parts])

    @property
    def labels(self) -> NDArray[np.int64]:
        """Of the judged images, 1 for anomalous."""
        return self.line.rows("calibration", "tuning")["label"].to_numpy()


def _rows(read: ReadLine) -> Iterator[dict[str, Any]]:
    told = read_json(read.line.output("memory_bank", "bank.json"))
    chosen = (tuple(told["layers"]), told["neighbourhood"])
    for reading in read.readings:
        for vectors in VECTORS:
            raw, distances = read.score(reading, vectors)
            scores = raw.double().numpy()
            yield {
                "line": read.line.name,
                "layers": "+".join(reading.layers),
                "neighbourhood": reading.neighbourhood,
                "smoothing": reading.smoothing,
                "vectors": vectors,
                "AUROC": image_auroc(scores, read.labels),
                "missed at 5 % FPR": fnr_at_fpr(scores, read.labels, 0.05),
                "AUPRO": _aupro(read.line, distances),
                "chosen": "yes" if (reading.layers, reading.neighbourhood) == chosen else "",
            }


def _aupro(line: Line, distances: Tensor) -> float | None:
    """Of the maps at the size of the network's input; None without masks."""
    size = line.settings.backbone.image_size
    figures = PixelFigures()
    rows = line.rows("calibration", "tuning")
    for (_, row), heat in zip(rows.iterrows(), distances, strict=True):
        if row["label"] == 0:
            mask = None
        elif isinstance(row["mask_path"], str):
            told = torch.from_numpy(read_mask(line.path(row["mask_path"]))).float()
            mask = F.adaptive_avg_pool2d(told[None], size)[0].numpy() >= 0.5
        else:
            continue
        figures.add(resize_maps(heat[None], (size, size))[0].numpy(), mask)
    return figures.finish()["aupro"]
