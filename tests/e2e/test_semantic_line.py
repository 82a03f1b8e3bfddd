"""A line whose anomalies are other kinds of things, trained by every stage in both semantic modes."""

import importlib
from pathlib import Path

import pytest
from benchmarks.semantic import digit_line, write_digits

from novad.config import Workspace, add_line
from novad.images import decode_image
from novad.stages.runner import read_json
from novad.vision import Detector

LINE = "digits"
SMALLER = {"targets": ("layer3",), "smoothing": (2.0,), "top_shares": (0.002,)}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", ["semantic_near", "semantic_far"])
def test_a_digit_is_told_from_the_others_by_the_image_as_a_whole(mode: str, tmp_path: Path) -> None:
    write_digits(tmp_path / "images", normal=0, train=40, test_good=24, per_class=4)
    workspace = Workspace(tmp_path)
    workspace.params.write_text("lines:\n")
    settings = digit_line(tmp_path / "images", mode)
    settings = settings.model_copy(
        update={"calibrate_explainer": settings.calibrate_explainer.model_copy(update=SMALLER)}
    )
    add_line(workspace.params, LINE, settings)
    for stage in ("validate", "memory_bank", "calibrate_explainer", "tune_fusion", "evaluate"):
        importlib.import_module(f"novad.stages.{stage}").run(workspace, LINE)
    figures = read_json(workspace.artifacts(LINE, "evaluate") / "metrics.json")["scores"]
    assert figures["familiarity"]["image_auroc"] > 0.9
    assert figures["hybrid"]["image_auroc"] > 0.9

    detector = Detector.load(workspace.artifacts(LINE, "evaluate") / "detector")
    assert not detector.familiarity.bank.origins[:, 1:].any(), "an image is one vector, not many patches"
    other = decode_image(tmp_path / "images/test/digit_7/000.png", 10**6)
    judged = next(detector.score([other]))
    assert judged.decision != "PASS"
    assert judged.hybrid_map.shape == other.shape[:2]
