"""The version beside the other one that matters: champion and challenger on the same test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.report.subject import Subject
from novad.tracking import PublishedRun
from novad.tracking.comparison import compared
from novad.tracking.events import champion_stack
from novad.tracking.published import METRICS

__all__ = ["Beside", "beside"]


@dataclass(frozen=True)
class Beside:
    """Another version, and what this one differs from it by."""

    version: int
    role: str
    """`champion`, `challenger` or `champion before it`."""
    problem: str | None
    """Why the two cannot be compared."""
    metrics: Mapping[str, Any]
    images: int
    """Test images that both judged."""
    differences: Mapping[str, Mapping[str, Any]]
    """This version less the other: ``value``, ``ci95`` and ``p_value`` by figure."""


def beside(subject: Subject) -> Beside | None:
    """The champion beside any other version; beside the champion the challenger, or else the one before it.

    None where there is no such version.
    """
    run = subject.run
    found = _other(subject)
    if found is None:
        return None
    version, role = found
    try:
        other = PublishedRun.open(run.workspace, run.line, version)
        images, differences = compared(other, run, "hybrid")
        return Beside(version, role, None, other.document(METRICS), images, differences)
    except (ConfigError, IntegrityError, ServiceError) as error:
        return Beside(version, role, str(error), {}, 0, {})


def _other(subject: Subject) -> tuple[int, str] | None:
    stack = [event.version for event in champion_stack(subject.events) if event.version is not None]
    if subject.standing != "champion":
        return (stack[-1], "champion") if stack else None
    if subject.challenger is not None:
        return subject.challenger, "challenger"
    return (stack[-2], "champion before it") if len(stack) > 1 else None
