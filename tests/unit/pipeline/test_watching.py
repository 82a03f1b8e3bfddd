"""One look at a line in service: what it says, and which training it starts."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from monitored_line import log_parts, make_champion, parts
from novad.config import Workspace
from novad.errors import RefusedError, ServiceError
from novad.pipeline.deployments import deploy
from novad.pipeline.line_runs import line_runs
from novad.pipeline.prefect_client import workspace_tag
from novad.pipeline.watching import watch_line
from novad.tracking import record_answers

DIMMED = np.random.default_rng(1).normal(0.6 - 0.08 * (np.arange(300) >= 150), 0.02)
DRIFT = "drift of brightness since 2026-01-01T02:3"


@pytest.fixture
def watched(make_tracked: Callable[..., Workspace], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Line `metal`, with a champion, that drift is to retrain, and line `other`, without."""
    workspace = make_tracked("other", "metal")
    make_champion(workspace)
    workspace.params.write_text(workspace.params.read_text() + "    retrain: {on_drift: true}\n")
    monkeypatch.setenv("NOVAD_WORKSPACE", str(workspace.root))
    return workspace


def _look(workspace: Workspace) -> str:
    with pytest.raises(RefusedError) as caught:
        watch_line(workspace, "metal")
    return str(caught.value)


def test_a_quiet_line_and_one_without_a_champion_complete(watched: Workspace) -> None:
    log_parts(watched, parts(40))
    quiet, other = watch_line(watched, "metal"), watch_line(watched, "other")
    assert (quiet.name, quiet.message) == ("Completed", "quiet on 40 parts")
    assert (other.is_completed(), other.name) == (True, "NoChampion")
    assert other.message == "other has no champion yet: nothing to watch"


def test_an_alarm_reaches_people_although_no_training_can_be_started(
    watched: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[Any] = []
    monkeypatch.setattr("novad.pipeline.watching.post_alarm", lambda *told: posted.append(told))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    text = watched.params.read_text()
    watched.params.write_text(text + "    monitor: {webhook: 'http://127.0.0.1:9/alarm'}\n")
    log_parts(watched, parts(300, brightness=DIMMED))
    with pytest.raises(ServiceError, match="no Prefect server is known: start one"):
        watch_line(watched, "metal")
    [(address, report)] = posted
    assert (address, report.drifted) == ("http://127.0.0.1:9/alarm", ("brightness",))


def test_a_cause_starts_one_training_until_that_fails_and_none_once_it_is_answered(
    watched: Workspace, client: Any
) -> None:
    from prefect.states import Completed, Failed

    deploy(watched)
    log_parts(watched, parts(300, brightness=DIMMED))
    flow = importlib.import_module("flows.monitor").watch
    state = flow("metal", return_state=True)
    assert state.is_failed()
    assert f"metal: drift of brightness; training for {DRIFT}" in state.message
    [first] = client.read_flow_runs(sort="ID_DESC", **_of_trainings(watched))
    assert (first.parameters["line"], first.parameters["causes"]) == ("metal", ["drift/1/0"])
    assert first.parameters["reason"].startswith(DRIFT)
    assert {"line:metal", "cause:drift/1/0"} <= set(first.tags)
    # It waits for a worker: looks that come before it has ended do not ask again.
    _look(watched)
    assert [run.id for run in client.read_flow_runs(**_of_trainings(watched))] == [first.id]
    for _ in range(2):
        before = {run.id for run in client.read_flow_runs(**_of_trainings(watched))}
        [newest] = [
            run for run in client.read_flow_runs(**_of_trainings(watched)) if not run.state.is_final()
        ]
        client.set_flow_run_state(newest.id, Failed(message="part-07.png is empty"), force=True)
        assert "training for" in _look(watched)
        assert len({run.id for run in client.read_flow_runs(**_of_trainings(watched))} - before) == 1
    assert str(line_runs(watched)["metal"].last_reason).startswith(DRIFT)

    record_answers(watched, "metal", ["drift/1/0"])
    [newest] = [run for run in client.read_flow_runs(**_of_trainings(watched)) if not run.state.is_final()]
    client.set_flow_run_state(newest.id, Completed(name="Unchanged"), force=True)
    assert _look(watched) == "metal: drift of brightness"
    assert len(client.read_flow_runs(**_of_trainings(watched))) == 3


def _of_trainings(workspace: Workspace) -> dict[str, Any]:
    """Of this workspace alone: other tests leave theirs on the server."""
    from prefect.client.schemas.filters import (
        FlowFilter,
        FlowFilterName,
        FlowRunFilter,
        FlowRunFilterTags,
    )

    return {
        "flow_filter": FlowFilter(name=FlowFilterName(any_=["novad-retrain"])),
        "flow_run_filter": FlowRunFilter(tags=FlowRunFilterTags(all_=[workspace_tag(workspace)])),
    }
