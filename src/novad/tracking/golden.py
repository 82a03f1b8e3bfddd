"""Golden images: test images of a registered version, with the scores that its evaluation recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from novad.config import Workspace, line_settings
from novad.evaluation.parity import KINDS
from novad.images.decode import read_known
from novad.tracking.published import PublishedRun

__all__ = ["GoldenImage", "golden_images"]

_SCORES = "evaluate/scores.parquet"


@dataclass(frozen=True)
class GoldenImage:
    """A test image that is still the one that was scored."""

    path: str
    """In the line's data."""
    file: Path
    scores: dict[str, float]
    """Familiarity, novelty and hybrid, as the evaluation recorded them."""


def golden_images(workspace: Workspace, line: str, version: int, wanted: int) -> list[GoldenImage]:
    """At most ``wanted`` test images that are still the same, evenly over the order of their hybrid scores.

    Raises:
        ConfigError: wrong settings, or no such version.
        IntegrityError: the recorded scores are not the published ones.
        ServiceError: the store cannot be reached, or the version's files are gone.
    """
    data = workspace.path(line_settings(workspace.params, line).data)
    columns = ["path", "sha256", *KINDS]
    rows = PublishedRun.open(workspace, line, version).table(_SCORES, columns).to_pylist()
    ranked = sorted(rows, key=lambda row: (row["hybrid"], row["path"]))
    intact = (at for at in _evenly_first(len(ranked), wanted) if _is_intact(data, ranked[at]))
    return [
        GoldenImage(row["path"], data / row["path"], {kind: row[kind] for kind in KINDS})
        for row in (ranked[at] for at in sorted(islice(intact, wanted)))
    ]


def _evenly_first(rows: int, wanted: int) -> Iterator[int]:
    """Places at even distances, then those that may stand in for them: no file is read that is not needed."""
    count = min(wanted, rows)
    places = [round(at * (rows - 1) / max(1, count - 1)) for at in range(count)]
    yield from places
    yield from (at for at in range(rows) if at not in places)


def _is_intact(data: Path, row: dict[str, Any]) -> bool:
    return read_known(data / row["path"], str(row["sha256"])) is not None
