"""Prefect's server as novad starts it: it takes orders from its clients and from no foreign web page."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from novad.config import Workspace
from novad.pipeline.services import Ports, plan

FOREIGN = "http://evil.example"


def _asked(origin: str) -> httpx.Response:
    """What a browser asks before it lets a page of ``origin`` post JSON."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return httpx.options(
        f"{os.environ['PREFECT_API_URL']}/flows/",
        headers=headers | {"Access-Control-Request-Headers": "content-type,prefect-csrf-token"},
    )


def test_no_foreign_page_reads_or_writes_and_clients_do(client: Any) -> None:
    api = os.environ["PREFECT_API_URL"]
    own = api.removesuffix("/api")
    assert _asked(FOREIGN).status_code == 400
    for origin in (own, own.replace("127.0.0.1", "localhost")):
        assert _asked(origin).headers["access-control-allow-origin"] == origin
    # What a browser sends without asking before.
    plain = {"Origin": FOREIGN, "Content-Type": "text/plain"}
    refused = httpx.post(f"{api}/flows/", content='{"name": "foreign"}', headers=plain)
    assert (refused.status_code, refused.json()["detail"]) == (403, "Missing CSRF token.")
    token = httpx.get(f"{api}/csrf-token?client=foreign", headers={"Origin": FOREIGN})
    assert "access-control-allow-origin" not in token.headers
    assert client.read_flow(client.create_flow_from_name("own")).name == "own"


def test_the_server_of_novad_up_is_guarded_at_its_own_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    [server] = [each for each in plan(Workspace(tmp_path), Ports()) if each.name == "prefect"]
    told = server.environment
    assert server.url in told["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert told["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
