"""Where every line stands: champion, challenger and versions, from the event log and the publications."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from novad.config import Workspace
from novad.serving.champions import LineState
from novad.serving.console.answers import (
    ChampionAnswer,
    DriftAnswer,
    LineReview,
    ReviewAnswer,
    VersionAnswer,
)
from novad.serving.keys import Role
from novad.tracking import Event, Monitored, Publication, decision_counts, publications
from novad.tracking.events import champion_stack, examine
from novad.tracking.review import challenger, version_standing

__all__ = ["overview"]

_COUNTED = timedelta(hours=24)


def overview(
    workspace: Workspace, states: Mapping[str, LineState], role: Role, drift: Mapping[str, Monitored]
) -> ReviewAnswer:
    """Every line that has a version or a decision.

    Args:
        states: what the service has loaded.
        role: of the key that asks.
        drift: what monitoring found at its last look.
    Raises:
        ServiceError: the store cannot be reached.
    """
    events, problems = examine(workspace)
    published = publications(workspace)
    counts = decision_counts(workspace, datetime.now(UTC) - _COUNTED)
    names = {each.line for each in published} | {each.line for each in events}
    lines = [
        _line(
            name,
            [event for event in events if event.line == name],
            [each for each in published if each.line == name],
            states.get(name, LineState()),
            counts.get(name, {}),
            drift.get(name),
        )
        for name in sorted(names)
    ]
    return ReviewAnswer(role=role.name.lower(), lines=lines, log_problems=problems)


def _line(
    name: str,
    chain: Sequence[Event],
    published: Sequence[Publication],
    state: LineState,
    counts: dict[str, int],
    drift: Monitored | None,
) -> LineReview:
    stack = champion_stack(chain)
    champion = stack[-1] if stack else None
    present = champion.version if champion is not None else None
    versions = [
        VersionAnswer(
            version=each.version,
            published_at=each.published_at,
            standing=version_standing(each.version, chain, present),
        )
        for each in published
    ]
    return LineReview(
        line=name,
        champion=_champion(champion) if champion is not None else None,
        in_service=state.champion.version if state.champion else None,
        problem=state.problem,
        challenger=challenger((each.version for each in published), chain, present),
        former=stack[-2].version if len(stack) > 1 else None,
        versions=versions,
        seen=chain[-1].sequence if chain else 0,
        decisions=counts,
        drift=DriftAnswer(verdict=drift.verdict, drifted=drift.drifted, since=drift.since) if drift else None,
    )


def _champion(event: Event) -> ChampionAnswer:
    return ChampionAnswer(
        version=event.version or 0,
        approver=event.actor,
        reason=event.reason,
        kind=event.kind,
        at=event.at,
    )
