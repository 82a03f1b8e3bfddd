"""Reading a registered version back, and checking that it is what was published."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.tracking.digests import combined, file_digest, metrics_digest
from novad.tracking.gates import Evidence
from novad.tracking.model import DETECTOR_FOLDER, detector_digest, model_digest
from novad.tracking.store import probe_artifacts, service_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["VERSIONS", "VersionFiles", "find_version", "read_evidence", "run_folder", "version_files"]

VERSIONS = range(1, 2**31)
"""Numbers of versions, as far as databases count."""

DIGEST_TAGS = (
    "novad.output_digest",
    "novad.detector_digest",
    "novad.model_digest",
    "novad.files_digest",
)


@dataclass(frozen=True)
class VersionFiles:
    """A version's model on this machine."""

    folder: Path
    detector: Path
    damaged: tuple[str, ...]
    """One sentence per digest that does not match; empty when the model is what was published."""


def find_version(client: "MlflowClient", line: str, version: int) -> "ModelVersion":
    """The registered version.

    Raises:
        ConfigError: there is none of that number.
        ServiceError: the registry cannot be read.
    """
    from mlflow.exceptions import MlflowException

    if version not in VERSIONS:
        raise ConfigError(f"{line}: version {version} is not registered")
    try:
        return client.get_model_version(line, str(version))
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise ServiceError(f"{line}: version {version} cannot be read: {error}") from error
        raise ConfigError(f"{line}: version {version} is not registered") from error


def version_files(workspace: Workspace, client: "MlflowClient", version: "ModelVersion") -> VersionFiles:
    """The model of a version, fetched if it is not on this machine, with its digests checked.

    Raises:
        ServiceError: its files are gone or cannot be fetched.
    """
    with service_errors(f"{version.name}: version {version.version} cannot be read"):
        uri = client.get_model_version_download_uri(version.name, version.version)
    cache = workspace.state / "models" / version.name / str(version.version)
    folder = _local(uri, cache)
    detector = folder / "artifacts" / DETECTOR_FOLDER
    damaged = []
    try:
        actual = detector_digest(detector)
    except IntegrityError as error:
        damaged.append(f"detector of version {version.version} is damaged: {error}")
    else:
        if version.tags.get("novad.detector_digest") != actual:
            damaged.append(f"detector of version {version.version} differs from tag novad.detector_digest")
    if version.tags.get("novad.model_digest") != model_digest(folder):
        damaged.append(f"model of version {version.version} differs from its tag novad.model_digest")
    return VersionFiles(folder, detector, tuple(damaged))


def run_folder(workspace: Workspace, client: "MlflowClient", run_id: str) -> Path:
    """Everything that a run keeps, fetched if it is not on this machine.

    Raises:
        ServiceError: the run or its files are gone, or cannot be fetched.
    """
    with service_errors(f"run {run_id}: cannot be read"):
        uri = client.get_run(run_id).info.artifact_uri
    return _local(uri, workspace.state / "runs" / run_id)


def read_evidence(workspace: Workspace, client: "MlflowClient", version: "ModelVersion") -> Evidence:
    """Figures and data report of a version's run, trusted only where their digests hold.

    Raises:
        ServiceError: files are gone or cannot be fetched.
    """
    root = run_folder(workspace, client, version.run_id or "")
    damaged = list(version_files(workspace, client, version).damaged)
    manifest = _json(root / "manifest.json")
    if combined({str(key): str(value) for key, value in manifest.items()}) != version.tags.get(
        "novad.output_digest"
    ):
        damaged.append(f"manifest.json of version {version.version} differs from its tag novad.output_digest")
        manifest = {}
    documents = {}
    for name in ("evaluate/metrics.json", "validate/report.json"):
        path = root / name
        try:
            actual = metrics_digest(path) if name.endswith("metrics.json") else file_digest(path)
        except (IntegrityError, OSError):
            actual = None
        if actual is None or manifest.get(name) != actual:
            damaged.append(f"{name} of version {version.version} differs from the published one")
        else:
            documents[name] = _json(path)
    return Evidence(
        metrics=documents.get("evaluate/metrics.json", {}),
        report=documents.get("validate/report.json", {}),
        damaged=tuple(damaged),
    )


def _local(uri: str, cache: Path) -> Path:
    """The folder behind an artifact address; a remote one is fetched once into ``cache``."""
    parts = urlsplit(uri)
    if parts.scheme in {"", "file"}:
        folder = Path(unquote(parts.path))
        if not folder.is_dir():
            raise ServiceError(f"{folder}: the artifacts of this version are gone")
        return folder
    if cache.is_dir():
        return cache
    probe_artifacts(uri)
    from mlflow.artifacts import download_artifacts

    cache.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache.parent) as fresh,
        service_errors("the artifacts of this version cannot be fetched"),
    ):
        fetched = Path(download_artifacts(artifact_uri=uri, dst_path=fresh))
        try:
            fetched.rename(cache)
        except OSError:
            # Another reader was faster: its copy is as good, and ours goes with its folder.
            if not cache.is_dir():
                raise
    return cache


def _json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
