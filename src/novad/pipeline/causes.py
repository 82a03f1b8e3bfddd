"""Why a line should be trained again, besides its schedule: what holds now and no training has answered."""

from dataclasses import dataclass
from datetime import UTC, datetime

from novad.config import RetrainSettings, Workspace, line_settings
from novad.tracking import (
    Monitored,
    acceptances,
    answered_causes,
    champion_event,
    monitor,
    verified_since_champion,
)

__all__ = ["Cause", "InService", "causes", "due_causes", "reason_of"]


@dataclass(frozen=True)
class Cause:
    """One reason to train a line again."""

    key: str
    """The same for as long as another training for it would bring nothing new."""
    reason: str
    """In words, for the record."""


@dataclass(frozen=True)
class InService:
    """What causes are judged by: a champion, and what became known since it is one."""

    version: int
    decision: int
    """Sequence of the event that made it champion."""
    since: datetime
    """Time of that event."""
    verified: int
    """Accepted images that it has not learned."""
    acceptance: int
    """Sequence of the last event by which images joined the line's data; 0 before the first."""
    drifted: tuple[str, ...] = ()
    """Figures that monitoring raises an alarm about; empty while it is quiet."""
    drift_since: str | None = None


def causes(settings: RetrainSettings, line: InService, now: datetime) -> list[Cause]:
    """The causes that hold, whether answered or not.

    - Verified images: a cause at every ``verified_images`` of them. More that trickle in after a training,
      while its version waits for approval, are a new cause only when there are as many again.
    - Drift: a cause once, and again after each acceptance of images: on the same data a training brings the
      same version.
    - Age, from the promotion or rollback that made the version champion: then a person last answered for it,
      and from then on people count. When it was trained says nothing about that. A cause every
      ``champion_days``.
    """
    found = []
    if settings.verified_images and line.verified >= settings.verified_images:
        reason = f"{_count(line.verified, 'verified image')} since version {line.version}"
        found.append(Cause(f"verified/{line.version}/{line.verified // settings.verified_images}", reason))
    if settings.on_drift and line.drifted:
        reason = f"drift of {', '.join(line.drifted)} since {(line.drift_since or 'unknown')[:16]}"
        found.append(Cause(f"drift/{line.version}/{line.acceptance}", reason))
    days = (now - line.since).days
    if settings.champion_days and days >= settings.champion_days:
        reason = f"version {line.version} has been champion for {_count(days, 'day')}"
        found.append(Cause(f"age/{line.decision}/{days // settings.champion_days}", reason))
    return found


def due_causes(workspace: Workspace, line: str, found: Monitored | None = None) -> list[Cause]:
    """The causes that hold for ``line`` and that no training has answered; none without a champion.

    A training that failed answers nothing: its causes hold at the next look.

    Args:
        found: what monitoring says; None to ask it, where drift is a cause.
    Raises:
        ConfigError: an unknown line or wrong settings.
        IntegrityError: the event log, or a record of the champion, was changed.
        ServiceError: the store cannot be reached.
    """
    settings = line_settings(workspace.params, line)
    wanted, champion = settings.retrain, champion_event(workspace, line)
    if champion is None or champion.version is None or wanted == RetrainSettings():
        return []
    if found is None and wanted.on_drift:
        found = monitor(workspace, line, settings.monitor.since)
    line_now = InService(
        version=champion.version,
        decision=champion.sequence,
        since=datetime.fromisoformat(champion.at),
        verified=verified_since_champion(workspace, line) if wanted.verified_images else 0,
        acceptance=max((each.sequence for each in acceptances(workspace, line)), default=0),
        drifted=found.drifted if found else (),
        drift_since=found.since if found else None,
    )
    answered = answered_causes(workspace, line)
    return [each for each in causes(wanted, line_now, datetime.now(UTC)) if each.key not in answered]


def reason_of(found: list[Cause]) -> str:
    """Causes as one reason."""
    return "; ".join(each.reason for each in found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"
