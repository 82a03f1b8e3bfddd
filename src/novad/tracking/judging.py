"""The verdict of every promotion gate on one version, beside the champion where the policy asks for that."""

from collections.abc import Callable
from dataclasses import replace

from novad.config import Workspace
from novad.errors import IntegrityError, ServiceError
from novad.tracking.events import Event
from novad.tracking.gates import NOT_WORSE, BesideChampion, Evidence, Verdict, judge, line_policy
from novad.tracking.published import PublishedRun

__all__ = ["judged"]


def judged(
    workspace: Workspace,
    line: str,
    version: int | None,
    evidence: Evidence,
    champion: Event | None,
    opened: Callable[[], PublishedRun],
) -> list[Verdict]:
    """Judge a version by the policy of its line.

    Args:
        version: which; None while it is being published.
        evidence: of the version.
        champion: what made the present one that; None where there is none.
        opened: the version's own run; asked only for what is compared.
    Raises:
        ConfigError: the policy is wrong.
    """
    policy = line_policy(workspace, line)
    present = None if champion is None else champion.version
    if NOT_WORSE in policy and present is not None and present != version:
        evidence = replace(evidence, champion=_beside(workspace, line, present, opened))
    return judge(policy, evidence)


def _beside(
    workspace: Workspace, line: str, champion: int, opened: Callable[[], PublishedRun]
) -> BesideChampion | str:
    """Why nothing can be compared is told by the gate: a damaged file must not end as an error here."""
    from novad.tracking.comparison import compared  # loads pandas

    try:
        images, figures = compared(PublishedRun.open(workspace, line, champion), opened(), "hybrid")
    except (IntegrityError, ServiceError) as error:
        return str(error)
    told = figures.get("auroc", {})
    return BesideChampion(champion, images, told.get("value"), told.get("ci95"))
