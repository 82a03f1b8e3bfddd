"""Which version judges parts, who decided so, and whether its files are still the ones that were approved."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError, ServiceError
from novad.tracking.events import (
    MAKES_CHAMPION,
    Event,
    append,
    champion_event,
    champion_of,
    champion_stack,
    events,
    intact_events,
    threshold_event,
)
from novad.tracking.evidence import DIGEST_TAGS, find_version, read_evidence, version_files
from novad.tracking.gates import Verdict, judge, line_policy
from novad.tracking.store import open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from novad.vision import Detector

__all__ = [
    "ResolvedModel",
    "decide",
    "gate",
    "history",
    "promote",
    "registered_aliases",
    "require_signature",
    "resolve",
    "rollback",
]

_CHAMPION = "champion"
_CHALLENGER = "challenger"


@dataclass(frozen=True)
class ResolvedModel:
    """A version whose files were checked a moment ago."""

    line: str
    version: int
    alias: str | None
    """`champion`, `challenger`, or None for a version that was asked for by number."""
    folder: Path
    """The detector, for ``Detector.load``."""
    run_id: str
    detector_digest: str
    decision: Event | None
    """The promotion or rollback that made it champion; None for anything but a champion."""
    warning: str | None
    """What the user should know about the choice."""
    threshold: Event | None = None
    """The change of threshold in force, for the champion."""

    @property
    def approver(self) -> str | None:
        """Who decided that it is champion."""
        return self.decision.actor if self.decision is not None else None

    def load(self) -> "Detector":
        """The detector, as it was checked, with the thresholds in force.

        Raises:
            IntegrityError: the files are not those that were checked a moment ago.
        """
        from novad.vision import Detector

        detector = Detector.load(self.folder)
        if detector.digest != self.detector_digest:
            raise IntegrityError(f"{self.line}: the detector was exchanged while it was loaded")
        if self.threshold is None:
            return detector
        told = self.threshold.detail
        return detector.with_thresholds(told["fail"], told["review"], told["alpha"])


def resolve(workspace: Workspace, line: str, version: int | None = None) -> ResolvedModel:
    """The version to score with: the one asked for, else the champion, else, flagged, the challenger.

    The event log says who is champion; MLflow's alias is its image. An alias that was not yet moved when
    a promotion was killed is moved now; any other difference is refused.

    Raises:
        ConfigError: no such version, or nothing registered.
        IntegrityError: the event log, the alias or a file of the model was changed.
        ServiceError: the store cannot be reached.
    """
    chain = intact_events(workspace, line)
    event = champion_of(chain)
    client = open_client(workspace)
    if version is not None:
        promoted = event if event is not None and event.version == version else None
        return _checked(workspace, client, line, version, None, promoted, None)
    aliases = registered_aliases(client, line)
    if event is None:
        return _resolve_challenger(workspace, client, line, aliases)
    alias = aliases.get(_CHAMPION)
    if alias not in {event.version, event.detail.get("replaced")}:
        raise IntegrityError(
            f"{line}: MLflow's alias champion names version {alias}, the event log names version "
            f"{event.version}: the alias was set behind novad's back"
        )
    if alias != event.version:
        _align(workspace, client, line)
    found = _checked(workspace, client, line, _version(event), _CHAMPION, event, None)
    return replace(found, threshold=threshold_event(chain))


def gate(workspace: Workspace, line: str, version: int) -> list[Verdict]:
    """The verdict of every promotion gate on ``version``; nothing is changed.

    Raises:
        ConfigError: no such version, or ``mlflow/gates.yaml`` is wrong.
        ServiceError: the store cannot be reached.
    """
    policy = line_policy(workspace, line)
    client = open_client(workspace)
    return judge(policy, read_evidence(workspace, client, find_version(client, line, version)))


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
    require_signature(approver, reason)
    chain = intact_events(workspace, line)
    before = champion_of(chain)
    verdicts = gate(workspace, line, version)
    client = open_client(workspace)
    tags = find_version(client, line, version).tags
    detail = {
        "gates": [asdict(verdict) for verdict in verdicts],
        "replaced": before.version if before is not None else None,
        **{name: tags.get(name) for name in DIGEST_TAGS},
    }
    failed = [verdict for verdict in verdicts if not verdict.passed]
    if failed:
        append(workspace, line, "refusal", actor=approver, reason=reason, version=version, detail=detail)
        raise RefusedError(f"{line} version {version} is not promoted: {'; '.join(map(str, failed))}")
    base = len(chain) if seen is None else seen
    return decide(workspace, client, line, "promotion", version, approver, reason, detail, base)


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
        ConfigError: no approver or no reason.
        RefusedError: nothing to go back to, ``to`` never was champion or is so now, or somebody else decided
            first.
        IntegrityError: the event log, or a file of the version, was changed.
        ServiceError: the store cannot be reached.
    """
    require_signature(approver, reason)
    chain = intact_events(workspace, line)
    present, target = _rollback_target(line, chain, to)
    version = _version(target)
    client = open_client(workspace)
    _checked(workspace, client, line, version, None, target, None)
    detail = {"replaced": present.version, **{name: target.detail.get(name) for name in DIGEST_TAGS}}
    base = len(chain) if seen is None else seen
    return decide(workspace, client, line, "rollback", version, approver, reason, detail, base)


def history(workspace: Workspace, line: str) -> list[Event]:
    """Every decision about ``line``, from promotions to accepted images, oldest first.

    Raises:
        ServiceError: the store cannot be reached.
    """
    return events(workspace, line)


def require_signature(approver: str, reason: str) -> None:
    """Raises:
    ConfigError: a decision without a name or a reason.
    """
    for name, value in (("approver", approver), ("reason", reason)):
        if not value.strip():
            raise ConfigError(f"--{name}: must not be empty: a decision is signed and explained")


def _rollback_target(line: str, chain: list[Event], to: int | None) -> tuple[Event, Event]:
    """The event of the present champion, and that of the one to go back to."""
    stack = champion_stack(chain)
    if not stack:
        raise RefusedError(f"{line} has no champion; there is nothing to roll back")
    present = stack[-1]
    if to is None:
        if len(stack) < 2:
            raise RefusedError(f"{line}: version {present.version} has no champion before it to roll back to")
        return present, stack[-2]
    if to == present.version:
        raise RefusedError(f"{line}: version {to} is the champion already")
    former = [event for event in chain if event.kind in MAKES_CHAMPION and event.version == to]
    if not former:
        raise RefusedError(f"{line}: version {to} was never champion; promote it, so that gates judge it")
    return present, former[-1]


def decide(
    workspace: Workspace,
    client: "MlflowClient",
    line: str,
    kind: str,
    version: int,
    approver: str,
    reason: str,
    detail: dict[str, Any],
    base: int,
) -> Event:
    """Append the decision if nobody decided since ``base``, and let the alias follow.

    Raises:
        RefusedError: somebody else decided first; that is recorded too.
        IntegrityError: the event log was changed.
        ServiceError: the store cannot be reached.
    """
    told: dict[str, Any] = {"actor": approver, "reason": reason, "version": version}
    try:
        event = append(workspace, line, kind, **told, detail=detail, expected=base)
    except IntegrityError:
        raise
    except RefusedError as error:
        append(workspace, line, "refusal", **told, detail={**detail, "conflict": str(error)})
        raise
    _align(workspace, client, line)
    return event


def _resolve_challenger(
    workspace: Workspace, client: "MlflowClient", line: str, aliases: dict[str, int]
) -> ResolvedModel:
    if _CHAMPION in aliases:
        raise IntegrityError(
            f"{line}: MLflow's alias champion names version {aliases[_CHAMPION]}, but no promotion is in the "
            "event log: the alias was set behind novad's back"
        )
    if _CHALLENGER not in aliases:
        raise ConfigError(f"{line}: no model is registered; run `novad train {line}` first")
    version = aliases[_CHALLENGER]
    warning = f"{line} has no champion yet: version {version} is a challenger that nobody approved"
    return _checked(workspace, client, line, version, _CHALLENGER, None, warning)


def _checked(
    workspace: Workspace,
    client: "MlflowClient",
    line: str,
    number: int,
    alias: str | None,
    event: Event | None,
    warning: str | None,
) -> ResolvedModel:
    version = find_version(client, line, number)
    files = version_files(workspace, client, version)
    damaged = list(files.damaged)
    if event is not None:
        damaged += [
            f"tag {name} of version {number} differs from the promotion's"
            for name in DIGEST_TAGS
            if event.detail.get(name) != version.tags.get(name)
        ]
    if damaged:
        raise IntegrityError(f"{line}: {'; '.join(damaged)}; the model is not used")
    return ResolvedModel(
        line=line,
        version=number,
        alias=alias,
        folder=files.detector,
        run_id=version.run_id or "",
        detector_digest=version.tags["novad.detector_digest"],
        decision=event,
        warning=warning,
    )


def _align(workspace: Workspace, client: "MlflowClient", line: str) -> None:
    """Let the alias follow the event log; another promotion may come between, so it is read again."""
    from mlflow.exceptions import MlflowException

    event = champion_event(workspace, line)
    while event is not None:
        try:
            client.set_registered_model_alias(line, _CHAMPION, str(event.version))
        except MlflowException as error:
            raise ServiceError(f"{line}: the alias champion cannot be set: {error}") from error
        newest = champion_event(workspace, line)
        if newest == event:
            return
        event = newest


def registered_aliases(client: "MlflowClient", line: str) -> dict[str, int]:
    """MLflow's aliases of a line, by name.

    Raises:
        ServiceError: the registry cannot be read.
    """
    from mlflow.exceptions import MlflowException

    try:
        model = client.get_registered_model(line)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise ServiceError(f"{line}: the registry cannot be read: {error}") from error
    return {alias: int(version) for alias, version in model.aliases.items()}


def _version(event: Event) -> int:
    if event.version is None:
        raise IntegrityError(f"{event.line}: event {event.sequence} promotes no version")
    return event.version
