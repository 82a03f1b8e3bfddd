"""One deployment per line, as params.yaml says, and what a deployed run comes to."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import psutil
import pytest

from novad.config import Workspace
from novad.errors import ConfigError, RefusedError, ServiceError
from novad.pipeline.deployments import deploy, pool_name
from novad.pipeline.jitter import put_off
from novad.pipeline.line_runs import line_runs
from novad.pipeline.lines import describe_lines
from novad.pipeline.locks import line_locks
from novad.pipeline.prefect_client import workspace_tag
from novad.pipeline.prefect_home import prefect_api
from novad.pipeline.retraining import retrain_line
from novad.pipeline.train import LineResult
from novad.tracking import publications
from novad.tracking.store import open_client
from tiny_pipeline import MakeTiny, wait_for

SCHEDULED_RUN = {"reason": "schedule", "jitter_seconds": 30}


def _schedule(workspace: Workspace, line: str, schedule: str) -> None:
    head, found, tail = workspace.params.read_text().partition(f"  {line}:\n")
    workspace.params.write_text(f"{head}{found}    schedule: {schedule}\n{tail}")


def _deployed(client: Any) -> list[dict[str, Any]]:
    """Everything that the server holds about deployments, times of change too."""
    return sorted(
        (
            each.model_dump(mode="json", exclude={"last_polled", "status"})
            for each in client.read_deployments()
        ),
        key=lambda each: str(each["name"]),
    )


def _at_once(client: Any, workspace: Workspace) -> dict[str, int | None]:
    queues = client.read_work_queues(work_pool_name=pool_name(workspace))
    return {each.name: each.concurrency_limit for each in queues}


def _told(workspace: Workspace, at_once: int | None = None, work: str = "training") -> dict[str, str]:
    return {each.line: each.change for each in deploy(workspace, at_once) if each.work == work}


def test_a_second_deploy_changes_nothing_and_a_change_only_its_own_line(
    make_tiny: MakeTiny, client: Any
) -> None:
    from prefect.client.schemas.actions import WorkPoolUpdate

    workspace = make_tiny("metal", "fabric")
    _schedule(workspace, "metal", "{cron: '*/5 * * * *', timezone: Europe/Berlin, jitter_seconds: 9}")
    assert _told(workspace) == {"metal": "created", "fabric": "created"}
    first = _deployed(client)
    [fabric, metal] = first
    assert (fabric["name"], fabric["schedules"], metal["name"]) == ("fabric", [], "metal")
    [schedule] = metal["schedules"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == (
        "*/5 * * * *",
        "Europe/Berlin",
    )
    assert schedule["active"]
    assert schedule["parameters"] == {"reason": "schedule", "jitter_seconds": 9}
    assert metal["global_concurrency_limit"]["limit"] == 1
    assert metal["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert set(metal["tags"]) == {"line:metal", workspace_tag(workspace)}
    assert _at_once(client, workspace) == {"default": 1, "watching": 1}
    client.update_work_pool(pool_name(workspace), WorkPoolUpdate(concurrency_limit=1))

    assert _told(workspace) == {"metal": "unchanged", "fabric": "unchanged"}
    assert _deployed(client) == first

    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("jitter_seconds: 9", "paused: true"))
    assert _told(workspace, 3) == {"metal": "updated", "fabric": "unchanged"}
    assert _at_once(client, workspace) == {"default": 3, "watching": 1}
    assert client.read_work_pool(pool_name(workspace)).concurrency_limit is None
    [still, paused] = _deployed(client)
    assert still == fabric
    assert not paused["schedules"][0]["active"]
    assert _told(workspace) == {"metal": "unchanged", "fabric": "unchanged"}
    assert _at_once(client, workspace) == {"default": 3, "watching": 1}


def test_a_line_that_is_gone_loses_its_deployment_and_other_workspaces_keep_theirs(
    make_tiny: MakeTiny, client: Any, tmp_path: Path
) -> None:
    workspace = make_tiny("metal", "fabric")
    deploy(workspace)
    other = Workspace(tmp_path / "other")
    other.root.mkdir()
    text = workspace.params.read_text()
    other.params.write_text(text.replace("metal:", "board:").replace("fabric:", "glass:"))
    assert _told(other) == {"board": "created", "glass": "created"}
    workspace.params.write_text(text[: text.index("  fabric:")])
    assert _told(workspace) == {"metal": "unchanged", "fabric": "removed"}
    assert [each["name"] for each in _deployed(client)] == ["board", "glass", "metal"]
    other.params.write_text(text)
    with pytest.raises(RefusedError, match="metal: deployed on this Prefect server by another workspace"):
        deploy(other)
    assert [each["name"] for each in _deployed(client)] == ["board", "glass", "metal"]


def test_a_watched_line_has_a_deployment_of_its_own_for_that(make_tiny: MakeTiny, client: Any) -> None:
    workspace = make_tiny("metal", "fabric")
    text = workspace.params.read_text()
    workspace.params.write_text(text + "    monitor: {schedule: {cron: 7 * * * *, timezone: Asia/Kolkata}}\n")
    assert _told(workspace, work="watching") == {"fabric": "created"}
    [watch] = [each for each in _deployed(client) if each["entrypoint"] == "flows/monitor.py:watch"]
    [schedule] = watch["schedules"]
    assert (watch["name"], watch["work_queue_name"], schedule["schedule"]["cron"]) == (
        "fabric",
        "watching",
        "7 * * * *",
    )
    assert _told(workspace) == {"metal": "unchanged", "fabric": "unchanged"}
    [told] = [each for each in deploy(workspace) if each.work == "watching"]
    assert (told.change, str(told.next_run)[14:16]) == ("unchanged", "37")
    workspace.params.write_text(text)
    assert _told(workspace, work="watching") == {"fabric": "removed"}
    assert {each["work_queue_name"] for each in _deployed(client)} == {"default"}


@pytest.mark.usefixtures("prefect_server")
def test_a_schedule_that_only_prefect_refuses_names_file_and_key(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    text = workspace.params.read_text()
    _schedule(workspace, "metal", "0 0 LW * *")
    with pytest.raises(ConfigError, match=r"lines\.metal\.schedule: Prefect does not know '0 0 LW"):
        deploy(workspace)
    workspace.params.write_text(text + "    monitor: {schedule: 0 0 LW * *}\n")
    with pytest.raises(ConfigError, match=r"lines\.metal\.monitor\.schedule: Prefect does not know '0 0 LW"):
        deploy(workspace)


def test_without_a_server_deploying_tells_how_to_get_one(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("metal")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ServiceError, match="no Prefect server is known: start one with `novad up`"):
        deploy(workspace)
    assert line_runs(workspace) == {}
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServiceError, match=r"Prefect at http://127\.0\.0\.1:9/api: "):
        deploy(workspace)
    for no_address in ("foo", "http://127.0.0.1:port/api"):
        monkeypatch.setenv("PREFECT_API_URL", no_address)
        with pytest.raises(ServiceError, match=f"Prefect at {no_address}"):
            deploy(workspace)
        with pytest.raises(ServiceError, match=f"Prefect at {no_address} does not answer"):
            line_runs(workspace)


def _due(client: Any, deployment: Any, minutes: int, parameters: dict[str, Any] = SCHEDULED_RUN) -> Any:
    """A run as the scheduler makes it, due so many minutes from now."""
    from prefect.states import Scheduled

    state = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(minutes=minutes))
    return client.create_flow_run_from_deployment(deployment, parameters=parameters, state=state)


def _run(client: Any, run: Any) -> Any:
    """Carry out a flow run as a worker does; the run as it ended."""
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id)}
    command = [sys.executable, "-m", "novad.pipeline.flow_process"]
    ended = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    # A worker takes another status for a crash, whatever the run's state.
    assert ended.returncode == 0, ended.stderr
    return client.read_flow_run(run.id)


def test_a_deployed_run_trains_as_by_hand_and_tells_its_reason_and_outcome(
    make_tiny: MakeTiny, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Cancelled

    workspace = make_tiny("metal")
    _schedule(workspace, "metal", "'* * * * *'")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    deploy(workspace)
    [deployment] = client.read_deployments()
    late = [_due(client, deployment.id, minutes) for minutes in (-3, -2, -1)]
    asked = client.create_flow_run_from_deployment(deployment.id)
    coming = _due(client, deployment.id, 5)

    trained = _run(client, late[0])
    assert (trained.state_name, trained.state.message[:14]) == ("Completed", "version 1; ran")
    # One run answers all that are due; those to come, and what a person asks for, stay.
    assert [client.read_flow_run(run.id).state_name for run in late[1:]] == ["Cancelled", "Cancelled"]
    assert f"answered by run {late[0].id}" in client.read_flow_run(late[1].id).state.message
    assert [client.read_flow_run(run.id).state_name for run in (asked, coming)] == ["Scheduled", "Scheduled"]
    [published] = publications(workspace, "metal")
    assert open_client(workspace).get_run(published.run_id).data.tags["novad.reason"] == "schedule"

    again = _run(client, asked)
    client.set_flow_run_state(_due(client, deployment.id, 0).id, Cancelled(), force=True)
    assert (again.state_name, again.state.message) == ("Unchanged", "nothing changed since version 1")
    [row] = describe_lines(workspace)
    assert (row["last_state"], row["last_run"][:19]) == ("Unchanged", again.start_time.isoformat()[:19])
    assert row["next_run"] == coming.expected_start_time.isoformat(timespec="seconds")


def test_a_run_that_finds_the_line_held_is_cancelled_by_the_holders_name(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    with line_locks(workspace, ["metal"]):
        state = retrain_line(workspace, "metal", "by hand", 0)
    assert state.is_cancelled()
    assert f"process {os.getpid()} since" in str(state.message)


def test_a_line_that_is_refused_fails_its_run(make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def refused(*_: Any, reason: str) -> list[LineResult]:
        told.append(reason)
        return [LineResult("metal", error=RefusedError("part-07.png is empty"))]

    monkeypatch.setattr("novad.pipeline.retraining.train_lines", refused)
    with pytest.raises(RefusedError, match=r"part-07\.png is empty"):
        retrain_line(make_tiny("metal"), "metal", "drift", 0)
    assert told == ["drift"]


def test_the_jitter_puts_a_run_off_and_gives_its_place_to_others(
    make_tiny: MakeTiny, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Pending

    workspace = make_tiny("metal")
    text = workspace.params.read_text()
    workspace.params.write_text(text + "    monitor: {schedule: {cron: 0 3 1 * *, jitter_seconds: 3600}}\n")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    deploy(workspace)
    [deployment] = [each for each in client.read_deployments() if each.work_queue_name == "watching"]
    run = _run(client, _due(client, deployment.id, 0, {"jitter_seconds": 3600}))
    assert run.state_name == "Scheduled"
    share = (run.next_scheduled_start_time - run.expected_start_time).total_seconds()
    assert run.state.message == f"begins {share:.0f} s after its time"
    again = client.create_flow_run_from_deployment(deployment.id)
    assert client.set_flow_run_state(again.id, Pending()).status == "ACCEPT"


def test_the_jitter_counts_from_the_scheduled_time(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.exceptions import Abort
    from prefect.runtime import flow_run

    set_states = MagicMock()
    monkeypatch.setattr("novad.pipeline.jitter.prefect_client", set_states)
    monkeypatch.setattr("novad.pipeline.jitter.required_api_url", str)
    taken = set_states().__enter__().set_flow_run_state
    for late in (0, 45, 90):
        due = datetime.now(UTC) - timedelta(seconds=late)
        monkeypatch.setattr(flow_run, "scheduled_start_time", due, raising=False)
        begun = 0
        for run in map(str, range(50)):
            monkeypatch.setattr(flow_run, "id", run, raising=False)
            try:
                put_off(workspace, 60)
                begun += 1
            except Abort:
                (told, state), _ = taken.call_args
                share = (state.state_details.scheduled_time - due).total_seconds()
                assert told == run
                assert late <= share <= 60
        assert begun == pytest.approx(50 * min(1, late / 60), abs=12)
    put_off(workspace, 0)


def test_a_training_by_hand_does_not_close_the_runs_of_a_worker(make_tiny: MakeTiny, client: Any) -> None:
    from prefect.states import Running

    workspace = make_tiny("metal")
    deploy(workspace)
    [deployment] = client.read_deployments()
    run = client.create_flow_run_from_deployment(deployment.id)
    client.set_flow_run_state(run.id, Running(), force=True)
    with prefect_api(workspace, ["metal"]):
        assert client.read_flow_run(run.id).state_name == "Running"


def test_a_flow_run_ends_with_its_worker(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect/__init__.py").touch()
    (tmp_path / "prefect/engine.py").write_text("import time; print('runs', flush=True); time.sleep(60)")
    worker = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'novad.pipeline.flow_process']\n"
        "run = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "run.stdout.readline(); print(run.pid, flush=True); time.sleep(60)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", worker]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run = int(process.stdout.readline())
        assert psutil.pid_exists(run)
        process.kill()
        process.wait()
        wait_for(lambda: not psutil.pid_exists(run) or psutil.Process(run).status() == "zombie", 10)
