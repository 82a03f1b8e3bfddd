"""A training that is killed at any point leaves nothing running, and the next one completes it."""

import json
import sqlite3
from pathlib import Path

import psutil
import pytest

from novad.config import Workspace
from novad.tracking import close_stale_runs, output_digest, published_version, resolve
from novad.tracking.digests import STAGES
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
    hit = (0, 2, 4)
    for number, stage in enumerate(hit):
        monkeypatch.setenv("SHELL", shells[number % len(shells)])
        children = _kill_in_stage(workspace, STAGES[stage])
        assert len(children) >= 2
        wait_for(lambda started=children: all(map(_gone, started)), 20)
        # What was done before stays done: the stage that the last kill hit runs again, and those after it.
        assert _started(workspace) == set(STAGES[hit[max(0, number - 1)] : stage + 1])
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
