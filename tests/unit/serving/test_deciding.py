"""What a decision over HTTP answers when something fails: the truth, also once the event is written."""

import asyncio
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from novad.config import Workspace
from novad.errors import ServiceError
from novad.serving.app import build_app
from novad.serving.keys import Role, add_key
from novad.serving.service import Service
from novad.tracking import history, publish
from novad.tracking.signing import SIGNING_KEY

SENT = {"name": "Xanthippe", "reason": "zugzwang", "seen": 0, "version": 1}
BUSY = """(sqlite3.OperationalError) database is locked
[SQL: INSERT INTO registered_model_aliases (alias, name) VALUES (?, ?)]
[parameters: ('zugzwang', 'Xanthippe')]"""


@pytest.fixture
def published(tracked: Workspace) -> Workspace:
    publish(tracked, "metal")
    return tracked


def _promote(workspace: Workspace) -> tuple[int, dict[str, Any]]:
    """Status and error of a promotion of version 1; nothing in it repeats what was sent."""
    file = workspace.state / "serve" / "keys.json"
    headers = {"X-API-Key": add_key(file, Role.ADMIN)}
    app = build_app(Service(workspace, file))

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://novad", timeout=60) as client:
            return await client.post("/v1/lines/metal/promote", headers=headers, json=SENT)

    answer = asyncio.run(once())
    assert not any(word in answer.text for word in ("Xanthippe", "zugzwang"))
    return answer.status_code, answer.json().get("error", {})


def test_a_promotion_whose_alias_fails_is_told_as_decided(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MlflowException(BUSY)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", fails)
    status, error = _promote(published)
    assert (status, error["code"]) == (503, "service_failed")
    assert error["message"].startswith("metal: version 1 is champion; MLflow's alias follows when")
    assert error["message"].endswith("database is locked")
    assert [event.kind for event in history(published, "metal")] == ["promotion"]


def test_a_promotion_of_which_nobody_knows_is_told_so(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `append` says it when the answer to the commit is lost, over several lines."""
    said = (
        "metal: server closed the connection\n\tunexpectedly; whether the promotion was recorded is not known"
    )

    def lost(*_: object, **__: object) -> None:
        raise ServiceError(said)

    monkeypatch.setattr("novad.tracking.proposal.append", lost)
    assert _promote(published) == (503, {"code": "service_failed", "message": said, "image": None})


def test_a_service_without_its_settings_names_them(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SIGNING_KEY, str(published.root / "absent.pem"))
    status, error = _promote(published)
    assert (status, error["code"]) == (503, "misconfigured")
    assert SIGNING_KEY in error["message"]
    assert history(published, "metal") == []
    monkeypatch.delenv(SIGNING_KEY)
    (published.root / "mlflow").unlink()
    (published.root / "mlflow").mkdir()
    (published.root / "mlflow" / "gates.yaml").write_text("gates: [")
    status, error = _promote(published)
    assert (status, error["code"]) == (503, "misconfigured")
    assert "gates.yaml" in error["message"]
