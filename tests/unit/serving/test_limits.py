"""The limit of requests at once, and what it leaves alone."""

import asyncio
from pathlib import Path

import httpx

from novad.config import Workspace
from novad.serving.app import build_app
from novad.serving.service import Service
from novad.serving.uploads import Limits


def _ask(service: Service, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://novad") as client:
            return await client.get(path)

    return asyncio.run(ask())


def test_a_saturated_service_is_healthy_and_tells_whether_it_is_ready(tmp_path: Path) -> None:
    """`novad up` ends what is not healthy for a minute."""
    service = Service(Workspace(tmp_path), tmp_path / "keys.json", limits=Limits(requests=0))
    refused, healthy, ready = (_ask(service, path) for path in ("/v1/lines", "/healthz", "/readyz"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_busy")
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "no_champion")
