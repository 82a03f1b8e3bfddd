"""A client of a running Prefect server."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.pipeline.prefect_client import prefect_client


@pytest.fixture
def client(prefect_server: Path) -> Iterator[Any]:
    """Of a running server, with no deployment left of another test."""
    with prefect_client(os.environ["PREFECT_API_URL"]) as client:
        for each in client.read_deployments():
            client.delete_deployment(each.id)
        yield client
