"""Five normal images train a line to its figures; the gate says which key lets them through."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from novad.config import Workspace
from novad.errors import CalibrationError, RefusedError
from novad.images import decode_image
from novad.stages import validate
from novad.stages.line import Line
from novad.vision import Detector
from small_line import LINE, STAGES, untrained_line

FIVE: dict[str, Any] = {"validate": {"min_normals": 5}}


def _keep(folder: Path) -> None:
    """A handful of defects of every kind, with masks."""


def _no_defect(folder: Path) -> None:
    for defect in (folder / "test").iterdir():
        if defect.name != "good":
            shutil.rmtree(defect)
    shutil.rmtree(folder / "ground_truth")


def _no_good_test_image(folder: Path) -> None:
    shutil.rmtree(folder / "test/good")


def _plain_folder(folder: Path) -> None:
    """The same images without a division of their own: every other image is decided by content."""
    (folder / "train/good").rename(folder / "normal")
    shutil.rmtree(folder / "test/good")
    (folder / "test").rename(folder / "anomalous")
    shutil.rmtree(folder / "ground_truth")
    shutil.rmtree(folder / "train")


def _trained(
    root: Path, change: Callable[[Path], None] = _keep, train: int = 5, **changed: Any
) -> dict[str, Any]:
    workspace = untrained_line(root, train=train, test_good=4, per_defect=2, **{**FIVE, **changed})
    change(root / "data" / LINE)
    for stage in STAGES:
        stage.run(workspace, LINE)
    metrics: dict[str, Any] = json.loads((workspace.artifacts(LINE, "evaluate") / "metrics.json").read_text())
    return metrics


def test_fewer_normals_than_asked_for_are_refused_with_the_key_to_lower(tmp_path: Path) -> None:
    workspace = untrained_line(tmp_path, train=5, test_good=2, per_defect=1, validate={})
    with pytest.raises(RefusedError, match="enough_normals"):
        validate.run(workspace, LINE)
    report = json.loads((workspace.state / "refused" / LINE / "report.json").read_text())
    (error,) = report["errors"]
    assert error["message"] == (
        "only 5 normal training images, min_normals is 20: add good parts, or lower validate.min_normals in "
        "params.yaml"
    )


def test_five_normals_and_a_handful_of_defects_train_to_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = _trained(tmp_path)
    assert (metrics["counts"]["train"], metrics["counts"]["calibration"]) == (3, 2)
    assert all(0 <= each["image_auroc"] <= 1 for each in metrics["scores"].values())
    assert metrics["threshold"]["alpha"] == pytest.approx(1 / 4)
    told = capsys.readouterr().err
    # Two for calibration, and one of the tuning split.
    assert "3 good parts set the threshold and promise at most 0.25 false alarms per good part" in told
    assert "19 would" in told
    scores = pd.read_parquet(Workspace(tmp_path).artifacts(LINE, "evaluate") / "scores.parquet")
    # One calibration score has no spread, and would put scores in the millions.
    assert scores["hybrid"].abs().max() < 1000
    detector = Detector.load(Workspace(tmp_path).artifacts(LINE, "evaluate") / "detector")
    part = next((tmp_path / "data" / LINE / "test/good").iterdir())
    assert next(detector.score([decode_image(part, 10**7)])).decision in {"PASS", "REVIEW", "FAIL"}


def test_images_too_small_for_synthetic_defects_are_named(tmp_path: Path) -> None:
    workspace = untrained_line(tmp_path, train=5, test_good=2, per_defect=1, **FIVE)
    folder = tmp_path / "data" / LINE
    _no_defect(folder)
    for path in folder.rglob("*.png"):
        Image.open(path).resize((40, 12)).save(path)
    for stage in STAGES[:2]:
        stage.run(workspace, LINE)
    told = rf"^{LINE}: test/good/\d+\.png: an image of \(12, 40\) pixels is too small"
    with pytest.raises(CalibrationError, match=told):
        STAGES[2].run(workspace, LINE)


def test_nearly_the_same_pictures_show_one_part(tmp_path: Path) -> None:
    workspace = untrained_line(tmp_path, train=5, test_good=4, per_defect=3, **FIVE)
    folder = tmp_path / "data" / LINE / "test/scratch"
    pixels = np.array(Image.open(folder / "000.png"))
    pixels[5, 5] ^= 1
    Image.fromarray(pixels).save(folder / "001.png")
    validate.run(workspace, LINE)
    rows = Line.open(workspace, LINE).rows("tuning", "test")
    named = dict(zip(rows["path"], Line.open(workspace, LINE).parts(rows), strict=True))
    assert named["test/scratch/000.png"] == named["test/scratch/001.png"]
    assert len(set(named.values())) == len(named) - 1
    assert set(named.values()) <= set(rows["sha256"])


def _dots(folder: Path) -> None:
    """Masks of a pixel, which cover no position of a map."""
    for path in (folder / "ground_truth").rglob("*.png"):
        mask = np.zeros_like(np.array(Image.open(path)))
        mask[len(mask) // 2, len(mask) // 2] = 255
        Image.fromarray(mask).save(path)


def test_masks_too_small_for_any_position_leave_the_map_the_weight_of_the_scores(tmp_path: Path) -> None:
    _trained(tmp_path, _dots, tune_fusion={"equal_weight_prior": 1e9})
    fusion = json.loads((tmp_path / "artifacts" / LINE / "tune_fusion/fusion.json").read_text())
    assert fusion["map_weight"] == fusion["weight"] > 0


@pytest.mark.parametrize("change", [_no_defect, _no_good_test_image])
def test_five_normals_train_where_the_test_folders_lack_a_kind(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    metrics = _trained(tmp_path, change)
    split = "synthetic" if change is _no_defect else "tuning"
    assert metrics["fusion"]["tuned_on"]["split"] == split
    assert metrics["fusion"]["tuned_on"]["anomalies"] > 0
    assert metrics["scores"]["hybrid"]["image_auroc"] is None
    assert np.isfinite(metrics["threshold"]["value"])


def test_five_normals_of_a_plain_folder_train(tmp_path: Path) -> None:
    metrics = _trained(tmp_path, _plain_folder, layout="folder", validate={"min_normals": 4})
    assert (metrics["counts"]["train"], metrics["counts"]["calibration"]) == (2, 2)
    assert metrics["counts"]["test_normal"] == 1
    assert metrics["scores"]["hybrid"]["image_auroc"] is not None


def _the_same_picture(folder: Path) -> None:
    first, *others = sorted((folder / "train/good").iterdir())
    for at, path in enumerate(others):
        pixels = np.array(Image.open(first))
        pixels[at, at] ^= 1
        Image.fromarray(pixels).save(path)


def test_five_times_nearly_the_same_picture_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=f"{LINE}: no calibration normal .nearly equal pictures"):
        _trained(tmp_path, _the_same_picture)


@pytest.mark.parametrize(("share", "left", "weighed"), [(0.0, 3, True), (0.4, 2, False)])
def test_many_anomalies_choose_beside_five_normals(
    share: float, left: int, weighed: bool, tmp_path: Path
) -> None:
    """Two bank images are needed for the statistics alone: evidence is learned from three on."""
    metrics = _trained(
        tmp_path,
        memory_bank={"min_vectors": 50, "layer_anomalies": 3, "exclude_suspicious": share},
        calibrate_explainer={"evidence_anomalies": 3},
    )
    artifacts = tmp_path / "artifacts" / LINE
    assert json.loads((artifacts / "memory_bank/bank.json").read_text())["layer_choice"]
    options = json.loads((artifacts / "calibrate_explainer/candidates.json").read_text())["options"]
    assert any(each["option"].startswith("evidence") for each in options) == weighed
    assert metrics["counts"]["train"] == left
    assert metrics["scores"]["hybrid"]["image_auroc"] is not None
