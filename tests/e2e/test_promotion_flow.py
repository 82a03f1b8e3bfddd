"""The flow that asks people: its form is answered through Prefect's API, as Prefect's own pages do it."""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fake_line import REPOSITORY
from novad.config import Workspace
from novad.errors import RefusedError, ServiceError
from novad.pipeline.approval import ask_for_promotion
from novad.pipeline.prefect_client import workspace_tag
from novad.tracking import Event, check, history, promote, resolve
from tracking_fixtures import publish_versions

LINE = "metal"
YES = {"approve": True, "approver": "Bea", "reason": "0 escapes on the audit set"}
Answered = Callable[[dict[str, Any]], Any]


@pytest.fixture
def published(tracked: Workspace) -> Workspace:
    """Versions 1 and 2; 1 is champion."""
    publish_versions(tracked, LINE, 2)
    promote(tracked, LINE, 1, "Ann", "first")
    return tracked


@pytest.fixture
def flow(prefect_server: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``flows/promote.py``, loaded by its path, beside a running server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    spec = importlib.util.spec_from_file_location("novad_flow_promote", REPOSITORY / "flows/promote.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}):
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, "POLL_SECONDS", 0.2)
        yield module


@contextmanager
def asking(flow: ModuleType, workspace: Workspace) -> Iterator[tuple["Future[Event]", Answered]]:
    """A flow run that waits with its form, and what answers the form."""
    from prefect import tags

    def run() -> Event:
        with tags(str(workspace.root)):
            event: Event = flow.ask(workspace.root, LINE, 2, 60)
            return event

    with waiting(run, str(workspace.root)) as both:
        yield both


@contextmanager
def waiting(run: Callable[[], Event], tag: str) -> Iterator[tuple["Future[Event]", Answered]]:
    """The same of the flow run that ``run`` starts by ``tag``."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    mine = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
    with ThreadPoolExecutor(1) as pool, get_client(sync_client=True) as client:
        # Prefect's settings are the context's: a thread without it would start a server of its own.
        running = pool.submit(copy_context().run, run)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not running.done():
            found = client.read_flow_runs(flow_run_filter=mine)
            if found and found[0].state is not None and found[0].state.is_paused():
                yield running, partial(client.resume_flow_run, found[0].id)
                return
            time.sleep(0.1)
        running.result(0)


def _told(workspace: Workspace) -> list[tuple[str, int | None, str, str]]:
    return [(event.kind, event.version, event.actor, event.reason) for event in history(workspace, LINE)[1:]]


def _accepted(answered: Answered, answer: dict[str, Any]) -> bool:
    """Answer the form; its fields reach the server a moment after the pause."""
    status = ""
    for _ in range(50):
        result = answered(answer)
        status = result.status.value
        if status == "ACCEPT" or "schema" not in str(result.details.reason).lower():
            break
        time.sleep(0.1)
    return status == "ACCEPT"


def test_an_approval_promotes_in_the_name_of_who_filled_in_the_form(
    flow: ModuleType, published: Workspace
) -> None:
    with asking(flow, published) as (running, answered):
        assert _told(published) == []
        assert not _accepted(answered, YES | {"approver": " "})
        assert not _accepted(answered, {"approve": True})
        assert _accepted(answered, YES)
        event = running.result(60)
    assert _told(published) == [("promotion", 2, "Bea", "0 escapes on the audit set")]
    assert [verdict["passed"] for verdict in event.detail["gates"]] == [True] * 5
    assert resolve(published, LINE).approver == "Bea"


def test_the_command_asks_in_the_pages_of_a_known_server(
    flow: ModuleType, published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (published.root / "flows").symlink_to(REPOSITORY / "flows")
    ask = partial(ask_for_promotion, published, LINE, 2, 60)
    with waiting(ask, workspace_tag(published)) as (running, answered):
        assert _accepted(answered, YES)
        running.result(60)
    assert _told(published) == [("promotion", 2, "Bea", "0 escapes on the audit set")]
    monkeypatch.delenv("PREFECT_API_URL")
    with pytest.raises(ServiceError, match="--ask needs a Prefect server whose pages people can open"):
        ask()


def test_a_no_is_a_rejection_by_name(flow: ModuleType, published: Workspace) -> None:
    with asking(flow, published) as (running, answered):
        assert _accepted(answered, {"approve": False, "approver": "Bea", "reason": "blurred"})
        running.result(60)
    assert _told(published) == [("rejection", 2, "Bea", "blurred")]
    assert resolve(published, LINE).version == 1


def test_a_decision_since_the_form_was_shown_refuses_the_answer(
    flow: ModuleType, published: Workspace
) -> None:
    with asking(flow, published) as (running, answered):
        promote(published, LINE, 1, "Cem", "it stays")
        assert _accepted(answered, YES)
        with pytest.raises(RefusedError, match="somebody else"):
            running.result(60)
    assert [told[:3] for told in _told(published)] == [("promotion", 1, "Cem"), ("refusal", 2, "Bea")]
    assert resolve(published, LINE).version == 1


def test_a_form_that_nobody_answers_is_a_refusal_on_record(flow: ModuleType, published: Workspace) -> None:
    with pytest.raises(RefusedError, match="nobody answered within 1 s"):
        flow.ask(published.root, LINE, 2, 1)
    [event] = history(published, LINE)[1:]
    assert (event.kind, event.version, event.actor) == ("refusal", 2, "flow novad-promote")
    assert "asked for by flow run" in event.reason
    assert "nobody answered within 1 s" in event.detail["refused"]
    assert check(published, LINE).problems == ()


def test_nobody_is_asked_about_a_version_that_fails_a_gate(flow: ModuleType, published: Workspace) -> None:
    (published.root / "mlflow").unlink()
    (published.root / "mlflow").mkdir()
    published.path("mlflow/gates.yaml").write_text("default: {hybrid_auroc: {min: 0.99}}\n")
    with pytest.raises(RefusedError, match=r"hybrid_auroc.*0\.99"):
        flow.ask(published.root, LINE, 2, 60)
    [event] = history(published, LINE)[1:]
    assert (event.kind, event.detail["gates"][0]["passed"]) == ("refusal", False)
