"""A training that is killed at any point leaves nothing running, and the next one completes it."""

import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import psutil
import pytest

from novad.config import Workspace
from novad.pipeline.graph import stale_stages
from novad.pipeline.locks import line_locks
from novad.pipeline.recovery import mend
from novad.tracking import close_stale_runs, output_digest, published_version, resolve
from novad.tracking.digests import STAGES
from tiny_pipeline import MakeTiny, train_process, wait_for


def _kill_in_stage(workspace: Workspace, stage: str) -> list[int]:
    """Start a training, kill only its first process inside ``stage``; process ids of all its children."""
    hold, started = (workspace.root / f"{word}-{stage}-metal" for word in ("hold", "started"))
    hold.touch()
    started.unlink(missing_ok=True)
    training = train_process(workspace, "metal")
    wait_for(lambda: started.exists() or training.poll() is not None)
    assert training.poll() is None, training.communicate()
    children = [child.pid for child in psutil.Process(training.pid).children(recursive=True)]
    training.kill()
    training.communicate()
    hold.unlink()
    return children


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _flow_states(workspace: Workspace) -> list[str]:
    states = []
    for database in sorted(workspace.state.glob("prefect/*/prefect.db")):
        with sqlite3.connect(database) as connection:
            states += [
                row[0] for row in connection.execute("SELECT state_type FROM flow_run ORDER BY created")
            ]
    return states


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_kill_in_each_stage_leaves_no_process_and_the_next_run_goes_on_from_there(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    if not Path(shell).exists():
        pytest.skip(f"no {shell} here")
    monkeypatch.setenv("SHELL", shell)
    workspace = make_tiny("metal")
    killed = STAGES if shell == "/bin/sh" else STAGES[1:2]
    for stage in killed:
        children = _kill_in_stage(workspace, stage)
        assert len(children) >= 3
        wait_for(lambda: all(map(_gone, children)), 20)
        with line_locks(workspace, ["metal"]):
            mend(workspace)
            done = set(STAGES[: STAGES.index(stage)])
            assert {address.split("@")[0] for address in stale_stages(workspace, ["metal"])} == set(
                STAGES
            ) - done
    last = train_process(workspace, "metal")
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, out + err
    result = json.loads(out)["lines"][0]
    assert [address.split("@")[0] for address in result["ran"]] == list(STAGES[STAGES.index(killed[-1]) :])
    assert result["version"] == 1
    assert resolve(workspace, "metal").version == 1
    assert published_version(workspace, "metal", output_digest(workspace, "metal")) == 1
    assert close_stale_runs(workspace, "metal") == []
    assert _flow_states(workspace) == ["CRASHED"] * len(killed) + ["COMPLETED"]
    assert sorted(path.name for path in workspace.artifacts("metal", "").iterdir()) == sorted(STAGES)
