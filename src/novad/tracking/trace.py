"""Lineage on one question: from a decision to everything behind it, from an image to all that it touched."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.tracking.acceptances import Acceptance, acceptances
from novad.tracking.decisions import LoggedDecision, decisions_on, find_decision
from novad.tracking.digests import combined, file_digest
from novad.tracking.events import champion_of, events, reign
from novad.tracking.evidence import find_version, run_folder
from novad.tracking.publications import Publication, publications
from novad.tracking.publish import FILES_RECORD
from novad.tracking.published import PublishedRun
from novad.tracking.store import open_client
from novad.tracking.verdicts import OperatorVerdict, verdicts_on, verdicts_on_image

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["Approval", "ImageTrace", "ImageUse", "ModelOrigin", "PredictionTrace", "model_origin", "trace"]

_PREDICTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MANIFEST = "validate/manifest.parquet"
_FUSION = "tune_fusion/fusion.json"
_LINEAGE = "lineage.json"


@dataclass(frozen=True)
class Approval:
    """The event that had last made a version champion when it judged."""

    approver: str
    reason: str
    kind: str
    at: str
    sequence: int
    until: str | None
    """When another version had become champion, if so: a service follows once that is loaded, and anybody may
    ask for a version by number. UTC, ISO 8601."""


@dataclass(frozen=True)
class ModelOrigin:
    """What a version was made from."""

    line: str
    version: int
    run_id: str
    output_digest: str
    detector_digest: str
    model_digest: str
    git_commit: str
    git_dirty: str
    dataset_sha256: str
    """Of the manifest, which names every image by its own digest."""
    images: Mapping[str, int]
    """Number of images by split."""
    thresholds: Mapping[str, float]
    """The version's own: ``fail`` and ``review`` in units of the hybrid score, and the promised ``alpha``."""
    requirements_lock: str
    """Sha256 of the lock file; `none` where there was no such file."""
    dvc: Mapping[str, Any]
    """Per stage, what it read and wrote, by DVC's digests; empty where DVC did not run it."""


@dataclass(frozen=True)
class PredictionTrace:
    """Everything behind one decision."""

    prediction: LoggedDecision
    model: ModelOrigin
    approval: Approval | None
    """None when the version had never been champion: a challenger, or asked for by number."""
    verdicts: tuple[OperatorVerdict, ...] = ()
    """What people said about it, oldest first; the last one counts."""


@dataclass(frozen=True)
class ImageUse:
    """A registered version that knew an image in training."""

    line: str
    version: int
    path: str
    split: str


@dataclass(frozen=True)
class ImageTrace:
    """Everything that an image touched."""

    sha256: str
    decisions: tuple[LoggedDecision, ...]
    versions: tuple[ImageUse, ...]
    verdicts: tuple[OperatorVerdict, ...] = ()
    """What people said about it, oldest first."""
    acceptances: tuple[Acceptance, ...] = ()
    """By which events it joined a line's data."""


def trace(workspace: Workspace, what: str) -> PredictionTrace | ImageTrace:
    """Follow an image (by its file or its sha256) or a prediction (by its id) through all records.

    Raises:
        ConfigError: no such file, or nothing is known about it.
        IntegrityError: a record on the way is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    if os.path.isfile(what):  # noqa: PTH113 - any text may be asked about, one too long for a path too
        return _trace_image(workspace, file_digest(Path(what)), what)
    if _SHA256.fullmatch(what.lower()):
        return _trace_image(workspace, what.lower(), what)
    if _PREDICTION_ID.fullmatch(what.lower()):
        return _trace_prediction(workspace, what.lower())
    raise ConfigError(f"{what}: neither an image file, nor a sha256 of 64 hex digits, nor a prediction id")


def _trace_prediction(workspace: Workspace, prediction_id: str) -> PredictionTrace:
    decision = find_decision(workspace, prediction_id)
    if decision is None:
        raise ConfigError(f"{prediction_id}: no such prediction in the decision log")
    origin = model_origin(workspace, decision.line, decision.version)
    if origin.detector_digest != decision.detector_digest:
        raise IntegrityError(
            f"{prediction_id}: judged by detector {decision.detector_digest}, but {decision.line} version "
            f"{decision.version} is registered with {origin.detector_digest}"
        )
    verdicts = verdicts_on(workspace, [prediction_id]).get(prediction_id, [])
    return PredictionTrace(decision, origin, _approval(workspace, decision), tuple(verdicts))


def _trace_image(workspace: Workspace, sha256: str, name: str) -> ImageTrace:
    decisions = tuple(decisions_on(workspace, sha256))
    versions = tuple(
        use for publication in publications(workspace) for use in _uses(workspace, publication, sha256)
    )
    if not decisions and not versions:
        raise ConfigError(f"{name}: no decision was logged on this image, and no registered version used it")
    verdicts = tuple(verdicts_on_image(workspace, sha256))
    accepted = tuple(each for each in acceptances(workspace) if each.sha256 == sha256)
    return ImageTrace(sha256, decisions, versions, verdicts, accepted)


def model_origin(workspace: Workspace, line: str, number: int) -> ModelOrigin:
    """What a registered version was made from.

    Raises:
        ConfigError: no such version.
        IntegrityError: its record is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    client = open_client(workspace)
    version = find_version(client, line, number)
    run_id = version.run_id or ""
    published = str(version.tags.get("novad.output_digest"))
    folder, manifest = _published_files(workspace, client, run_id, published)
    lineage = _lineage(folder, run_id, str(version.tags.get("novad.files_digest")))
    run = PublishedRun(workspace, line, number, folder, manifest)
    thresholds = json.loads(run.read(_FUSION))["thresholds"]
    return ModelOrigin(
        line=line,
        version=number,
        run_id=run_id,
        output_digest=published,
        detector_digest=str(version.tags.get("novad.detector_digest")),
        model_digest=str(version.tags.get("novad.model_digest")),
        git_commit=lineage["tags"]["novad.git_commit"],
        git_dirty=lineage["tags"]["novad.git_dirty"],
        dataset_sha256=manifest[_MANIFEST],
        images=dict(Counter(run.table(_MANIFEST, ["split"])["split"].to_pylist())),
        thresholds={name: thresholds[name] for name in ("fail", "review", "alpha")},
        requirements_lock=lineage["tags"]["novad.requirements_lock"],
        dvc=lineage["stages"],
    )


def _lineage(folder: Path, run_id: str, files_digest: str) -> Any:
    """The run's ``lineage.json``, once it was found to be as published."""
    try:
        record: dict[str, str] = json.loads((folder / FILES_RECORD).read_bytes())
        recorded = record[f"run/{_LINEAGE}"]
        if combined(record) == files_digest and file_digest(folder / _LINEAGE) == recorded:
            return json.loads((folder / _LINEAGE).read_bytes())
    except OSError as error:
        raise ServiceError(f"run {run_id}: its lineage cannot be read: {error}") from error
    except (ValueError, KeyError):
        pass
    raise IntegrityError(f"run {run_id}: {_LINEAGE} is not the one that was published")


def _approval(workspace: Workspace, decision: LoggedDecision) -> Approval | None:
    """By whose word the version judged, also when another one had become champion a moment ago."""
    before = [each for each in events(workspace, decision.line) if each.at <= decision.at]
    served = reign(before, decision.version)
    event = champion_of(served)
    if event is None or decision.shadow:
        return None
    until = before[len(served)].at if len(served) < len(before) else None
    return Approval(event.actor, event.reason, event.kind, event.at, event.sequence, until)


def _uses(workspace: Workspace, publication: Publication, sha256: str) -> list[ImageUse]:
    import pyarrow.parquet as pq

    client = open_client(workspace)
    folder, _ = _published_files(workspace, client, publication.run_id, publication.output_digest)
    table = pq.read_table(folder / _MANIFEST, columns=["path", "split"], filters=[("sha256", "=", sha256)])
    return [
        ImageUse(publication.line, publication.version, row["path"], row["split"])
        for row in table.to_pylist()
    ]


def _published_files(
    workspace: Workspace, client: "MlflowClient", run_id: str, output_digest: str
) -> tuple[Path, dict[str, str]]:
    """A run's folder and its digests by file, once those of the dataset were found to be as published."""
    folder = run_folder(workspace, client, run_id)
    try:
        manifest: dict[str, str] = json.loads((folder / "manifest.json").read_bytes())
        intact = (
            combined(manifest) == output_digest and file_digest(folder / _MANIFEST) == manifest[_MANIFEST]
        )
    except OSError as error:
        raise ServiceError(f"run {run_id}: its record of images cannot be read: {error}") from error
    except (ValueError, KeyError):
        intact = False
    if not intact:
        raise IntegrityError(f"run {run_id}: its record of images is not the one that was published")
    return folder, manifest
