"""What `mlflow/compose.yaml` says, without Docker: MLflow and Prefect on PostgreSQL, artifacts on S3."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from dvc.repo import Repo
from moto.server import ThreadedMotoServer
from sqlalchemy import create_engine, text

from compose_file import Translation, make_secrets
from databases import postgresql_server
from fake_line import make_workspace, write_outputs
from novad.config import Workspace
from novad.errors import ServiceError
from novad.pipeline.loopback import answers, free_port
from novad.tracking import check, promote, publications, publish, resolve
from novad.tracking.store import open_client
from relay import relay
from state_digest import file_digests
from tiny_pipeline import wait_for

SECONDS_TO_START = 120
OF_SERVERS = ("AWS_", "MLFLOW_", "NOVAD_", "PG", "PREFECT_")


class S3:
    """An S3-compatible server on loopback, which keeps what it has while it is stopped."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def place(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Translation]:
    """PostgreSQL that asks for the password of the secrets, with the databases of the compose file."""
    scratch = tmp_path_factory.mktemp("servers")
    secrets = make_secrets(scratch)
    with postgresql_server() as address:
        folder = Path(address.partition("host=")[2])
        engine = create_engine(address.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            password = (secrets / "postgres-password").read_text()
            connection.execute(text(f"ALTER ROLE novad PASSWORD '{password}'"))
            for database in ("mlflow", "prefect"):
                connection.execute(text(f"CREATE DATABASE {database}"))
            (folder / "data" / "pg_hba.conf").write_text("local all all scram-sha-256\n")
            connection.execute(text("SELECT pg_reload_conf()"))
        engine.dispose()
        yield Translation(secrets, folder, s3.url, free_port(), free_port(), scratch)


@pytest.fixture(scope="module")
def servers(place: Translation) -> Iterator[Translation]:
    """MLflow and Prefect by the commands of the compose file, with a bucket."""
    _run(place, "bucket")
    _run(place, "bucket")
    health = {
        "mlflow": f"http://127.0.0.1:{place.mlflow}/health",
        "prefect": f"http://127.0.0.1:{place.prefect}/api/health",
    }
    with ExitStack() as started:
        running = [started.enter_context(_started(place, name)) for name in health]
        wait_for(lambda: _alive(running, place) and all(map(answers, health.values())), SECONDS_TO_START)
        yield place


def _environment(place: Translation, service: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(OF_SERVERS)}
    return {**own, **place.environment(service)}


def _python(command: list[str]) -> list[str]:
    program, *rest = command
    return [sys.executable, *([] if program == "python" else ["-m", program]), *rest]


def _run(place: Translation, service: str) -> None:
    subprocess.run(_python(place.command(service)), env=_environment(place, service), check=True, timeout=120)


@contextmanager
def _started(place: Translation, service: str) -> "Iterator[subprocess.Popen[bytes]]":
    """One server in a session of its own, as long as the block lasts."""
    with (place.scratch / f"{service}.log").open("wb") as log:
        process = subprocess.Popen(
            _python(place.command(service)),
            env=_environment(place, service),
            cwd=place.scratch,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _alive(running: "list[subprocess.Popen[bytes]]", place: Translation) -> bool:
    told = "\n".join(log.read_text() for log in place.scratch.glob("*.log"))
    assert all(process.poll() is None for process in running), told
    return True


@pytest.fixture(autouse=True)
def _only_files(place: Translation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the compose file's `plant`, and no other of S3, MLflow or Prefect."""
    for name in list(os.environ):
        if name.startswith(OF_SERVERS):
            monkeypatch.delenv(name)
    for name, value in place.environment("plant").items():
        if name not in {"HOME", "NOVAD_WORKSPACE", "PYTHONPATH"}:
            monkeypatch.setenv(name, value)


@pytest.fixture
def direct(place: Translation, s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """PostgreSQL and S3 without an MLflow server between; the bucket, which is there."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", os.environ["NOVAD_DATABASE_URI"])
    monkeypatch.delenv("NOVAD_DATABASE_URI")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://direct/novad")
    _client(s3).create_bucket(Bucket="direct")
    return "direct"


def test_a_line_goes_through_mlflow_to_both(
    servers: Translation, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace(tmp_path / "one", "metal")
    assert publish(workspace, "metal").created
    promote(workspace, "metal", 1, "Ann", "first")
    assert not (workspace.state / "mlflow.db").exists()
    [stored] = [key for key in _keys(s3, "novad") if key.endswith("detector/bank.safetensors")]
    colleague = Workspace(tmp_path / "two")
    found = resolve(colleague, "metal")
    assert (found.version, found.approver) == (1, "Ann")
    assert found.folder.is_relative_to(colleague.state)
    assert check(colleague, "metal").problems == ()

    s3.stop()
    write_outputs(workspace, "metal", seed=1)
    with pytest.raises(ServiceError, match="metal: MLflow could not record"):
        publish(workspace, "metal")
    with pytest.raises(ServiceError, match="cannot be fetched"):
        resolve(Workspace(tmp_path / "three"), "metal")
    assert [each.version for each in publications(workspace, "metal")] == [1]
    s3.start()
    assert publish(workspace, "metal").version == 2
    client = open_client(workspace)
    runs = client.search_runs([client.get_experiment_by_name("metal").experiment_id])
    statuses = sorted(run.info.status for run in runs)
    # An MLflow server that is still busy with the lost store leaves the run to the next publication.
    assert statuses in (["FAILED", "FINISHED", "FINISHED"], ["FINISHED", "FINISHED", "KILLED"])

    _client(s3).put_object(Bucket="novad", Key=stored, Body=b"exchanged")
    assert "bank.safetensors" in str(check(colleague, "metal").problems)
    assert resolve(colleague, "metal").version == 1  # from its own intact copy


def test_without_an_mlflow_server_nothing_is_half_registered(
    place: Translation, s3: S3, direct: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace(tmp_path / "one", "fabric")
    _client(s3).delete_bucket(Bucket=direct)
    with pytest.raises(ServiceError, match="NoSuchBucket"):
        publish(workspace, "fabric")
    _client(s3).create_bucket(Bucket=direct)
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(ServiceError, match="S3 at"):
            publish(workspace, "fabric")
    assert _keys(s3, direct) == []
    outputs = file_digests(workspace.root, "artifacts")
    with relay(("127.0.0.1", s3.port)) as between, monkeypatch.context() as patched:
        patched.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
        between.fail(f"PUT /{direct}/".encode(), "unavailable", skip=5)
        with pytest.raises(ServiceError, match="fabric: MLflow could not record the result"):
            publish(workspace, "fabric")
    assert len(_keys(s3, direct)) == 5
    assert file_digests(workspace.root, "artifacts") == outputs
    assert publications(workspace, "fabric") == []
    assert open_client(workspace).search_model_versions("name = 'fabric'") == []

    assert publish(workspace, "fabric").version == 1
    assert all(key.startswith("novad/fabric/") for key in _keys(s3, direct))
    colleague = Workspace(tmp_path / "two")
    assert resolve(colleague, "fabric").folder.is_relative_to(colleague.state)
    assert check(colleague, "fabric").problems == ()
    _empty(s3, direct)
    with pytest.raises(ServiceError, match="cannot be fetched"):
        resolve(Workspace(tmp_path / "three"), "fabric")
    assert not (tmp_path / "three/.novad/models/fabric/1").exists()


def test_data_travels_by_dvc_remote(place: Translation, s3: S3, tmp_path: Path) -> None:
    _client(s3).create_bucket(Bucket="data")
    first, second = (_dvc_repository(tmp_path / name, s3) for name in ("one", "two"))
    images = {f"{number}.png": os.urandom(1000) for number in range(3)}
    for name, content in images.items():
        (tmp_path / "one/data").mkdir(exist_ok=True)
        (tmp_path / "one/data" / name).write_bytes(content)
    first.add([str(tmp_path / "one/data")])
    assert first.push() == len(images) + 1
    shutil.copyfile(tmp_path / "one/data.dvc", tmp_path / "two/data.dvc")
    second.pull()
    assert {path.name: path.read_bytes() for path in (tmp_path / "two/data").iterdir()} == images


FLOW = """
import sys
from pathlib import Path
from novad.config import Workspace
from novad.pipeline.prefect_home import prefect_api
with prefect_api(Workspace(Path(sys.argv[1])), ["metal"]):
    from prefect import flow
    assert flow(lambda: 6 * 7, name="answer")() == 42
"""


def test_a_flow_runs_on_prefect_in_postgresql(servers: Translation, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", FLOW, str(tmp_path)], check=True, timeout=300)
    engine = create_engine(f"postgresql://novad@/prefect?host={servers.postgresql}")
    with engine.connect() as connection:
        told = connection.execute(text("SELECT state_name, tags FROM flow_run")).all()
    engine.dispose()
    assert [(state, "line:metal" in tags) for state, tags in told] == [("Completed", True)]


def _dvc_repository(root: Path, s3: S3) -> Repo:
    """A repository with the remote that the README's commands make."""
    root.mkdir()
    repository = Repo.init(str(root), no_scm=True)
    with repository.config.edit() as config:
        config["core"] |= {"remote": "plant", "analytics": False}
        config["remote"]["plant"] = {"url": "s3://data/dvc", "endpointurl": s3.url, "verify": True}
    repository.close()
    return Repo(str(root))


def _client(s3: S3) -> Any:
    return boto3.client("s3", endpoint_url=s3.url)


def _keys(s3: S3, bucket: str) -> list[str]:
    pages = _client(s3).get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def _empty(s3: S3, bucket: str) -> None:
    for key in _keys(s3, bucket):
        _client(s3).delete_object(Bucket=bucket, Key=key)
