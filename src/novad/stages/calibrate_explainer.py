"""Stage calibrate_explainer: which explanation statistic asks best for novelty on this line."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
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
from novad.stages.localisation import MaskedImages, best_map, masked_images
from novad.stages.options import BankDeviations, Option, Scored, best_option, offered_options
from novad.stages.runner import main, read_json, stage_output, write_json
from novad.vision.candidates import CandidateGrid, Fits, candidate_scores, fit_normal_statistics
from novad.vision.detector import FamiliarityModel, NoveltyModel, raw_scores
from novad.vision.detector_files import save_novelty
from novad.vision.explainers import MEMORY, Explainer, Memory, build_explainer
from novad.vision.memory_bank import load_bank
from novad.vision.preprocess import batches, images_at_once, to_batch
from novad.vision.selection import candidate_table
from novad.vision.synthetic import synthetic_anomaly

__all__ = [
    "bank_deviations",
    "fit_candidates",
    "image_tensors",
    "learns",
    "load_models",
    "run",
    "score_candidates",
    "score_images",
]

Places = NDArray[np.int64]

STAGE = "calibrate_explainer"
MOST_NORMAL_MAPS = 256


def run(workspace: Workspace, name: str) -> None:
    """Compare the candidates of one line, learn to weigh them where anomalies allow, keep what fuses best."""
    line = Line.open(workspace, name)
    familiarity, explainer = load_models(line)
    grid, fits = fit_candidates(line, explainer)
    scored = score_candidates(line, familiarity, explainer, grid, fits)
    table = candidate_table(
        scored.candidates,
        scored.familiarity,
        scored.novelty,
        scored.calibration,
        scored.anomalous,
        line.settings.tune_fusion.max_false_positive_rate,
        line.settings.tune_fusion.equal_weight_prior,
    )
    normal = bank_deviations(line, familiarity, explainer, grid, fits) if learns(line) else None
    options = offered_options(line.settings, scored, grid.reference(explainer), normal)
    best = best_option(options, scored.anomalous)
    target = best.judged[0].target
    masked = masked_images(line)
    shown, maps = best_map(explainer, grid, fits, target, masked)
    read = {each.smoothing: fits[target, each.smoothing] for each in (shown, *best.judged)}
    novelty = NoveltyModel(explainer, shown, best.judged, best.evidence, read, best.residuals)
    scores = scored.rows.assign(familiarity=scored.familiarity, novelty=best.scores)
    with stage_output(workspace, name, STAGE) as folder:
        save_novelty(read, best.evidence, folder / "calibration.safetensors")
        kept = _normal_maps(line, familiarity, novelty)
        if masked is not None and maps is not None:
            kept |= _masked_maps(familiarity, masked, maps)
        save_file(kept, folder / "maps.safetensors")
        scores.to_parquet(folder / "scores.parquet", index=False)
        write_json(folder / "candidates.json", _report(line, novelty, options, table, scores))


def learns(line: Line) -> bool:
    """Whether the line has images enough to weigh deviations instead of choosing one.

    Labelled anomalies as the settings ask for, and besides two bank images to fit the statistics on another.
    """
    wanted, anomalies = (
        line.settings.calibrate_explainer.evidence_anomalies,
        line.rows("tuning")["label"] == 1,
    )
    return 0 < wanted <= int(anomalies.sum()) and len(line.bank_rows()) > 2


def load_models(line: Line) -> tuple[FamiliarityModel, Explainer]:
    """The line's familiarity and its explainer, on one network where both use the same."""
    settings = line.settings
    read = read_json(line.output("memory_bank", "bank.json"))["layers"]
    backbone = line.backbone(settings.backbone, read)
    explained = backbone if settings.explainer.backbone == settings.backbone else None
    bank, asked = (
        load_bank(line.output("memory_bank", "bank.safetensors")),
        settings.calibrate_explainer.targets,
    )
    explainer = build_explainer(
        settings.explainer.method,
        explained or line.backbone(settings.explainer.backbone),
        Memory(bank, settings.anomaly_type) if explained and MEMORY in asked else None,
    )
    told = settings.memory_bank
    return (
        FamiliarityModel(
            backbone, bank, settings.anomaly_type, told.neighbours, told.top_share, told.smoothing
        ),
        explainer,
    )


def fit_candidates(line: Line, explainer: Explainer) -> tuple[CandidateGrid, Fits]:
    """The line's candidates, and the distribution of their statistics over bank images."""
    settings = line.settings.calibrate_explainer
    grid = CandidateGrid.of(
        explainer, settings.targets, settings.statistics, settings.smoothing, settings.top_shares
    )
    fitted, _ = _bank_parts(line)
    batches = ((explainer.without(own), images) for own, images in _bank_batches(line, fitted))
    return grid, fit_normal_statistics(grid, batches)


def _bank_parts(line: Line) -> tuple[Places, Places]:
    """Bank images that the statistics are fitted on, and others that show how normal images deviate."""
    images, most = len(line.bank_rows()), line.settings.calibrate_explainer.max_normals
    fitted = _spread(images, min(most, -(-images // 2) if learns(line) else images))
    rest = np.setdiff1d(np.arange(images), fitted)
    return fitted, rest[_spread(len(rest), min(2 * most, len(rest)))]


def _bank_batches(line: Line, places: Places) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of bank images, each with their numbers in the bank."""
    start = 0
    for batch in image_tensors(line, line.images(line.bank_rows().iloc[places])):
        yield places[start : start + len(batch)].tolist(), batch
        start += len(batch)


def _spread(length: int, count: int) -> Places:
    """``count`` of ``length`` positions, evenly spread: file names often follow the calendar."""
    return np.asarray(np.arange(count) * length // max(count, 1), np.int64)


def bank_deviations(
    line: Line, familiarity: FamiliarityModel, explainer: Explainer, grid: CandidateGrid, fits: Fits
) -> BankDeviations:
    """Of bank images that the statistics were not fitted on, as if the bank did not hold them."""
    _, rest = _bank_parts(line)
    novelty, residuals = [], []
    for own, images in _bank_batches(line, rest):
        scores, features = candidate_scores(explainer.without(own), grid, fits, images)
        novelty.append(scores)
        residuals.append(_memory(familiarity, explainer, images, features, np.array(own, np.int32))[1])
    return BankDeviations(np.concatenate(novelty), np.concatenate(residuals))


def _memory(
    familiarity: FamiliarityModel,
    explainer: Explainer,
    images: Tensor,
    features: dict[str, Tensor],
    own: NDArray[np.int32] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Familiarity (N,) of one batch and memory residuals (N, R); ``features`` as the explainer saw them."""
    with torch.inference_mode():
        if explainer.backbone is not familiarity.backbone:
            features = familiarity.backbone(images)
        found = familiarity.score(features, own)
        return found.scores.double().numpy(), familiarity.residuals(images, features, found).numpy()


def image_tensors(line: Line, images: Iterator[Any]) -> Iterator[Tensor]:
    """Batches (N, 3, S, S) of decoded images."""
    size = line.settings.backbone.image_size
    for group in batches(images, images_at_once(size)):
        yield to_batch(group, size)


def score_candidates(
    line: Line, familiarity: FamiliarityModel, explainer: Explainer, grid: CandidateGrid, fits: Fits
) -> Scored:
    """Raw scores of every calibration and tuning image, by familiarity and by every candidate."""
    rows, images = _tuning_images(line)
    return score_images(rows, image_tensors(line, images), familiarity, explainer, grid, fits)


def score_images(
    rows: pd.DataFrame,
    batches: Iterator[Tensor],
    familiarity: FamiliarityModel,
    explainer: Explainer,
    grid: CandidateGrid,
    fits: Fits,
) -> Scored:
    """Raw scores of the images of ``rows``, which come in ``batches`` (N, 3, S, S)."""
    known, unknown, residuals = [], [], []
    for batch in batches:
        novelty, features = candidate_scores(explainer, grid, fits, batch)
        scores, left = _memory(familiarity, explainer, batch, features)
        known.append(scores)
        unknown.append(novelty)
        residuals.append(left)
    candidates = [candidate for target in grid.targets for candidate in grid.candidates(target)]
    return Scored(rows, candidates, np.concatenate(known), np.concatenate(unknown), np.concatenate(residuals))


def _tuning_images(line: Line) -> tuple[pd.DataFrame, Iterator[Any]]:
    """Calibration and tuning images; without a labelled defect, synthetic ones stand in.

    Raises:
        CalibrationError: no calibration normal.
    """
    columns = ["path", "sha256", "split", "label", "defect_type"]
    rows = line.rows("calibration", "tuning")[columns]
    normals = rows[rows["label"] == 0].reset_index(drop=True)
    if not (rows["split"] == "calibration").any():
        raise CalibrationError(
            f"{line.name}: no calibration normal (nearly equal pictures stay on one side); add normal images"
        )
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
        "normal.familiarity": torch.cat([each.familiarity.distances for each in raw]).contiguous(),
        "normal.novelty": torch.cat([each.novelty_maps for each in raw]).contiguous(),
    }


def _masked_maps(familiarity: FamiliarityModel, masked: MaskedImages, novelty: Tensor) -> dict[str, Tensor]:
    """Raw maps of masked anomalies of the tuning split, and their masks."""
    with torch.inference_mode():
        distances = [
            familiarity.score(familiarity.backbone(images)).distances
            for images in torch.split(masked.images, images_at_once(masked.images.shape[-1]))
        ]
    return {
        "masked.familiarity": torch.cat(distances).clone(),
        "masked.novelty": novelty.contiguous(),
        "masked.truth": masked.masks.to(torch.uint8),
    }


def _report(
    line: Line,
    novelty: NoveltyModel,
    options: list[Option],
    table: list[dict[str, object]],
    scores: pd.DataFrame,
) -> dict[str, Any]:
    anomalies, explainer, evidence = scores[scores["label"] == 1], novelty.explainer, novelty.evidence
    weights = [round(weight, 6) for weight in evidence.weight.tolist()] if evidence else [1.0]
    return {
        "line": line.name,
        "method": explainer.method,
        "explained": explainer.backbone.architecture,
        "exact": explainer.exact,
        "shown": asdict(novelty.shown),
        "judged": [asdict(candidate) for candidate in novelty.judged],
        "weights": weights[: len(novelty.judged)],
        "residuals": novelty.residuals,
        "residual_weights": weights[len(novelty.judged) :],
        "options": [{"option": option.name, **_rounded(option.figures)} for option in options],
        "tuned_on": {
            "split": "synthetic" if (anomalies["split"] == "synthetic").any() else "tuning",
            "normals": int((scores["label"] == 0).sum()),
            "anomalies": len(anomalies),
        },
        "candidates": [_rounded(row) for row in table],
    }


def _rounded(row: Mapping[str, object]) -> dict[str, object]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    main(run, STAGE)
