"""Stage tune_fusion: score scales, the weight of novelty, and the thresholds of the decision."""

import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from novad.config import Workspace, line_settings
from novad.config.settings import TuneFusionSettings
from novad.errors import CalibrationError
from novad.evaluation.rates import surplus_p_value
from novad.stages.choosing import choose_weight, chosen_by
from novad.stages.map_weight import map_weight
from novad.stages.runner import main, stage_output, write_json
from novad.vision.calibration import coarse_promise, conformal_threshold, fit_normal_scale, promised_alpha
from novad.vision.fusion import Floats, hybrid_scores
from novad.vision.maps import MapScale, fit_map_scale, fuse_maps

__all__ = ["broken_promise", "run"]

STAGE = "tune_fusion"
# Chance that good parts of the tuning split fail so often by accident, from which on it is told.
UNLIKELY = 0.01


def run(workspace: Workspace, name: str) -> None:
    """Tune the fusion of one line on its tuning split, its thresholds on calibration normals."""
    settings = line_settings(workspace.params, name).tune_fusion
    before = workspace.artifacts(name, "calibrate_explainer")
    scores = pd.read_parquet(before / "scores.parquet")
    kept = load_file(before / "maps.safetensors")
    maps = {kind: kept[f"normal.{kind}"] for kind in ("familiarity", "novelty")}
    calibration = scores[scores["split"] == "calibration"]
    if calibration.empty:
        raise CalibrationError(f"{name}: no calibration normal; add normal images")
    scales = {kind: fit_normal_scale(calibration[kind].to_numpy()) for kind in ("familiarity", "novelty")}
    calibrated = {kind: scale(scores[kind].to_numpy()) for kind, scale in scales.items()}
    choice = choose_weight(scores, calibrated["familiarity"], calibrated["novelty"], settings)
    hybrid = hybrid_scores(calibrated["familiarity"], calibrated["novelty"], choice.weight)
    normal = (scores["split"] == "calibration").to_numpy()
    map_scales = {kind: fit_map_scale(each) for kind, each in maps.items()}
    shown = _map_weight(kept, map_scales, choice.weight)
    thresholds = _thresholds(
        {**calibrated, "hybrid": hybrid}, normal, settings, _map_peaks(maps, map_scales, shown)
    )
    check = _check(hybrid[((scores["split"] == "tuning") & (scores["label"] == 0)).to_numpy()], thresholds)
    coarse = coarse_promise(thresholds["calibration_normals"], settings.alpha)
    for warning in filter(None, (coarse, broken_promise(check))):
        print(f"thresholds of {name}: {warning}", file=sys.stderr)
    with stage_output(workspace, name, STAGE) as folder:
        write_json(
            folder / "fusion.json",
            {
                "line": name,
                "weight": choice.weight,
                "map_weight": shown,
                "tuned_on": chosen_by(scores),
                "weights": choice.table,
                "scales": {
                    **{kind: asdict(scale) for kind, scale in scales.items()},
                    **{f"{kind}_map": asdict(scale) for kind, scale in map_scales.items()},
                },
                "thresholds": thresholds,
                "tuning_check": check,
                "normal_scores": np.sort(hybrid[normal]).tolist(),
            },
        )


def broken_promise(check: dict[str, Any]) -> str | None:
    """What good parts of the tuning split say against the threshold, in words; None where they bear it out.

    Args:
        check: ``tuning_check`` of ``fusion.json``.
    """
    if check["p_value"] >= UNLIKELY:
        return None
    return (
        f"{check['failed']} of {check['normals']} good parts of the tuning split fail, more than promised "
        f"(chance {check['p_value']:.1g}): they do not look as those that the line learned from do; add good "
        "parts of their kind to the training images"
    )


def _check(good: Floats, thresholds: dict[str, Any]) -> dict[str, Any]:
    """How many good parts that set no threshold exceed it, and the chance of that by accident."""
    failed = int((good > thresholds["fail"]).sum())
    chance = surplus_p_value(failed, len(good), thresholds["calibration_normals"], thresholds["alpha"])
    return {"normals": len(good), "failed": failed, "p_value": chance}


def _map_weight(kept: dict[str, Tensor], scales: dict[str, MapScale], weight: float) -> float:
    """Share of novelty in the hybrid map: the one that shows masked defects best, else the scores'."""
    if "masked.truth" not in kept:
        return weight
    calibrated = {kind: scale(kept[f"masked.{kind}"]) for kind, scale in scales.items()}
    return map_weight(calibrated["familiarity"], calibrated["novelty"], kept["masked.truth"].bool())


def _map_peaks(maps: dict[str, Tensor], scales: dict[str, MapScale], weight: float) -> dict[str, Floats]:
    """Highest value of each kind of map on every calibration normal."""
    calibrated = {kind: scales[kind](each) for kind, each in maps.items()}
    fused = fuse_maps(calibrated["familiarity"], calibrated["novelty"], weight)
    return {kind: torch.amax(each, dim=(1, 2)).double().numpy() for kind, each in fused.items()}


def _thresholds(
    calibrated: dict[str, Floats], normal: Any, settings: TuneFusionSettings, peaks: dict[str, Floats]
) -> dict[str, Any]:
    """Conformal thresholds of scores and maps; with few normals, at the rate that they can promise."""
    count = int(normal.sum())
    alpha = promised_alpha(count, settings.alpha)
    review = promised_alpha(count, settings.review_alpha)
    map_alpha = promised_alpha(len(peaks["hybrid"]), settings.alpha)
    hybrid = calibrated["hybrid"][normal]
    return {
        "method": "split conformal",
        "calibration_normals": count,
        "alpha": alpha,
        "review_alpha": review,
        "fail": conformal_threshold(hybrid, alpha),
        "review": conformal_threshold(hybrid, review),
        "scores": {kind: conformal_threshold(each[normal], alpha) for kind, each in calibrated.items()},
        "map": {kind: conformal_threshold(each, map_alpha) for kind, each in peaks.items()},
    }


if __name__ == "__main__":
    main(run, STAGE)
