"""The same publishing and promotion through an MLflow server instead of the embedded store."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fake_line import make_workspace
from novad.config import Workspace
from novad.errors import IntegrityError, ServiceError
from novad.tracking import (
    check,
    close_stale_runs,
    output_digest,
    promote,
    publish,
    published_version,
    resolve,
    verify,
)
from novad.tracking.store import open_client
from relay import Fault, relay
from state_digest import file_digests

SECONDS_TO_START = 120
# What goes wrong at each attempt, and the runs after it: one that nobody heard of is closed by the next.
FAULTS: list[tuple[bytes, Fault, list[str]]] = [
    (b"/mlflow/runs/create", "answer lost", ["RUNNING"]),
    (b"PUT /api/2.0/mlflow-artifacts", "unavailable", ["FAILED", "KILLED"]),
    (b"/mlflow/runs/update", "request lost", ["FAILED", "FAILED", "KILLED"]),
    (
        b"POST /api/2.0/mlflow/model-versions/create",
        "answer lost",
        ["FAILED", "FAILED", "FINISHED", "KILLED"],
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server with its own database and artifact store."""
    tmp_path = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "server-artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True, cwd=tmp_path
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _healthy(address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.25)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_line_is_published_promoted_fetched_and_checked_through_a_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("NOVAD_DATABASE_URI", f"sqlite:///{tmp_path / 'events.db'}")
    workspace = make_workspace(tmp_path / "one", "metal")
    assert publish(workspace, "metal").created
    assert published_version(workspace, "metal", output_digest(workspace, "metal")) == 1
    assert not publish(workspace, "metal").created
    assert close_stale_runs(workspace, "metal") == []
    promote(workspace, "metal", 1, "Ann", "first")
    assert not (workspace.state / "mlflow.db").exists()

    colleague = Workspace(tmp_path / "two")
    found = resolve(colleague, "metal")
    assert (found.alias, found.version, found.approver) == ("champion", 1, "Ann")
    assert found.folder.is_relative_to(colleague.state)
    assert verify(colleague) == []
    with (found.folder / "bank.safetensors").open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
        resolve(colleague, "metal")
    assert resolve(workspace, "metal").version == 1
    assert capfd.readouterr().out == ""


def test_a_server_that_fails_in_mid_publication_makes_nothing_twice(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("NOVAD_DATABASE_URI", f"sqlite:///{tmp_path / 'events.db'}")
    workspace = make_workspace(tmp_path / "one", "fabric")
    outputs = file_digests(workspace.root, "artifacts")
    with relay(("127.0.0.1", urlsplit(server).port or 0)) as between:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{between.port}")
        client = open_client(workspace)
        for request, fault, runs in FAULTS:
            between.fail(request, fault)
            with pytest.raises(ServiceError, match="fabric: MLflow could not record the result"):
                publish(workspace, "fabric")
            assert between.struck
            assert published_version(workspace, "fabric", output_digest(workspace, "fabric")) is None
            experiment = client.get_experiment_by_name("fabric")
            assert experiment is not None
            found = client.search_runs([experiment.experiment_id])
            assert sorted(run.info.status for run in found) == runs
        assert publish(workspace, "fabric").version == 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    versions = open_client(workspace).search_model_versions("name = 'fabric'")
    assert [int(each.version) for each in versions] == [1]
    assert close_stale_runs(workspace, "fabric") == []
    assert check(workspace, "fabric").problems == ()
    assert file_digests(workspace.root, "artifacts") == outputs
