"""What set a champion's thresholds: the normals that its judgements of today are held against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking.digests import combined, file_digest
from novad.tracking.events import Event, champion_of, intact_events, reign, threshold_event
from novad.tracking.evidence import find_version, run_folder
from novad.tracking.store import open_client

__all__ = ["FIGURES", "Reference", "champion_reference", "read_reference"]

FIGURES = ("hybrid", "familiarity", "novelty", "brightness", "contrast", "sharpness")

_SCORES = "calibrate_explainer/scores.parquet"
_MANIFEST = "validate/manifest.parquet"
_FUSION = "tune_fusion/fusion.json"


@dataclass(frozen=True)
class Reference:
    """Normals that set a version's thresholds, and where it begins to refuse."""

    version: int
    review: float
    """A part whose hybrid score lies above it does not pass."""
    normals: Mapping[str, NDArray[np.float64]]
    """(m,) of each figure, over the good parts below that which set its thresholds."""
    own: frozenset[str]
    """Digests of the images of the line's own data."""


def champion_reference(workspace: Workspace, line: str, version: int | None = None) -> Reference:
    """The reference of a champion, with the threshold in force.

    Args:
        version: a former champion that still judges, by the threshold that it was left with; None for the
            present one.
    Raises:
        ConfigError: the line has no champion, or ``version`` never was it.
        IntegrityError: the event log, or a file of the version's run, was changed.
        ServiceError: the store cannot be reached, or the files of the run are gone.
    """
    chain = intact_events(workspace, line)
    if version is not None:
        chain = reign(chain, version)
    event = champion_of(chain)
    if event is None or event.version is None:
        never = "has no champion" if version is None else f"version {version} was never champion"
        raise ConfigError(f"{line} {never}; nothing judges its parts that could be monitored")
    client = open_client(workspace)
    run = find_version(client, line, event.version).run_id or ""
    folder = run_folder(workspace, client, run)
    _require_unchanged(folder, event)
    threshold = threshold_event(chain)
    return read_reference(folder, event.version, threshold.detail["review"] if threshold else None)


def read_reference(folder: Path, version: int, review: float | None = None) -> Reference:
    """The reference from the outputs of all stages in ``folder``.

    Args:
        review: threshold in force; None for the one that was tuned.
    """
    # Pandas and torch take seconds to import: only those pay who monitor.
    import pandas as pd

    from novad.vision.calibration import NormalScale
    from novad.vision.fusion import hybrid_scores

    fusion = json.loads((folder / _FUSION).read_bytes())
    scores = pd.read_parquet(folder / _SCORES)
    columns = ["path", "sha256", "brightness", "contrast", "sharpness"]
    manifest = pd.read_parquet(folder / _MANIFEST, columns=columns)
    # Versions of before name none: calibration normals alone set thresholds.
    setters = fusion["thresholds"].get("normals_of", ["calibration"])
    normals = scores[scores["split"].isin(setters) & (scores["label"] == 0)]
    normals = normals.drop(columns="sha256").merge(manifest, on="path")
    for kind in ("familiarity", "novelty"):
        normals[kind] = NormalScale(**fusion["scales"][kind])(normals[kind].to_numpy())
    normals["hybrid"] = hybrid_scores(
        normals["familiarity"].to_numpy(), normals["novelty"].to_numpy(), fusion["weight"]
    )
    limit = fusion["thresholds"]["review"] if review is None else review
    # The normal that is the threshold itself is left out: those below it, not with it, are a sample of what
    # passes.
    passing = normals[normals["hybrid"] < limit]
    return Reference(
        version=version,
        review=limit,
        normals={name: passing[name].to_numpy(np.float64) for name in FIGURES},
        own=frozenset(manifest["sha256"].dropna()),
    )


def _require_unchanged(folder: Path, event: Event) -> None:
    """Raises:
    IntegrityError: names the file that is not the one of the version that was made champion.
    """
    try:
        recorded = json.loads((folder / "manifest.json").read_bytes())
        intact = combined(recorded) == event.detail.get("novad.output_digest")
    except (OSError, ValueError, AttributeError, TypeError):
        recorded, intact = {}, False
    if not intact:
        raise IntegrityError(
            f"{folder / 'manifest.json'}: not the record of version {event.version} that was made champion"
        )
    for name in (_SCORES, _MANIFEST, _FUSION):
        path = folder / name
        if not path.is_file() or file_digest(path) != recorded.get(name):
            raise IntegrityError(f"{path}: not the file that version {event.version} was published with")
