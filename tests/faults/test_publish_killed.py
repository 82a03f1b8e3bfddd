"""Publishing when processes die or compete: exactly one version, and no run left claiming to run."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from fake_line import make_workspace, write_outputs
from novad.config import Workspace
from novad.tracking import history, output_digest, promote, publish, published_version, resolve, verify
from novad.tracking.store import open_client

# Every call by which publishing writes, and whether the process dies before it or after it.
DEATHS = [
    ("mlflow.MlflowClient.create_experiment", "after"),
    ("mlflow.MlflowClient.create_run", "after"),
    ("mlflow.MlflowClient.log_inputs", "after"),
    ("mlflow.MlflowClient.log_artifacts", "after"),
    ("mlflow.MlflowClient.create_logged_model", "after"),
    ("mlflow.MlflowClient.log_model_artifacts", "after"),
    ("mlflow.MlflowClient.set_terminated", "before"),
    ("mlflow.MlflowClient.set_terminated", "after"),
    ("mlflow.MlflowClient.create_registered_model", "after"),
    ("mlflow.MlflowClient.create_model_version", "after"),
    ("mlflow.MlflowClient.set_registered_model_alias", "after"),
    ("novad.tracking.publish.record_publication", "after"),
]


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Fresh processes that have loaded MLflow already: a real SIGKILL each, at a tenth of the start-up."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["novad.tracking.publish", "mlflow.pyfunc", "novad.serving.pyfunc"])
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
            patched.delenv(name, raising=False)
        yield context


def _publish(root: Path, line: str) -> None:
    publish(Workspace(root), line)


def _promote(root: Path, version: int) -> None:
    promote(Workspace(root), "metal", version, f"approver of {version}", "a race")


def _publish_and_die(root: Path, target: str, when: str) -> None:
    from pkgutil import resolve_name

    owner_name, _, name = target.rpartition(".")
    owner = resolve_name(owner_name)
    real = getattr(owner, name)

    def deadly(*arguments: object, **named: object) -> None:
        if when == "after":
            real(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)
    publish(Workspace(root), "metal")


def _run(context: ForkServerContext, *calls: tuple[object, ...]) -> list[int | None]:
    started = [context.Process(target=call[0], args=call[1:]) for call in calls]  # type: ignore[arg-type]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def _open_runs(workspace: Workspace, line: str) -> list[str]:
    client = open_client(workspace)
    experiment = client.get_experiment_by_name(line)
    assert experiment is not None
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id], "status = 'RUNNING'")]


@pytest.mark.parametrize(("target", "when"), DEATHS, ids=[f"{when}-{name[7:]}" for name, when in DEATHS])
def test_after_a_kill_the_next_publish_completes_with_exactly_one_version(
    tracked: Workspace, processes: ForkServerContext, target: str, when: str
) -> None:
    workspace = tracked
    first_use = target.endswith(("create_experiment", "create_registered_model"))
    if not first_use:
        publish(workspace, "metal")
        write_outputs(workspace, "metal", auroc=0.95, seed=1)
    assert _run(processes, (_publish_and_die, workspace.root, target, when)) == [-signal.SIGKILL]
    if not first_use:
        between = resolve(workspace, "metal")
        assert between.version in (1, 2)
    expected = 1 if first_use else 2
    assert publish(workspace, "metal").version == expected
    client = open_client(workspace)
    versions = client.search_model_versions("name = 'metal'")
    assert sorted(int(version.version) for version in versions) == list(range(1, expected + 1))
    assert _open_runs(workspace, "metal") == []
    assert not list(workspace.artifacts("metal", "validate").parent.glob(".publish-*"))
    assert published_version(workspace, "metal", output_digest(workspace, "metal")) == expected
    assert resolve(workspace, "metal").version == expected


def test_two_lines_are_published_at_once_into_a_new_database(
    own_store: None, tmp_path: Path, processes: ForkServerContext
) -> None:
    workspace = make_workspace(tmp_path, "metal", "fabric")
    assert _run(processes, (_publish, tmp_path, "metal"), (_publish, tmp_path, "fabric")) == [0, 0]
    for line in ("metal", "fabric"):
        assert resolve(workspace, line).version == 1
        assert _open_runs(workspace, line) == []


def test_of_promotions_at_once_the_alias_is_the_last_one_in_an_intact_log(
    tracked: Workspace, processes: ForkServerContext
) -> None:
    workspace = tracked
    for seed in range(3):
        write_outputs(workspace, "metal", seed=seed)
        publish(workspace, "metal")
    exits = _run(processes, *((_promote, workspace.root, version) for version in (1, 2, 3, 1)))
    promotions = [event for event in history(workspace, "metal") if event.kind == "promotion"]
    assert exits.count(0) == len(promotions) >= 1
    assert len(history(workspace, "metal")) == 4
    assert verify(workspace) == []
    alias = open_client(workspace).get_model_version_by_alias("metal", "champion")
    assert int(alias.version) == promotions[-1].version
