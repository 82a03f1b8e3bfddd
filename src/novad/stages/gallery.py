"""The test images that tell most: those that are misjudged first, and the clear cases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from novad.evaluation.overlays import outlined, to_uint8
from novad.evaluation.pictures import heatmap, patch, small
from novad.stages.line import Line
from novad.stages.runner import write_json
from novad.vision import Detection, Detector

__all__ = ["telling_images", "write_gallery"]

_SIDE = 320
_QUALITY = 85


def telling_images(scores: pd.DataFrame, most: int) -> pd.DataFrame:
    """The lowest-scored defects, the highest-scored good parts, and the clearest defects, ``most`` of each.

    They do not depend on a threshold: at any, the defects that it misses are the lowest-scored ones, its
    false alarms the highest-scored good parts. The clear ones come from all defect types in turn.

    Args:
        scores: rows with ``sha256``, ``label``, ``defect_type`` and ``hybrid``.
    Returns:
        Rows of ``scores``, each once.
    """
    ordered = scores.sort_values(["hybrid", "sha256"])
    defects, goods = ordered[ordered["label"] == 1], ordered[ordered["label"] == 0]
    clear = defects[::-1]
    turn = clear.groupby("defect_type").cumcount()
    clear = clear.assign(turn=turn).sort_values(["turn", "defect_type"], kind="stable").drop(columns="turn")
    chosen = pd.concat([defects.head(most), goods[::-1].head(most), clear.head(most)])
    return chosen.drop_duplicates("sha256")


def write_gallery(line: Line, detector: Detector, scores: pd.DataFrame, folder: Path, most: int) -> None:
    """Draw ``telling_images``: image, hybrid map, least familiar patch and the normal patch nearest to it.

    Args:
        detector: judges the images again; keeping all maps until their ranks are known would cost memory.
        folder: created; gets the pictures and ``gallery.json``, which names them.
    """
    folder.mkdir()
    rows = line.rows("test").set_index("sha256", drop=False)
    rows = rows[~rows.index.duplicated()].loc[telling_images(scores, most)["sha256"]]
    told = []
    for (_, row), image in zip(rows.iterrows(), line.images(rows), strict=True):
        [detection] = detector.score([image])
        pictures = {}
        for name, picture in _pictures(line, detector, row, image, detection):
            pictures[name] = f"{row.sha256[:16]}-{name}.jpg"
            picture.save(folder / pictures[name], quality=_QUALITY, optimize=True)
        nearest = detection.nearest
        told.append(
            {
                "path": row.path,
                "sha256": row.sha256,
                "pictures": pictures,
                "nearest": {"path": nearest.image, "sha256": nearest.sha256, "distance": nearest.distance},
            }
        )
    write_json(folder / "gallery.json", {"images": told})


def _pictures(
    line: Line, detector: Detector, row: Any, image: Any, detection: Detection
) -> Iterator[tuple[str, Image.Image]]:
    nearest = detection.nearest
    [normal] = line.images(pd.DataFrame({"path": [nearest.image]}))
    yield "image", small(outlined(to_uint8(image), line.mask(row)), _SIDE)
    yield "map", heatmap(detector, "hybrid", image, detection, _SIDE)
    yield "patch", patch(image, nearest.grid, nearest.place)
    yield "normal", patch(normal, nearest.grid, (nearest.row, nearest.column))
