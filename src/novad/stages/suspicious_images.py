"""Which images of a bank look like defects to the others, told so that a person can look at them."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from novad.evaluation.contact_sheet import Tile, contact_sheet
from novad.stages.line import Line
from novad.stages.runner import write_json
from novad.vision.suspicion import GuardedBank

__all__ = ["write_suspicious"]

SHOWN = 24
TOLD = 3


def write_suspicious(line: Line, rows: pd.DataFrame, guarded: GuardedBank, folder: Path) -> None:
    """Write ``suspicious.json`` and the contact sheet ``suspicious.png``, the most suspicious image first.

    Args:
        line: whose bank it is.
        rows: manifest rows of the images that were ranked, in their order.
        guarded: the bank with its ranking.
        folder: of the stage's output.
    """
    ranking = _ranking(rows, guarded)
    told = ranking[: max(SHOWN, len(guarded.excluded))]
    write_json(
        folder / "suspicious.json",
        {
            "line": line.name,
            "ranked": len(rows),
            "excluded": len(guarded.excluded),
            "exclude_suspicious": line.settings.memory_bank.exclude_suspicious,
            "grid": list(guarded.suspicions.shape),
            "images": told,
        },
    )
    shown = told[:SHOWN]
    images = line.images(pd.DataFrame(shown))
    tiles = [_tile(each, image, guarded.suspicions.shape) for each, image in zip(shown, images, strict=True)]
    contact_sheet(tiles).save(folder / "suspicious.png", optimize=True)
    _tell(line.name, ranking)


def _ranking(rows: pd.DataFrame, guarded: GuardedBank) -> list[dict[str, Any]]:
    found, paths = guarded.suspicions, rows["path"].tolist()
    return [
        {
            "path": paths[at],
            "sha256": rows["sha256"].iloc[at],
            "suspicion": round(float(found.distances[at]), 6),
            "robust_z": round(float(found.scores[at]), 4),
            "place": found.places[at].tolist(),
            "nearest": paths[found.nearest[at]],
            "excluded": bool(at in guarded.excluded),
        }
        for at in found.ranking().tolist()
    ]


def _tile(told: dict[str, Any], image: Any, shape: tuple[int, int]) -> Tile:
    """The image with a frame of three patches a side around its least familiar one."""
    (row, column), (height, width) = told["place"], shape
    box = (
        max(column - 1, 0) / width,
        max(row - 1, 0) / height,
        min(column + 2, width) / width,
        min(row + 2, height) / height,
    )
    verdict = f"z {told['robust_z']:.1f}" + (", left out" if told["excluded"] else "")
    return Tile.of(image, (told["path"], verdict), box)


def _tell(name: str, ranking: list[dict[str, Any]]) -> None:
    most = ", ".join(f"{each['path']} (z {each['robust_z']:.1f})" for each in ranking[:TOLD])
    print(f"memory bank of {name}: most unlike the others: {most}; look at suspicious.png", file=sys.stderr)
    if left_out := [each["path"] for each in ranking if each["excluded"]]:
        print(
            f"memory bank of {name}: {len(left_out)} images left out by exclude_suspicious: "
            f"{', '.join(left_out)}",
            file=sys.stderr,
        )
