"""`novad up`, `novad deploy` and `novad down`: lines retrained by a worker, each once, and nothing left."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from novad.config import Workspace
from novad.pipeline.deployments import deploy
from novad.pipeline.line_runs import line_runs
from novad.pipeline.prefect_client import api_url, prefect_client
from novad.tracking import publications, resolve
from novad.tracking.store import locate, open_client
from tiny_pipeline import MakeTiny, prefect_tables, wait_for

PATIENCE = 200


def _novad(workspace: Workspace, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from novad.cli import main; main()", *arguments, "--json"],
        # The server that tests share told this process to plan nothing.
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_SERVER_")},
            "NOVAD_WORKSPACE": str(workspace.root),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def _document(process: "subprocess.Popen[str]") -> Any:
    """The JSON document that a command prints; it may go on running."""
    text = ""
    assert process.stdout is not None
    for line in process.stdout:
        text += line
        if line == "}\n":
            return json.loads(text)
    raise AssertionError(f"status {process.wait()}: {text}")


def _retrain(workspace: Workspace, *lines: str) -> list[Any]:
    """Ask for runs as Prefect's page does, and wait for their ends."""
    url = api_url(workspace)
    assert url is not None
    with prefect_client(url) as client:
        wanted = {each.name: each.id for each in client.read_deployments()}
        asked = [client.create_flow_run_from_deployment(wanted[line]).id for line in lines]
        wait_for(lambda: all(client.read_flow_run(run).state.is_final() for run in asked), PATIENCE)
        return [client.read_flow_run(run) for run in asked]


def _free(url: str) -> bool:
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))):
        return True


def _under(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


@pytest.mark.timeout(PATIENCE * 2)
def test_two_lines_are_retrained_once_each_and_down_leaves_nothing(
    make_tiny: MakeTiny, empty_prefect: Path
) -> None:
    workspace = make_tiny("metal", "fabric")
    prefect_tables(workspace, empty_prefect, "up")
    workspace.params.write_text(workspace.params.read_text() + "    schedule: 0 3 1 * *\n")
    embedded = locate(workspace)
    up = _novad(workspace, "up")
    try:
        told = _document(up)
        assert [service["name"] for service in told["services"]] == ["prefect", "mlflow", "worker", "serve"]
        assert locate(workspace).tracking_uri == told["services"][1]["url"]
        # Without the token that its clients and its own pages fetch: a foreign page.
        assert httpx.post(f"{told['services'][0]['url']}/api/flow_runs/filter").status_code == 403
        assert {each.line: each.change for each in deploy(workspace, 2)} == {
            "metal": "created",
            "fabric": "created",
        }

        ends = _retrain(workspace, "metal", "metal", "fabric")
        assert sorted(run.state_name for run in ends[:2]) == ["Cancelled", "Completed"]
        assert ends[2].state_name == "Completed"
        for line in ("metal", "fabric"):
            [published] = publications(workspace, line)
            assert published.version == 1
            run = open_client(workspace).get_run(published.run_id)
            assert run.data.tags["novad.reason"] == "by hand"
            assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(workspace.state)
            assert line_runs(workspace)[line].last_state == "Completed"

        # Prefect's own scheduler plans what params.yaml says.
        wait_for(lambda: line_runs(workspace)["fabric"].next_run is not None, PATIENCE)
        seen = _document(_novad(workspace, "status"))
        assert all(service["healthy"] for service in seen["services"])
        assert [(row["line"], row["newest"], row["last_state"]) for row in seen["lines"]] == [
            ("metal", 1, "Completed"),
            ("fabric", 1, "Completed"),
        ]

        # The process of the last run ends a moment after its state is told.
        wait_for(lambda: len(_under(psutil.Process(up.pid))) == 5)
        started = _under(psutil.Process(up.pid))
        assert _document(_novad(workspace, "down"))["stopped"]["pid"] == up.pid
        assert up.wait(60) == 0
        wait_for(lambda: not any(process.is_running() for process in started), 10)
        assert all(_free(service["url"]) for service in told["services"])
    finally:
        up.kill()
        up.wait()
    assert locate(workspace) == embedded
    assert resolve(workspace, "metal").version == 1
