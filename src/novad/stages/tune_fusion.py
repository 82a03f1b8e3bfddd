"""Stage tune_fusion: score scales, the weight of novelty, and the thresholds of the decision."""

import sys
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from novad.config import Workspace, line_settings
from novad.errors import CalibrationError
from novad.stages.choosing import choose_weight, chosen_by
from novad.stages.map_weight import map_weight
from novad.stages.runner import main, stage_output, write_json
from novad.stages.thresholds import GoodParts, conformal_thresholds, threshold_warnings
from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import Floats, hybrid_scores
from novad.vision.maps import MapScale, fit_map_scale, fuse_maps

__all__ = ["run"]

STAGE = "tune_fusion"


def run(workspace: Workspace, name: str) -> None:
    """Tune the fusion of one line on its tuning split, its thresholds on good parts."""
    settings = line_settings(workspace.params, name).tune_fusion
    before = workspace.artifacts(name, "calibrate_explainer")
    scores = pd.read_parquet(before / "scores.parquet")
    kept = load_file(before / "maps.safetensors")
    maps = _maps(kept, "normal")
    calibration = scores[scores["split"] == "calibration"]
    if calibration.empty:
        raise CalibrationError(f"{name}: no calibration normal; add normal images")
    scales = {kind: fit_normal_scale(calibration[kind].to_numpy()) for kind in ("familiarity", "novelty")}
    calibrated = {kind: scale(scores[kind].to_numpy()) for kind, scale in scales.items()}
    choice = choose_weight(scores, calibrated["familiarity"], calibrated["novelty"], settings)
    hybrid = hybrid_scores(calibrated["familiarity"], calibrated["novelty"], choice.weight)
    map_scales = {kind: fit_map_scale(each) for kind, each in maps.items()}
    shown = _map_weight(kept, map_scales, choice.weight)
    parts = GoodParts.of(scores, hybrid, settings.alpha)
    peaks = [_map_peaks(each, map_scales, shown) for each in (maps, _maps(kept, "tuning")) if each]
    thresholds = conformal_thresholds(parts, {**calibrated, "hybrid": hybrid}, peaks, settings)
    told = {"thresholds": thresholds, "tuning_check": parts.check()}
    for warning in threshold_warnings(told, settings.alpha):
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
                **told,
                "normal_scores": np.sort(hybrid[parts.setters]).tolist(),
            },
        )


def _map_weight(kept: dict[str, Tensor], scales: dict[str, MapScale], weight: float) -> float:
    """Share of novelty in the hybrid map: the one that shows masked defects best, else the scores'."""
    truth = kept.get("masked.truth")
    # Masks that cover no position of the map, or all, rank nothing.
    if truth is None or not truth.any() or truth.all():
        return weight
    calibrated = {kind: scale(kept[f"masked.{kind}"]) for kind, scale in scales.items()}
    return map_weight(calibrated["familiarity"], calibrated["novelty"], truth.bool())


def _maps(kept: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Maps (n, h, w) of both kinds; nothing where there are none of that name."""
    kinds = ("familiarity", "novelty")
    return {kind: kept[f"{name}.{kind}"] for kind in kinds if f"{name}.{kind}" in kept}


def _map_peaks(maps: dict[str, Tensor], scales: dict[str, MapScale], weight: float) -> dict[str, Floats]:
    """Highest value of each kind of map on every image."""
    calibrated = {kind: scales[kind](each) for kind, each in maps.items()}
    fused = fuse_maps(calibrated["familiarity"], calibrated["novelty"], weight)
    return {kind: torch.amax(each, dim=(1, 2)).double().numpy() for kind, each in fused.items()}


if __name__ == "__main__":
    main(run, STAGE)
