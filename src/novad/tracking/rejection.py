"""Turning a version down: a decision by name and reason, as an approval is one."""

from novad.config import Workspace
from novad.errors import RefusedError
from novad.tracking.events import Event, champion_of, intact_events
from novad.tracking.evidence import find_version
from novad.tracking.proposal import Proposal, signature
from novad.tracking.store import open_client

__all__ = ["reject"]


def reject(
    workspace: Workspace, line: str, version: int, reviewer: str, reason: str, seen: int | None = None
) -> Event:
    """Record that ``version`` was looked at and turned down; champion and aliases stay as they are.

    A later promotion of it stays possible: it is another decision, by name and reason, in the same log.

    Args:
        reviewer: the person who answers for it.
        reason: why, in their words.
        seen: the newest event that the reviewer knew; None for the newest there is.
    Raises:
        ConfigError: no such version, no reviewer or no reason.
        RefusedError: it is the champion, which is rolled back instead; or somebody else decided first.
        IntegrityError: the event log was changed.
        ServiceError: the store cannot be reached.
    """
    reviewer, reason = signature(reviewer, reason)
    chain = intact_events(workspace, line)
    champion = champion_of(chain)
    find_version(open_client(workspace), line, version)
    base = len(chain) if seen is None else seen
    with Proposal(workspace, line, "rejection", version, reviewer, reason, base) as proposal:
        if champion is not None and champion.version == version:
            raise RefusedError(f"{line}: version {version} is the champion; roll it back instead")
        return proposal.decide()
