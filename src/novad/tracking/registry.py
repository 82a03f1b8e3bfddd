"""Gates, promotion and rollback: who becomes champion of a line, by whose decision."""

from dataclasses import asdict
from functools import partial

from novad.config import Workspace
from novad.errors import ConfigError, RefusedError
from novad.tracking.events import (
    MAKES_CHAMPION,
    Event,
    champion_of,
    champion_stack,
    events,
    intact_events,
)
from novad.tracking.evidence import DIGEST_TAGS, VERSIONS, find_version, read_evidence
from novad.tracking.gates import Verdict
from novad.tracking.judging import judged
from novad.tracking.proposal import Proposal, signature
from novad.tracking.published import PublishedRun
from novad.tracking.resolution import align_alias, checked_model, version_of
from novad.tracking.store import open_client

__all__ = ["gate", "history", "promote", "rollback"]


def gate(workspace: Workspace, line: str, version: int) -> list[Verdict]:
    """The verdict of every promotion gate on ``version``; nothing is changed.

    Raises:
        ConfigError: no such version, or ``mlflow/gates.yaml`` is wrong.
        ServiceError: the store cannot be reached.
    """
    client = open_client(workspace)
    evidence = read_evidence(workspace, client, find_version(client, line, version))
    champion = champion_of(events(workspace, line))
    opened = partial(PublishedRun.open, workspace, line, version)
    return judged(workspace, line, version, evidence, champion, opened)


def promote(
    workspace: Workspace, line: str, version: int, approver: str, reason: str, seen: int | None = None
) -> Event:
    """Make ``version`` the champion, if every gate agrees; the decision is in the event log either way.

    The event comes first and MLflow's alias follows it. Of two promotions that start from the same state,
    the second is refused.

    Args:
        approver: the person who answers for it.
        reason: why, in their words.
        seen: the newest event that the approver knew; None for the newest there is.
    Raises:
        ConfigError: no such version, no approver, no reason, or wrong policy.
        RefusedError: names each gate that failed, or says that somebody else decided first.
        IntegrityError: the event log was changed.
        ServiceError: the store cannot be reached.
    """
    approver, reason = signature(approver, reason)
    chain = intact_events(workspace, line)
    before = champion_of(chain)
    client = open_client(workspace)
    tags = find_version(client, line, version).tags
    base = len(chain) if seen is None else seen
    with Proposal(workspace, line, "promotion", version, approver, reason, base) as proposal:
        verdicts = gate(workspace, line, version)
        proposal.detail.update(
            gates=[asdict(verdict) for verdict in verdicts],
            replaced=before.version if before is not None else None,
            **{name: tags.get(name) for name in DIGEST_TAGS},
        )
        failed = [verdict for verdict in verdicts if not verdict.passed]
        if failed:
            raise RefusedError(f"{line} version {version} is not promoted: {'; '.join(map(str, failed))}")
        event = proposal.decide()
    align_alias(workspace, client, line)
    return event


def rollback(
    workspace: Workspace,
    line: str,
    approver: str,
    reason: str,
    to: int | None = None,
    seen: int | None = None,
) -> Event:
    """Make an earlier champion the champion again; its gates were judged when it was promoted.

    Two rollbacks in a row go two champions back. The event comes first and MLflow's alias follows it; of two
    decisions that start from the same state, the second is refused.

    Args:
        to: a version that was champion before; None for the one before the present champion.
        approver: the person who answers for it.
        reason: why, in their words.
        seen: the newest event that the approver knew; None for the newest there is.
    Raises:
        ConfigError: no such version, no approver or no reason.
        RefusedError: nothing to go back to, ``to`` never was champion or is so now, or somebody else decided
            first.
        IntegrityError: the event log, or a file of the version, was changed.
        ServiceError: the store cannot be reached.
    """
    approver, reason = signature(approver, reason)
    if to is not None and to not in VERSIONS:
        raise ConfigError(f"{line}: version {to} is not registered")
    chain = intact_events(workspace, line)
    stack = champion_stack(chain)
    version = to if to is not None or len(stack) < 2 else stack[-2].version
    base = len(chain) if seen is None else seen
    client = open_client(workspace)
    with Proposal(workspace, line, "rollback", version, approver, reason, base) as proposal:
        target = _former_champion(line, chain, version)
        checked_model(workspace, client, line, version_of(target), None, target, None)
        proposal.detail.update(
            replaced=stack[-1].version, **{name: target.detail.get(name) for name in DIGEST_TAGS}
        )
        event = proposal.decide()
    align_alias(workspace, client, line)
    return event


def history(workspace: Workspace, line: str) -> list[Event]:
    """Every decision about ``line``, from promotions to accepted images, oldest first.

    Raises:
        ServiceError: the store cannot be reached.
    """
    return events(workspace, line)


def _former_champion(line: str, chain: list[Event], version: int | None) -> Event:
    """The event that last made ``version`` champion, if it can be so again."""
    present = champion_of(chain)
    if present is None:
        raise RefusedError(f"{line} has no champion; there is nothing to roll back")
    if version is None:
        raise RefusedError(f"{line}: version {present.version} has no champion before it to roll back to")
    if version == present.version:
        raise RefusedError(f"{line}: version {version} is the champion already")
    former = [event for event in chain if event.kind in MAKES_CHAMPION and event.version == version]
    if not former:
        raise RefusedError(f"{line}: version {version} was never champion; promote it to have it judged")
    return former[-1]
