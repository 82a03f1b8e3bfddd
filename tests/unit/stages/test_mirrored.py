"""Evidence learns from tuning images in the mirror where mirrored normal images look normal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from novad.config import Workspace
from novad.stages import calibrate_explainer, memory_bank, validate
from novad.stages.calibrate_explainer import tuning_images
from novad.stages.deviations import FLIPS, Deviations
from novad.stages.line import Line
from novad.stages.options import Scored
from small_line import LINE, untrained_line


def _fitted(root: Path, marked: bool = False, **told: Any) -> Deviations:
    """Deviations of a line of textures; with a mark that every part has in one corner if ``marked``."""
    told = {"evidence_anomalies": 1, "targets": ("layer1",), "smoothing": (2.0,), **told}
    workspace = untrained_line(root, train=16, test_good=4, per_defect=3, calibrate_explainer=told)
    if marked:
        for path in (root / "data" / LINE).glob("t*/*/*.png"):
            pixels = np.array(Image.open(path).convert("RGB"))
            pixels[: len(pixels) // 3, : len(pixels) // 4] = (250, 30, 30)
            Image.fromarray(pixels).save(path)
    for stage in (validate, memory_bank):
        stage.run(workspace, LINE)
    return Deviations.fit(Line.open(workspace, LINE))


def _scored(deviations: Deviations) -> Scored:
    return deviations.score(*tuning_images(deviations.line))


def test_a_texture_is_mirrored_image_by_image(tmp_path: Path) -> None:
    deviations = _fitted(tmp_path)
    scored = deviations.with_mirrored(_scored(deviations))
    assert list(scored.mirrored) == deviations.flips() != []
    rows = scored.rows[~scored.calibration]
    for name, mirrored in scored.mirrored.items():
        axes = [axis - 2 for axis in FLIPS[name]]
        turned = (np.flip(image, axes).copy() for image in deviations.line.images(rows))
        expected = deviations.score(rows, turned)
        np.testing.assert_allclose(mirrored.novelty, expected.novelty, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(mirrored.residuals, expected.residuals, rtol=1e-4, atol=1e-3)
        assert not np.allclose(mirrored.residuals, scored.residuals[~scored.calibration], atol=0.1)


def test_parts_that_have_a_top_and_a_left_are_not_mirrored(tmp_path: Path) -> None:
    deviations = _fitted(tmp_path, marked=True)
    assert deviations.flips() == []
    assert deviations.with_mirrored(_scored(deviations)).mirrored == {}


def test_where_there_are_many_tuning_images_they_teach_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deviations = _fitted(tmp_path)
    images = len(deviations.line.rows("tuning"))
    for most in (images - 1, images):
        monkeypatch.setattr("novad.stages.deviations.MOST_MIRRORED", most)
        assert bool(deviations.flips()) == (most == images)


@pytest.mark.parametrize("mirrored", [True, False])
def test_the_settings_may_forbid_it_and_the_report_tells(tmp_path: Path, mirrored: bool) -> None:
    deviations = _fitted(tmp_path, mirrored=mirrored)
    calibrate_explainer.run(Workspace(tmp_path), LINE)
    report = deviations.line.output("calibrate_explainer", "candidates.json").read_text()
    assert bool(json.loads(report)["mirrored"]) == bool(deviations.flips()) == mirrored
