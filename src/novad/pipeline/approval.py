"""Ask people in Prefect's pages whether a version becomes the champion."""

from novad.config import Workspace
from novad.errors import ServiceError
from novad.pipeline.flow_files import load_flow
from novad.pipeline.prefect_client import api_url, tagged_runs, workspace_tag
from novad.tracking import Event

__all__ = ["ask_for_promotion"]


def ask_for_promotion(workspace: Workspace, line: str, version: int, wait_seconds: int) -> Event:
    """Run the flow ``novad-promote`` until its form is answered.

    Returns:
        The promotion or the rejection, by the name and reason of whoever answered.
    Raises:
        RefusedError: a gate failed, nobody answered, or somebody else decided meanwhile.
        ServiceError: no Prefect server with pages is known, or it does not answer.
    """
    url = api_url(workspace)
    if url is None:
        raise ServiceError(
            f"{workspace.root}: --ask needs a Prefect server whose pages people can open: start one with "
            "`novad up`, or name one in PREFECT_API_URL"
        )
    import httpx

    try:
        # Not the tag of a training: whoever trains the line closes what carries that one.
        with tagged_runs(url, [workspace_tag(workspace), f"promotion:{line}"]):
            event: Event = load_flow(workspace, "promote").ask(workspace.root, line, version, wait_seconds)
            return event
    except httpx.HTTPError as error:
        raise ServiceError(f"Prefect at {url}: {error or type(error).__name__}") from error
