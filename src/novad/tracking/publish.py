"""Publishing a trained line: its evidence as an MLflow run, its detector as a registered version, once."""

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novad.config import LineSettings, Workspace, line_settings
from novad.tracking.digests import STAGES, combined, file_digest, folder_files, output_manifest, read_metrics
from novad.tracking.evidence import DIGEST_TAGS
from novad.tracking.lineage import Lineage, Stages, dvc_digests, lineage_tags
from novad.tracking.model import DETECTOR_FOLDER, detector_digest, kept_files, model_digest, save_model
from novad.tracking.publications import publications, published_version, record_publication
from novad.tracking.published import PublishedRun
from novad.tracking.store import locate, open_client, probe_artifacts, service_errors, storage_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["FILES_RECORD", "REPORT", "Published", "close_stale_runs", "publish"]

FILES_RECORD = "files.json"
REPORT = "report.html"

_MODEL_NAME = "detector"
# Files on their way to MLflow, beside the outputs that they are copied from.
_GATHERED = ".publish-"
_METRIC_NAME = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Published:
    """Where a result is registered."""

    line: str
    run_id: str
    version: int
    output_digest: str
    created: bool
    """False when the same result was registered before and nothing was written."""


def publish(
    workspace: Workspace,
    line: str,
    flow_run_id: str | None = None,
    reason: str = "by hand",
    page: Callable[[PublishedRun], str] | None = None,
    recorded: Callable[[Workspace, str], Stages] = dvc_digests,
) -> Published:
    """Register what ``artifacts/LINE`` holds, or find it registered; the caller holds the line's lock.

    The order makes a kill harmless: the run becomes FINISHED only when all its evidence and the model are
    logged, only a FINISHED run is registered, and the note that it is published comes last. Whatever was
    left unfinished is closed, or completed, by the next call.

    Args:
        flow_run_id: the Prefect flow run that asks for it.
        reason: why the line was trained.
        page: tells people about a run before it is logged; the run keeps what it returns as `report.html`.
        recorded: reads what DVC recorded of the line; by default while others may be writing it.
    Raises:
        ConfigError: the line is unknown or not trained.
        IntegrityError: an output is damaged.
        ServiceError: MLflow cannot be reached, or failed.
    """
    manifest = output_manifest(workspace, line)
    digest = combined(manifest)
    for left_over in _folder(workspace, line).glob(f"{_GATHERED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    known = published_version(workspace, line, digest)
    if known is not None:
        run_id = _publication_run(workspace, line, digest)
        return Published(line, run_id, known, digest, created=False)
    settings = line_settings(workspace.params, line)
    client = open_client(workspace)
    with service_errors(f"{line}: MLflow could not record the result at {locate(workspace).uri}"):
        experiment = _experiment(client, workspace, line)
        _close_runs(client, experiment)
        run = _finished_run(client, experiment, digest)
        if run is None:
            stages = recorded(workspace, line)
            tags = lineage_tags(workspace, stages, flow_run_id) | {"novad.reason": reason}
            lineage = Lineage(tags, stages)
            run = _log_run(client, workspace, line, settings, experiment, manifest, lineage, page)
        found = _registered(client, line, run.info.run_id)
        version = found or _register(client, line, run)
        client.set_registered_model_alias(line, "challenger", str(version.version))
        record_publication(workspace, line, digest, int(version.version), run.info.run_id)
    return Published(line, run.info.run_id, int(version.version), digest, created=found is None)


def close_stale_runs(workspace: Workspace, line: str) -> list[str]:
    """Mark runs of ``line`` that claim to run as KILLED; the caller holds the line's lock, so none does.

    Returns:
        Ids of the runs that were closed.
    Raises:
        ServiceError: MLflow cannot be reached.
    """
    store = locate(workspace)
    if not store.served and store.sqlite_file is not None and not store.sqlite_file.is_file():
        return []
    client = open_client(workspace)
    with service_errors(f"{line}: runs that a kill left open cannot be closed"):
        found = client.get_experiment_by_name(line)
        return _close_runs(client, found.experiment_id) if found is not None else []


def _folder(workspace: Workspace, line: str) -> Path:
    """Where all outputs of a line lie."""
    return workspace.artifacts(line, STAGES[0]).parent


def _publication_run(workspace: Workspace, line: str, digest: str) -> str:
    return next(found.run_id for found in publications(workspace, line) if found.output_digest == digest)


def _experiment(client: "MlflowClient", workspace: Workspace, line: str) -> str:
    """Id of the experiment that is named like the line, made at the first publication."""
    found = client.get_experiment_by_name(line)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    root = locate(workspace).artifact_root
    location = f"{root.rstrip('/')}/{line}" if root is not None else None
    return client.create_experiment(line, artifact_location=location)


def _close_runs(client: "MlflowClient", experiment: str) -> list[str]:
    closed = []
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
        for model in client.search_logged_models([experiment], f"source_run_id = '{run.info.run_id}'"):
            if str(model.status) != "READY":
                client.finalize_logged_model(model.model_id, "FAILED")
        closed.append(run.info.run_id)
    return closed


def _finished_run(client: "MlflowClient", experiment: str, digest: str) -> "Run | None":
    query = f"attributes.status = 'FINISHED' and tags.`novad.output_digest` = '{digest}'"
    found = client.search_runs([experiment], query, max_results=1)
    return found[0] if found else None


def _log_run(
    client: "MlflowClient",
    workspace: Workspace,
    line: str,
    settings: LineSettings,
    experiment: str,
    manifest: dict[str, str],
    lineage: Lineage,
    page: Callable[[PublishedRun], str] | None,
) -> "Run":
    probe_artifacts(client.get_experiment(experiment).artifact_location)
    digest = combined(manifest)
    tags = lineage.tags | {
        "novad.line": line,
        "novad.output_digest": digest,
        "mlflow.source.name": "novad train",
    }
    run = client.create_run(experiment, tags=tags, run_name=f"{line}-{digest[:8]}")
    run_id: str = run.info.run_id
    try:
        # How a line is watched made no part of the version, and a webhook's address may be a secret.
        told = settings.model_dump(mode="json", by_alias=True, exclude={"monitor", "retrain"})
        _log_figures(client, workspace, line, run_id, told)
        client.log_inputs(run_id, [_dataset(workspace, line, settings.data)])
        with tempfile.TemporaryDirectory(prefix=_GATHERED, dir=_folder(workspace, line)) as folder:
            evidence = _evidence(workspace, line, manifest, lineage, Path(folder) / "evidence")
            if page is not None:
                written = page(PublishedRun(workspace, line, None, evidence, manifest))
                (evidence / REPORT).write_text(written, "utf-8")
            client.log_artifacts(run_id, str(evidence))
            model = Path(folder) / "model"
            _log_model(client, workspace, line, run, settings.validation.max_pixels, model)
            _log_files(client, run_id, kept_files(evidence, "run") | kept_files(model, "model"), Path(folder))
        client.set_terminated(run_id, "FINISHED")
    except (Exception, KeyboardInterrupt):
        with suppress(*storage_errors()):  # What failed may be MLflow; then the next call closes the run.
            client.set_terminated(run_id, "FAILED")
        raise
    return client.get_run(run_id)


def _log_figures(
    client: "MlflowClient", workspace: Workspace, line: str, run_id: str, settings: dict[str, Any]
) -> None:
    from mlflow.entities import Metric, Param

    params = [Param(name, text) for name, text in _flat_params(settings)]
    metrics = read_metrics(workspace.artifacts(line, "evaluate") / "metrics.json")
    now = int(time.time() * 1000)
    values: list[Metric] = [Metric(name, value, now, 0) for name, value in _flat_metrics(metrics)]
    for start in range(0, len(values), 900):
        client.log_batch(run_id, metrics=values[start : start + 900])
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def _flat_params(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat_params(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _flat_metrics(document: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Every finite number of ``metrics.json`` by its dotted path; intervals end in `.low` and `.high`."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from _flat_metrics(value, f"{name}.{key}" if name else str(key))
    elif isinstance(document, list) and len(document) == 2:
        for end, value in zip(("low", "high"), document, strict=True):
            yield from _flat_metrics(value, f"{name}.{end}")
    elif isinstance(document, (int, float)) and not isinstance(document, bool) and math.isfinite(document):
        yield _METRIC_NAME.sub("_", name), float(document)


def _dataset(workspace: Workspace, line: str, data: str) -> "DatasetInput":
    """The manifest as MLflow dataset: its digest stands for every image, label and split."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = workspace.artifacts(line, "validate") / "manifest.parquet"
    # Dataset digests hold 36 characters in MLflow's tables; the whole one is in the run's manifest.json.
    dataset = Dataset(
        name=line,
        digest=file_digest(manifest)[:36],
        source_type="local",
        source=json.dumps({"uri": data}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _evidence(
    workspace: Workspace, line: str, manifest: dict[str, str], lineage: Lineage, target: Path
) -> Path:
    """One folder with everything that the run keeps: outputs, Data Docs, digests, lineage.

    Tensors are left out: the detector goes with the model, the others are intermediate.
    """
    for stage_file in sorted(_kept(workspace, line)):
        source = workspace.root / "artifacts" / line / stage_file
        copy = target / stage_file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    # Once more in a file that has a digest: tags of a run can be changed by anybody.
    tags = {name: value for name, value in lineage.tags.items() if not name.startswith("novad.dvc.")}
    documents = {
        "manifest.json": manifest,
        "lineage.json": {"tags": tags, "stages": lineage.stages},
    }
    for name, document in documents.items():
        (target / name).write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", "utf-8")
    return target


def _kept(workspace: Workspace, line: str) -> Iterator[str]:
    for stage in STAGES:
        for name in folder_files(workspace.artifacts(line, stage)):
            if not name.endswith(".safetensors") and not name.startswith(f"{DETECTOR_FOLDER}/"):
                yield f"{stage}/{name}"


def _log_files(client: "MlflowClient", run_id: str, files: dict[str, str], folder: Path) -> None:
    """Record the digest of everything that was logged, so that an audit can name the file that changed."""
    record = folder / FILES_RECORD
    record.write_text(json.dumps(files, indent=2, sort_keys=True) + "\n", "utf-8")
    client.log_artifact(run_id, str(record))
    client.set_tag(run_id, "novad.files_digest", combined(files))


def _log_model(
    client: "MlflowClient", workspace: Workspace, line: str, run: "Run", max_pixels: int, folder: Path
) -> None:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id = run.info.run_id
    logged = client.create_logged_model(run.info.experiment_id, name=_MODEL_NAME, source_run_id=run_id)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    description = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run_id,
        model_id=logged.model_id,
    )
    save_model(workspace, line, max_pixels, folder, description)
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    tags = {
        "novad.model_id": logged.model_id,
        "novad.model_digest": model_digest(folder),
        "novad.detector_digest": detector_digest(folder / "artifacts" / DETECTOR_FOLDER),
    }
    for name, value in tags.items():
        client.set_tag(run_id, name, value)


def _registered(client: "MlflowClient", line: str, run_id: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name = '{line}' and run_id = '{run_id}'")
    return found[0] if found else None


def _register(client: "MlflowClient", line: str, run: "Run") -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(line, description=f"Detectors of product line {line}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = run.data.tags
    kept = ("novad.line", *DIGEST_TAGS)
    return client.create_model_version(
        line,
        source=f"models:/{tags['novad.model_id']}",
        run_id=run.info.run_id,
        tags={name: tags[name] for name in kept},
        model_id=tags["novad.model_id"],
    )
