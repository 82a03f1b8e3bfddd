"""Stage calibrate_explainer: which explanation statistic asks best for novelty on this line."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from novad.config import Workspace
from novad.errors import CalibrationError
from novad.stages.line import Line
from novad.stages.runner import main, stage_output, write_json
from novad.vision.candidates import CandidateGrid, Fits, candidate_scores, fit_normal_statistics
from novad.vision.detector import FamiliarityModel, NoveltyModel, raw_scores
from novad.vision.detector_files import save_normal_statistics
from novad.vision.explainers import Explainer, build_explainer
from novad.vision.memory_bank import load_bank
from novad.vision.preprocess import batches, to_batch
from novad.vision.selection import candidate_table, choose
from novad.vision.synthetic import synthetic_anomaly

__all__ = ["Scored", "fit_candidates", "image_tensors", "load_models", "run", "score_candidates"]

STAGE = "calibrate_explainer"
BATCH = 8
MOST_NORMAL_MAPS = 256


@dataclass(frozen=True)
class Scored:
    """Raw scores of the calibration and tuning images by every candidate."""

    rows: pd.DataFrame
    familiarity: NDArray[np.float64]
    novelty: NDArray[np.float32]


def run(workspace: Workspace, name: str) -> None:
    """Compare the candidates of one line, keep the best and its normal distribution."""
    line = Line.open(workspace, name)
    familiarity, explainer = load_models(line)
    grid, fits = fit_candidates(line, explainer)
    scored = score_candidates(line, familiarity, explainer, grid, fits)
    candidates = [candidate for target in grid.targets for candidate in grid.candidates(target)]
    table = candidate_table(
        candidates,
        scored.familiarity,
        scored.novelty,
        (scored.rows["split"] == "calibration").to_numpy(),
        (scored.rows["label"] == 1).to_numpy(),
        line.settings.tune_fusion.max_false_positive_rate,
        line.settings.tune_fusion.equal_weight_prior,
    )
    best = choose(
        candidates, grid.reference(explainer), scored.novelty, (scored.rows["label"] == 1).to_numpy()
    )
    novelty = NoveltyModel(explainer, best, fits[best.target, best.smoothing])
    scores = scored.rows.assign(
        familiarity=scored.familiarity, novelty=scored.novelty[:, candidates.index(best)].astype(np.float64)
    )
    with stage_output(workspace, name, STAGE) as folder:
        save_normal_statistics(novelty.normal, folder / "calibration.safetensors")
        save_file(_normal_maps(line, familiarity, novelty), folder / "normal_maps.safetensors")
        scores.to_parquet(folder / "scores.parquet", index=False)
        write_json(folder / "candidates.json", _report(line, explainer, best, table, scores))


def load_models(line: Line) -> tuple[FamiliarityModel, Explainer]:
    """The line's familiarity and its explainer, on one network where both use the same."""
    settings = line.settings
    backbone = line.backbone(settings.backbone)
    explained = backbone if settings.explainer.backbone == settings.backbone else None
    explainer = build_explainer(
        settings.explainer.method, explained or line.backbone(settings.explainer.backbone)
    )
    bank = load_bank(line.output("memory_bank", "bank.safetensors"))
    told = settings.memory_bank
    return (
        FamiliarityModel(backbone, bank, settings.anomaly_type, told.neighbours, told.top_share),
        explainer,
    )


def fit_candidates(line: Line, explainer: Explainer) -> tuple[CandidateGrid, Fits]:
    """The line's candidates, and the distribution of their statistics over bank images."""
    settings = line.settings.calibrate_explainer
    grid = CandidateGrid.of(
        explainer, settings.targets, settings.statistics, settings.smoothing, settings.top_shares
    )
    normals = line.rows("bank").head(settings.max_normals)
    return grid, fit_normal_statistics(explainer, grid, image_tensors(line, line.images(normals)))


def image_tensors(line: Line, images: Iterator[Any]) -> Iterator[Tensor]:
    """Batches (N, 3, S, S) of decoded images."""
    for group in batches(images, BATCH):
        yield to_batch(group, line.settings.backbone.image_size)


def score_candidates(
    line: Line, familiarity: FamiliarityModel, explainer: Explainer, grid: CandidateGrid, fits: Fits
) -> Scored:
    """Raw scores of every calibration and tuning image, by familiarity and by every candidate."""
    rows, images = _tuning_images(line)
    known, unknown = [], []
    for batch in image_tensors(line, images):
        novelty, features = candidate_scores(explainer, grid, fits, batch)
        with torch.inference_mode():
            if explainer.backbone is not familiarity.backbone:
                features = familiarity.backbone(batch)
            known.append(familiarity.score(features).scores.numpy())
        unknown.append(novelty)
    return Scored(rows, np.concatenate(known).astype(np.float64), np.concatenate(unknown))


def _tuning_images(line: Line) -> tuple[pd.DataFrame, Iterator[Any]]:
    """Calibration and tuning images; without a labelled defect, synthetic ones stand in.

    Raises:
        CalibrationError: no calibration normal.
    """
    columns = ["path", "sha256", "split", "label", "defect_type"]
    rows = line.rows("calibration", "tuning")[columns]
    normals = rows[rows["label"] == 0].reset_index(drop=True)
    if not (rows["split"] == "calibration").any():
        raise CalibrationError(f"{line.name}: no calibration normal; add normal images")
    if (rows["label"] == 1).any():
        return rows, line.images(rows)
    stand_ins = normals.assign(split="synthetic", label=1)
    kinds = [
        synthetic_anomaly(np.zeros((16, 16, 3), np.uint8), number, 0)[1] for number in range(len(stand_ins))
    ]
    stand_ins["defect_type"] = [f"synthetic_{kind}" for kind in kinds]

    def images() -> Iterator[Any]:
        yield from line.images(normals)
        for number, image in enumerate(line.images(normals)):
            yield synthetic_anomaly(image, number, line.settings.seed)[0]

    return pd.concat([normals, stand_ins], ignore_index=True), images()


def _normal_maps(line: Line, familiarity: FamiliarityModel, novelty: NoveltyModel) -> dict[str, Tensor]:
    """Raw maps of calibration normals: what maps of good parts look like."""
    rows = line.rows("calibration").head(MOST_NORMAL_MAPS)
    raw = [raw_scores(familiarity, novelty, batch) for batch in image_tensors(line, line.images(rows))]
    return {
        "familiarity": torch.cat([each.familiarity.distances for each in raw]).contiguous(),
        "novelty": torch.cat([each.novelty_maps for each in raw]).contiguous(),
    }


def _report(line: Line, explainer: Explainer, best: Any, table: Any, scores: pd.DataFrame) -> dict[str, Any]:
    anomalies = scores[scores["label"] == 1]
    return {
        "line": line.name,
        "method": explainer.method,
        "explained": explainer.backbone.architecture,
        "exact": explainer.exact,
        "chosen": asdict(best),
        "tuned_on": {
            "split": "synthetic" if (anomalies["split"] == "synthetic").any() else "tuning",
            "normals": int((scores["label"] == 0).sum()),
            "anomalies": len(anomalies),
        },
        "candidates": [
            {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
            for row in table
        ],
    }


if __name__ == "__main__":
    main(run, STAGE)
