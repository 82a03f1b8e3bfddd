"""Heatmaps of test images are drawn whatever images and defect types are called."""

from pathlib import Path

import numpy as np
import pandas as pd

from novad.stages.heatmaps import HeatmapGallery
from novad.vision import Detection, NearestNormal, Thresholds


def test_no_name_of_an_image_or_defect_type_keeps_its_picture_from_being_drawn(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {
            "path": ["test/bad/001.png", f"test/good/{'x' * 241}.png", "test/good/07.png"],
            "sha256": [f"{at}" * 64 for at in range(3)],
            "defect_type": ["burnt/scorched", "good", "good"],
        }
    )
    image, heat = np.zeros((16, 24, 3), np.uint8), np.zeros((16, 24), np.float32)
    thresholds = Thresholds(fail=1.0, review=0.5, alpha=0.05, map={"hybrid": 1.0})
    nearest = NearestNormal("train/good/7.png", "cd" * 32, 1, 2, 0.25)
    detection = Detection(0.0, 0.0, 0.0, 1.0, "PASS", nearest, (16, 24), {"hybrid": heat})
    gallery = HeatmapGallery(tmp_path / "heatmaps", rows, thresholds, 3)
    for row in rows.itertuples():
        gallery.offer(row, image, {"hybrid": heat}, None, detection)
    assert sorted(path.name for path in (tmp_path / "heatmaps").iterdir()) == [
        "burnt_scorched-001-00000000.png",
        "good-07-22222222.png",
        f"good-{'x' * 95}-11111111.png",
    ]
