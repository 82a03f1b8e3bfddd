"""Which version judges parts now, with its files checked against what was approved."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from novad.config import Workspace
from novad.config.environment import scoring_device
from novad.errors import ConfigError, IntegrityError, ServiceError
from novad.tracking.events import Event, champion_event, champion_of, intact_events, threshold_event
from novad.tracking.evidence import DIGEST_TAGS, find_version, version_files
from novad.tracking.store import open_client, service_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from novad.vision import Detector

__all__ = [
    "ResolvedModel",
    "align_alias",
    "checked_model",
    "registered_aliases",
    "resolve",
    "version_of",
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
        """The detector, as it was checked, with the thresholds in force, on this machine's device.

        Raises:
            ConfigError: ``NOVAD_DEVICE`` names no device of this machine.
            IntegrityError: the files are not those that were checked a moment ago.
        """
        from novad.vision import Detector

        detector = Detector.load(self.folder, scoring_device())
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
    client = open_client(workspace)
    if version is not None:
        event = champion_of(intact_events(workspace, line))
        promoted = event if event is not None and event.version == version else None
        return checked_model(workspace, client, line, version, None, promoted, None)
    chain, aliases = _agreeing(workspace, client, line)
    event = champion_of(chain)
    if event is None:
        return _resolve_challenger(workspace, client, line, aliases)
    if aliases.get(_CHAMPION) != event.version:
        align_alias(workspace, client, line)
    found = checked_model(workspace, client, line, version_of(event), _CHAMPION, event, None)
    return replace(found, threshold=threshold_event(chain))


def checked_model(
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


def align_alias(workspace: Workspace, client: "MlflowClient", line: str) -> None:
    """Let the alias follow the event log; another promotion may come between, so it is read again."""
    event = champion_event(workspace, line)
    while event is not None:
        decided = f"{line}: version {event.version} is champion; MLflow's alias follows when the line is used"
        with service_errors(decided):
            client.set_registered_model_alias(line, _CHAMPION, str(event.version))
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


def version_of(event: Event) -> int:
    if event.version is None:
        raise IntegrityError(f"{event.line}: event {event.sequence} promotes no version")
    return event.version


def _agreeing(workspace: Workspace, client: "MlflowClient", line: str) -> tuple[list[Event], dict[str, int]]:
    """The event log and the aliases; where somebody decided between the two looks, it is looked again.

    Raises:
        IntegrityError: they disagree, and nobody decided.
    """
    chain = intact_events(workspace, line)
    while problem := _disagreement(champion_of(chain), aliases := registered_aliases(client, line)):
        newest = intact_events(workspace, line)
        if newest == chain:
            raise IntegrityError(f"{line}: {problem}: the alias was set behind novad's back")
        chain = newest
    return chain, aliases


def _disagreement(event: Event | None, aliases: dict[str, int]) -> str | None:
    """In words; None also where a decision was interrupted before the alias moved."""
    alias = aliases.get(_CHAMPION)
    expected: set[int | None] = {None}
    told = "no promotion is in the event log"
    if event is not None:
        expected = {event.version, event.detail.get("replaced")}
        told = f"the event log names version {event.version}"
    return None if alias in expected else f"MLflow's alias champion names version {alias}, {told}"


def _resolve_challenger(
    workspace: Workspace, client: "MlflowClient", line: str, aliases: dict[str, int]
) -> ResolvedModel:
    if _CHALLENGER not in aliases:
        raise ConfigError(f"{line}: no model is registered; run `novad train {line}` first")
    version = aliases[_CHALLENGER]
    warning = f"{line} has no champion yet: version {version} is a challenger that nobody approved"
    return checked_model(workspace, client, line, version, _CHALLENGER, None, warning)
