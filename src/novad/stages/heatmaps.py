"""Heatmaps of a fixed choice of test images, as pictures on the detector's fixed scale."""

from pathlib import Path
from typing import Any

import pandas as pd

from novad.evaluation.overlays import panel, picture_name
from novad.vision import Detection, Thresholds

__all__ = ["HeatmapGallery"]


class HeatmapGallery:
    """Draws as many test images as asked, spread evenly over the defect types and the normals.

    Args:
        folder: where the pictures go; created.
        rows: the test split; which images are drawn depends on it alone, not on their scores.
        thresholds: of the maps.
        most: number of pictures.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame, thresholds: Thresholds, most: int) -> None:
        self.folder, self.thresholds = folder, thresholds
        folder.mkdir()
        ordered = rows.sort_values("sha256")
        turn = ordered.groupby("defect_type").cumcount()
        self._wanted = set(ordered.assign(turn=turn).sort_values(["turn", "defect_type"])["path"].head(most))

    def offer(self, row: Any, image: Any, maps: dict[str, Any], mask: Any, detection: Detection) -> None:
        """Draw the image if it is one of the chosen."""
        if row.path not in self._wanted:
            return
        caption = (
            f"{row.path}: {detection.decision}, hybrid {detection.hybrid:.2f} "
            f"(familiarity {detection.familiarity:.2f}, novelty {detection.novelty:.2f}), "
            f"p {detection.p_value:.3f}"
        )
        picture = panel(image, maps, self.thresholds.map, mask, caption, detection.decision == "PASS")
        picture.save(self.folder / picture_name(f"{row.defect_type}-{Path(row.path).stem}", row.sha256))
