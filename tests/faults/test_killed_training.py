"""A training that is killed, or whose servers go away, leaves nothing running; the next one completes it."""

import json
import os
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from novad.config import Workspace
from novad.pipeline.loopback import free_port
from novad.tracking import check, close_stale_runs, output_digest, publications, published_version, resolve
from novad.tracking.digests import STAGES
from novad.tracking.store import locate
from relay import relay
from state_digest import file_digests
from tiny_pipeline import MakeTiny, train_process, wait_for


def _kill_in_stage(workspace: Workspace, stage: str) -> list[int]:
    """Start a training, kill only its first process inside ``stage``; process ids of all its children."""
    hold, started = (workspace.root / f"{word}-{stage}-metal" for word in ("hold", "started"))
    for marker in workspace.root.glob("started-*"):
        marker.unlink()
    hold.touch()
    training = train_process(workspace, "metal")
    wait_for(lambda: started.exists() or training.poll() is not None, 120)
    assert training.poll() is None, training.communicate()
    children = [child.pid for child in psutil.Process(training.pid).children(recursive=True)]
    training.kill()
    training.communicate()
    hold.unlink()
    return children


def _started(workspace: Workspace) -> set[str]:
    return {marker.name.split("-")[1] for marker in workspace.root.glob("started-*")}


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _flow_states(workspace: Workspace, database: Path) -> list[str]:
    """States of the flow runs of ``workspace``, oldest first, as Prefect's database has them."""
    tag = f"workspace:{(workspace.state / 'identity').read_text()}"
    query = "SELECT state_type FROM flow_run WHERE tags LIKE ? ORDER BY created"
    with sqlite3.connect(database) as connection:
        return [row[0] for row in connection.execute(query, (f'%"{tag}"%',))]


def test_a_kill_leaves_no_process_and_the_next_run_goes_on_from_its_stage(
    make_tiny: MakeTiny, prefect_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("metal")
    shells = [shell for shell in ("/bin/sh", "/bin/bash") if Path(shell).exists()]
    hit = (1, 4)
    for number, stage in enumerate(hit):
        monkeypatch.setenv("SHELL", shells[number % len(shells)])
        children = _kill_in_stage(workspace, STAGES[stage])
        assert len(children) >= 2
        wait_for(lambda started=children: all(map(_gone, started)), 20)
        # What was done before stays done: the stage that the last kill hit runs again, and those after it.
        begun = hit[number - 1] if number else 0
        assert _started(workspace) == set(STAGES[begun : stage + 1])
    last = train_process(workspace, "metal")
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, out + err
    result = json.loads(out)
    assert result["ran"] == ["evaluate@metal"]
    assert result["version"] == 1
    assert resolve(workspace, "metal").version == 1
    assert published_version(workspace, "metal", output_digest(workspace, "metal")) == 1
    assert close_stale_runs(workspace, "metal") == []
    assert _flow_states(workspace, prefect_server) == ["CRASHED"] * len(hit) + ["COMPLETED"]
    assert sorted(path.name for path in workspace.artifacts("metal", "").iterdir()) == sorted(STAGES)


def test_a_training_whose_prefect_server_goes_away_ends_soon_and_the_next_one_goes_on(
    make_tiny: MakeTiny, prefect_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("metal")
    server = os.environ["PREFECT_API_URL"]
    hold, started = (workspace.root / f"{word}-memory_bank-metal" for word in ("hold", "started"))
    hold.touch()
    with relay(("127.0.0.1", urlsplit(server).port)) as between, monkeypatch.context() as patched:
        patched.setenv("PREFECT_API_URL", f"http://127.0.0.1:{between.port}/api")
        patched.setenv("PREFECT_CLIENT_MAX_RETRIES", "1")  # novad's own number would make the test wait
        # Stages so short may all be done before Prefect is missed: the line must not be published then.
        patched.setenv("NOVAD_DATABASE_URI", locate(workspace).database_uri)
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        training = train_process(workspace, "metal")
        wait_for(lambda: started.exists() or training.poll() is not None, 120)
        assert training.poll() is None, training.communicate()
    done = file_digests(workspace.root, "artifacts/metal/validate")
    hold.unlink()
    out, err = training.communicate(timeout=300)
    assert f"ServiceError: Prefect at http://127.0.0.1:{between.port}/api: " in err, out + err
    # Prefect's own client would try for seconds to deliver each of some twenty events.
    assert "failed to process item Event" not in err
    last = train_process(workspace, "metal")
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, out + err
    assert json.loads(out)["version"] == 1
    assert "validate@metal" not in json.loads(out)["ran"]
    assert file_digests(workspace.root, "artifacts/metal/validate") == done
    assert close_stale_runs(workspace, "metal") == []
    assert _flow_states(workspace, prefect_server) == ["CRASHED", "COMPLETED"]


def test_a_training_whose_mlflow_server_is_down_is_published_later_without_training_again(
    make_tiny: MakeTiny, prefect_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_tiny("metal")
    database = locate(workspace).database_uri
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
        patched.setenv("NOVAD_DATABASE_URI", database)
        first = train_process(workspace, "metal")
        out, err = first.communicate(timeout=120)
    assert first.returncode == 3, out + err
    assert "MLflow at http://127.0.0.1:" in json.loads(out)["error"]
    trained = file_digests(workspace.root, "artifacts")
    assert publications(workspace, "metal") == []
    second = train_process(workspace, "metal")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, out + err
    assert (json.loads(out)["version"], json.loads(out)["ran"]) == (1, [])
    assert file_digests(workspace.root, "artifacts") == trained
    assert check(workspace, "metal").problems == ()
    assert _flow_states(workspace, prefect_server) == ["FAILED", "COMPLETED"]
