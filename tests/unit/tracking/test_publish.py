"""Publishing: complete evidence, exactly one version per result, nothing that could be unpickled."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from fake_line import write_outputs
from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.tracking import (
    close_stale_runs,
    output_digest,
    publications,
    publish,
    published_version,
    resolve,
)
from novad.tracking.digests import file_digest
from novad.tracking.lineage import dvc_digests, git_state, lineage_tags
from novad.tracking.store import locate, open_client


def _client(tracked: Workspace) -> MlflowClient:
    return open_client(tracked)


def test_a_result_is_published_once(tracked: Workspace) -> None:
    first = publish(tracked, "metal")
    again = publish(tracked, "metal")
    assert first.created
    assert first.version == 1
    assert not again.created
    assert (again.version, again.run_id) == (1, first.run_id)
    assert published_version(tracked, "metal", output_digest(tracked, "metal")) == 1
    client = _client(tracked)
    assert len(client.search_model_versions("name = 'metal'")) == 1
    experiment = client.get_experiment_by_name("metal")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1


def test_an_older_result_that_comes_back_keeps_its_version(tracked: Workspace) -> None:
    publish(tracked, "metal")
    write_outputs(tracked, "metal", auroc=0.95, seed=1)
    assert publish(tracked, "metal").version == 2
    write_outputs(tracked, "metal")
    back = publish(tracked, "metal")
    assert (back.version, back.created) == (1, False)
    assert [found.version for found in publications(tracked, "metal")] == [1, 2]


def test_a_lost_note_is_completed_from_the_registry_without_a_second_version(tracked: Workspace) -> None:
    first = publish(tracked, "metal")
    from novad.tracking.database import PUBLICATIONS, writing

    with writing(locate(tracked)) as connection:
        connection.execute(PUBLICATIONS.delete())
    again = publish(tracked, "metal")
    assert (again.version, again.created, again.run_id) == (1, False, first.run_id)


def test_a_version_deleted_in_mlflow_is_registered_anew(tracked: Workspace) -> None:
    publish(tracked, "metal")
    _client(tracked).delete_model_version("metal", "1")
    assert published_version(tracked, "metal", output_digest(tracked, "metal")) is None
    assert publish(tracked, "metal").created


def test_the_run_carries_settings_figures_dataset_and_lineage(tracked: Workspace) -> None:
    published = publish(tracked, "metal", "flow-7")
    run = _client(tracked).get_run(published.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["layout"] == "mvtec"
    assert run.data.params["validate.min_normals"] == "20"
    assert run.data.metrics["scores.hybrid.image_auroc"] == 0.93
    assert run.data.metrics["scores.hybrid.ci95.image_auroc.low"] == pytest.approx(0.91)
    assert "scores.hybrid.aupro" not in run.data.metrics
    tags = run.data.tags
    assert tags["novad.output_digest"] == published.output_digest
    assert tags["novad.prefect_flow_run"] == "flow-7"
    assert len(tags["novad.requirements_lock"]) == 64
    assert json.loads(tags["novad.dvc.validate"])["deps"] == {
        "data/metal": "0123456789abcdef0123456789abcdef.dir"
    }
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "metal"


def test_the_run_keeps_evidence_and_data_docs_but_no_tensors(tracked: Workspace) -> None:
    run = _client(tracked).get_run(publish(tracked, "metal").run_id)
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    kept = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert {
        "manifest.json",
        "lineage.json",
        "validate/docs/index.html",
        "validate/report.json",
        "memory_bank/suspicious.json",
        "memory_bank/suspicious.png",
        "evaluate/metrics.json",
        "evaluate/scores.parquet",
        "evaluate/heatmaps/a.png",
        "evaluate/plots/roc.png",
    } <= kept
    assert not [name for name in kept if name.endswith(".safetensors")]


def test_the_version_is_challenger_and_tagged_with_every_digest(tracked: Workspace) -> None:
    published = publish(tracked, "metal")
    version = _client(tracked).get_model_version_by_alias("metal", "challenger")
    assert int(version.version) == published.version
    assert version.tags["novad.line"] == "metal"
    assert version.tags["novad.output_digest"] == published.output_digest
    assert version.tags["novad.detector_digest"] == resolve(tracked, "metal").detector_digest
    assert len(version.tags["novad.model_digest"]) == 64


def test_the_model_holds_code_and_tensors_and_no_pickle(tracked: Workspace) -> None:
    publish(tracked, "metal")
    folder = resolve(tracked, "metal").folder.parents[1]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "novad_model.py",
        "artifacts/detector/detector.json",
        "artifacts/detector/bank.safetensors",
    }
    description = (folder / "MLmodel").read_text()
    assert "loader_module: mlflow.pyfunc.loaders.code_model" in description
    assert ".pkl" not in description
    assert "torch==" in (folder / "requirements.txt").read_text()


@pytest.mark.parametrize("name", ["extra.pkl", "bank.pt", "bank"])
def test_a_file_that_may_hold_a_pickle_is_not_published(tracked: Workspace, name: str) -> None:
    detector = tracked.artifacts("metal", "evaluate") / "detector"
    (detector / name).write_bytes(b"\x80\x04.")
    manifest = json.loads((detector / "detector.json").read_text())
    manifest["files"][name] = file_digest(detector / name)
    (detector / "detector.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=f"detector/{name}: only"):
        publish(tracked, "metal")
    client = _client(tracked)
    assert client.search_registered_models() == []
    experiment = client.get_experiment_by_name("metal")
    assert experiment is not None
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


def test_a_damaged_detector_is_not_published(tracked: Workspace) -> None:
    bank = tracked.artifacts("metal", "evaluate") / "detector" / "bank.safetensors"
    bank.write_bytes(bank.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"bank\.safetensors: not the file"):
        publish(tracked, "metal")
    assert _client(tracked).search_registered_models() == []


def test_a_run_left_running_is_closed_and_its_line_is_published_again(tracked: Workspace) -> None:
    publish(tracked, "metal")
    client = _client(tracked)
    experiment = client.get_experiment_by_name("metal")
    assert experiment is not None
    stale = client.create_run(experiment.experiment_id).info.run_id
    assert published_version(tracked, "metal", output_digest(tracked, "metal")) is None
    assert not publish(tracked, "metal").created
    assert client.get_run(stale).info.status == "KILLED"
    assert close_stale_runs(tracked, "metal") == []


def test_close_stale_runs_leaves_other_lines_alone(make_tracked: Callable[..., Workspace]) -> None:
    workspace = make_tracked("metal", "fabric")
    assert close_stale_runs(workspace, "metal") == []
    publish(workspace, "metal")
    publish(workspace, "fabric")
    client = _client(workspace)
    ids = {}
    for line in ("metal", "fabric"):
        experiment = client.get_experiment_by_name(line)
        assert experiment is not None
        ids[line] = client.create_run(experiment.experiment_id).info.run_id
    assert close_stale_runs(workspace, "metal") == [ids["metal"]]
    assert client.get_run(ids["fabric"]).info.status == "RUNNING"


def test_the_lines_of_one_flow_are_published_in_threads(
    make_tracked: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"line-{number}" for number in range(4)]
    workspace = make_tracked(*names)
    inside: list[int] = [0, 0]
    real_save, real_uri = mlflow.pyfunc.save_model, mlflow.set_registry_uri

    def save(**named: object) -> None:
        inside[0] += 1
        inside[1] = max(inside)
        time.sleep(0.05)
        real_save(**named)
        inside[0] -= 1

    def slow(uri: str) -> None:
        time.sleep(0.05)
        real_uri(uri)

    monkeypatch.setattr(mlflow.pyfunc, "save_model", save)
    monkeypatch.setattr(mlflow, "set_registry_uri", slow)
    with ThreadPoolExecutor(len(names)) as pool:
        published = list(pool.map(lambda name: publish(workspace, name), names))
    assert [found.created for found in published] == [True] * len(names)
    for name in names:
        assert f"line: {name}\n" in (resolve(workspace, name).folder.parents[1] / "MLmodel").read_text()
    # Both are global to the process in MLflow: the address it writes, the model it loads from code.
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert inside[1] == 1


def test_an_unknown_line_is_refused_and_leaves_no_run(tracked: Workspace) -> None:
    (tracked.root / "artifacts" / "metal").rename(tracked.root / "artifacts" / "other")
    with pytest.raises(ConfigError, match=r"lines\.other"):
        publish(tracked, "other")
    assert _client(tracked).search_experiments(filter_string="name = 'other'") == []


def test_an_mlflow_error_is_a_service_error_that_tells_the_first_one(
    tracked: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    def failing(told: str) -> Callable[..., None]:
        def fail(*_arguments: object, **_named: object) -> None:
            raise MlflowException(told)

        return fail

    publish(tracked, "metal")
    write_outputs(tracked, "metal", seed=1)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", failing("disk full"))
        patched.setattr(MlflowClient, "set_terminated", failing("still full"))
        with pytest.raises(ServiceError, match="disk full"):
            publish(tracked, "metal")
        with pytest.raises(ServiceError, match="runs that a kill left open cannot be closed: still full"):
            close_stale_runs(tracked, "metal")
    assert publish(tracked, "metal").version == 2
    assert close_stale_runs(tracked, "metal") == []


def test_lineage_knows_the_commit_of_a_clean_and_of_a_changed_repository(tracked: Workspace) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tracked.root), *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", "params.yaml")
    git("commit", "-q", "-m", "one")
    assert git_state(tracked).commit == git("rev-parse", "HEAD")
    assert git_state(tracked).dirty is False
    (tracked.root / "params.yaml").write_text("lines: {}\n")
    assert lineage_tags(tracked, {})["novad.git_dirty"] == "true"


def test_a_machine_without_git_says_that_nothing_is_known(
    tracked: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    tags = lineage_tags(tracked, {})
    assert (tags["novad.git_commit"], tags["novad.git_dirty"]) == ("none", "unknown")


def test_a_damaged_dvc_lock_is_named(tracked: Workspace) -> None:
    (tracked.root / "dvc.lock").write_text("stages: [")
    with pytest.raises(ConfigError, match=r"dvc\.lock"):
        dvc_digests(tracked, "metal")
    (tracked.root / "dvc.lock").unlink()
    assert dvc_digests(tracked, "metal") == {}
