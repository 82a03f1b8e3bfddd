"""Good parts of the tuning split bear the threshold out, or raise it and are told."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from novad.config import BackboneSettings, LineSettings, Workspace, add_line
from novad.config.settings import ExplainerSettings, TuneFusionSettings
from novad.stages import tune_fusion
from novad.stages.runner import read_json
from novad.stages.thresholds import UNLIKELY, GoodParts, conformal_thresholds, threshold_warnings
from novad.vision.fusion import Floats

LINE, CALIBRATION, TUNING, ANOMALIES = "plates", 39, 20, 10


def tuned(root: Path, shift: float) -> dict[str, Any]:
    """What ``fusion.json`` tells of tuning normals that score ``shift`` more than calibration normals."""
    (root / "params.yaml").write_text("lines: {}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    workspace, random = Workspace(root), np.random.default_rng(3)
    backbone = BackboneSettings(sha256="0" * 64)
    add_line(
        workspace.params,
        LINE,
        LineSettings(
            data="data", layout="mvtec", backbone=backbone, explainer=ExplainerSettings(backbone=backbone)
        ),
    )
    before = workspace.artifacts(LINE, "calibrate_explainer")
    before.mkdir(parents=True)
    counts = (CALIBRATION, TUNING, ANOMALIES)
    rows = pd.DataFrame(
        {
            "label": np.repeat([0, 0, 1], counts),
            "split": np.repeat(["calibration", "tuning", "tuning"], counts),
        }
    )
    moved = np.repeat([0, shift, 4], counts)
    for kind in ("familiarity", "novelty"):
        rows[kind] = random.normal(size=len(rows)) + moved
    rows.to_parquet(before / "scores.parquet", index=False)
    maps = torch.rand(CALIBRATION, 4, 4, generator=torch.Generator().manual_seed(0))
    save_file({"normal.familiarity": maps, "normal.novelty": maps.clone()}, before / "maps.safetensors")
    tune_fusion.run(workspace, LINE)
    told: dict[str, Any] = read_json(workspace.artifacts(LINE, "tune_fusion") / "fusion.json")
    return told


def test_parts_like_calibration_normals_bear_their_threshold_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tuned(tmp_path, -1.0)
    check, thresholds = told["tuning_check"], told["thresholds"]
    assert check["normals"] == TUNING
    assert check["p_value"] >= UNLIKELY
    assert threshold_warnings(told, 0.05) == []
    assert (thresholds["normals"], thresholds["normals_of"]) == (CALIBRATION, ["calibration"])
    assert len(told["normal_scores"]) == CALIBRATION
    assert "tuning split" not in capsys.readouterr().err


def test_parts_that_look_otherwise_raise_the_threshold_and_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tuned(tmp_path, 2.0)
    check, thresholds = told["tuning_check"], told["thresholds"]
    assert check["failed"] > TUNING // 2
    assert check["p_value"] < 1e-3
    assert (thresholds["normals"], thresholds["normals_of"]) == (
        CALIBRATION + TUNING, ["calibration", "tuning"]
    )  # fmt: skip
    good = np.array(told["normal_scores"])
    assert len(good) == CALIBRATION + TUNING
    assert (good > thresholds["fail"]).sum() == 0.05 * (len(good) + 1) - 1
    assert (good > thresholds["review"]).sum() == 0.1 * (len(good) + 1) - 1
    said = capsys.readouterr().err
    assert f"{check['failed']} of {TUNING} good parts of the tuning split exceed" in said
    assert said.startswith(f"thresholds of {LINE}: ")


def parts(calibration: Floats, tuning: Floats, alpha: float = 0.05) -> GoodParts:
    """Those of the two splits, and three anomalies that say nothing."""
    counts = (len(calibration), len(tuning), 3)
    rows = pd.DataFrame(
        {
            "label": np.repeat([0, 0, 1], counts),
            "split": np.repeat(["calibration", "tuning", "tuning"], counts),
        }
    )
    return GoodParts.of(rows, np.concatenate([calibration, tuning, [9.0, 99.0, 999.0]]), alpha)


def threshold(good: GoodParts, alpha: float = 0.05) -> float:
    peaks = [dict.fromkeys(("hybrid",), good.hybrid[which]) for which in (good.calibration, good.tuning)]
    settings = TuneFusionSettings(alpha=alpha, review_alpha=0.2)
    told = conformal_thresholds(good, {"hybrid": good.hybrid}, peaks, settings)
    assert told["fail"] == told["scores"]["hybrid"] == told["map"]["hybrid"]
    assert told["alpha"] == max(alpha, 1 / (told["normals"] + 1))
    return float(told["fail"])


scores = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=40)


@given(scores, scores | st.just([]), st.sampled_from([0.02, 0.05, 0.2]))
def test_the_threshold_is_the_higher_one_of_calibration_normals_and_of_all(
    calibration: list[float], tuning: list[float], alpha: float
) -> None:
    """By counting: the least score that a fresh one exceeds with probability alpha at most."""

    def asked(normals: list[float]) -> float:
        allowed = max(alpha, 1 / (len(normals) + 1)) * (len(normals) + 1) + 1e-9
        return min(each for each in normals if sum(other > each for other in normals) + 1 <= allowed)

    found = threshold(parts(np.array(calibration), np.array(tuning), alpha), alpha)
    assert found == max(asked(calibration), asked([*calibration, *tuning]))


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_what_is_promised_holds_for_parts_like_either_split(shift: float) -> None:
    random, calibrated, tuned_on = np.random.default_rng(1), 20, 15
    alarms = list[float]()
    for _ in range(600):
        found = threshold(parts(random.normal(size=calibrated), random.normal(size=tuned_on) + shift))
        alarms.append(float(np.mean(random.normal(size=300) + shift > found)))
    promised = 0.05 if shift == 0 else 0.05 * (calibrated + tuned_on + 1) / (tuned_on + 1)
    assert 0.3 * promised < np.mean(alarms) <= promised + 0.004


def test_where_more_normals_ask_for_no_less_they_promise_more() -> None:
    good = parts(np.array([1.0, 5.0]), np.array([2.0]))
    assert threshold(good) == 5.0
    assert int(good.setters.sum()) == 3
    assert int(parts(np.arange(40.0), np.zeros(20)).setters.sum()) == 40
