"""The version beside the other one that matters: champion and challenger on the same test images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.report.subject import Subject
from novad.tracking import PublishedRun
from novad.tracking.comparison import compared
from novad.tracking.published import METRICS

__all__ = ["Beside", "beside"]


@dataclass(frozen=True)
class Beside:
    """Another version, and what this one differs from it by."""

    version: int
    role: str
    """`champion` or `challenger`."""
    problem: str | None
    """Why the two cannot be compared."""
    metrics: Mapping[str, Any]
    images: int
    """Test images that both judged."""
    differences: Mapping[str, Mapping[str, Any]]
    """This version less the other: ``value``, ``ci95`` and ``p_value`` by figure."""


def beside(subject: Subject) -> Beside | None:
    """The champion beside any other version, the challenger beside the champion; None without such a one."""
    run = subject.run
    champion = subject.champion.version if subject.champion is not None else None
    is_champion = run.version is not None and run.version == champion
    version, role = (subject.challenger, "challenger") if is_champion else (champion, "champion")
    if version is None:
        return None
    try:
        other = PublishedRun.open(run.workspace, run.line, version)
        images, differences = compared(other, run, "hybrid")
        return Beside(version, role, None, other.document(METRICS), images, differences)
    except (ConfigError, IntegrityError, ServiceError) as error:
        return Beside(version, role, str(error), {}, 0, {})
