"""What served when, by whose decision, and whether every record and every file is still what it was."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novad.config import Workspace
from novad.config.settings import LINE_NAME
from novad.errors import ConfigError, ServiceError
from novad.tracking.decisions import last_decisions
from novad.tracking.digests import combined
from novad.tracking.events import (
    MAKES_CHAMPION,
    Event,
    champion_of,
    events,
    examine,
    heads,
    intact_events,
    threshold_event,
)
from novad.tracking.evidence import DIGEST_TAGS, VersionFiles, run_folder, version_files
from novad.tracking.model import kept_files
from novad.tracking.publications import publications
from novad.tracking.publish import FILES_RECORD
from novad.tracking.resolution import registered_aliases
from novad.tracking.store import open_client, service_errors
from novad.tracking.trace import ModelOrigin, model_origin

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Checked", "Standing", "check", "decided_lines", "parse_time", "standing"]


@dataclass(frozen=True)
class Standing:
    """Which version was the champion of a line at a time, by whose word, and which others judged since."""

    line: str
    at: str
    """UTC, ISO 8601."""
    decision: Event | None
    """The promotion or rollback in force; None when the line had no champion then."""
    model: ModelOrigin | None
    threshold: Event | None = None
    """The change of threshold in force; None where the version's own thresholds decided."""
    thresholds: Mapping[str, float] | None = None
    """Those in force: ``fail``, ``review`` and ``alpha``."""
    others: Mapping[int, str] = field(default_factory=dict)
    """Other versions that judged parts since, by the time of the last one until ``at``: a service follows
    once the new champion is loaded, and anybody may ask for a version by number."""


@dataclass(frozen=True)
class Checked:
    """What was looked at, and one sentence for everything that is not as it was recorded."""

    events: int
    versions: int
    files: int
    problems: tuple[str, ...]


def parse_time(text: str, option: str = "--at") -> datetime:
    """A moment of the past; without a zone it is UTC.

    Args:
        option: that the text was given to.
    Raises:
        ConfigError: not ISO 8601, or in the future.
    """
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(f"{option}: {text!r} is not a time such as 2026-03-31T14:00") from None
    if moment > datetime.now(UTC):
        raise ConfigError(f"{option}: {text} is in the future; nobody knows yet who will serve then")
    return moment


def decided_lines(workspace: Workspace) -> set[str]:
    """Every line in the event log, also one that is no longer among the settings.

    Raises:
        ServiceError: the store cannot be reached.
    """
    return {event.line for event in events(workspace)} | set(heads(workspace))


def standing(workspace: Workspace, line: str, at: datetime | None = None) -> Standing:
    """The champion of ``line`` at a time (default: now), and everything that it was made from.

    Raises:
        IntegrityError: the event log was changed, or the record of the version is not the published one.
        ServiceError: the store cannot be reached.
    """
    moment = (at or datetime.now(UTC)).isoformat(timespec="microseconds")
    # Now is after every event, also after one that a clock ahead of ours has dated.
    chain = [event for event in intact_events(workspace, line) if at is None or event.at <= moment]
    decision = champion_of(chain)
    if decision is None or decision.version is None:
        return Standing(line, moment, None, None)
    origin = model_origin(workspace, line, decision.version)
    changed = threshold_event(chain)
    told = origin.thresholds if changed is None else changed.detail
    in_force = {name: told[name] for name in origin.thresholds}
    judged = last_decisions(workspace, line, decision.at, moment)
    others = {version: last for version, last in judged.items() if version != decision.version}
    return Standing(line, moment, decision, origin, changed, in_force, others)


def check(workspace: Workspace, line: str) -> Checked:
    """Check the event chain, the alias, and every file of every registered version of ``line``.

    Raises:
        ServiceError: the store cannot be reached.
    """
    client = open_client(workspace)
    chain, problems = _examined(workspace, client, line)
    versions = _versions(client, line)
    problems += [
        f"{line}: version {each.version} was published and is no longer registered"
        for each in publications(workspace, line)
        if each.version not in versions
    ]
    files = 0
    for number, version in sorted(versions.items()):
        found, damaged = _file_problems(client, version)
        files += found
        damaged += _tag_problems(chain, number, version)
        problems += [f"{line} version {number}: {problem}" for problem in damaged]
    return Checked(len(chain), len(versions), files, tuple(problems))


def _examined(workspace: Workspace, client: "MlflowClient", line: str) -> tuple[list[Event], list[str]]:
    """The events, and what is wrong with them and the alias; who decided meanwhile is no forger."""
    while True:
        chain, problems = examine(workspace, line)
        astray = list(_alias_problems(chain, client, line))
        if not astray or events(workspace, line) == chain:
            return chain, problems + astray


def _alias_problems(chain: list[Event], client: "MlflowClient", line: str) -> Iterator[str]:
    event, alias = champion_of(chain), registered_aliases(client, line).get("champion")
    decided = event.version if event is not None else None
    if alias != decided:
        yield (
            f"{line}: MLflow's alias champion names version {alias}, the event log names version {decided}: "
            "the alias was set behind novad's back, or a decision was interrupted"
        )


def _versions(client: "MlflowClient", line: str) -> dict[int, "ModelVersion"]:
    # A name that no line can have stands in an event log that was changed, and breaks MLflow's query.
    if not re.fullmatch(LINE_NAME, line):
        return {}
    with service_errors(f"{line}: the registry cannot be read"):
        return {int(each.version): each for each in client.search_model_versions(f"name = '{line}'")}


def _tag_problems(chain: list[Event], number: int, version: "ModelVersion") -> list[str]:
    """Digest tags that are not those of the decisions on this version."""
    return sorted(
        {
            f"tag {name} differs from the one that event {event.sequence} recorded"
            for event in chain
            if event.kind in MAKES_CHAMPION and event.version == number
            for name in DIGEST_TAGS
            if event.detail.get(name) != version.tags.get(name)
        }
    )


def _file_problems(client: "MlflowClient", version: "ModelVersion") -> tuple[int, list[str]]:
    """Number of files that were compared, and what is wrong with them and the version's tags."""
    # What a server keeps is fetched anew: copies that this machine has would hide what happened to it.
    with tempfile.TemporaryDirectory(prefix="novad-audit-") as fresh:
        try:
            model = version_files(Workspace(Path(fresh)), client, version)
            run = run_folder(Workspace(Path(fresh)), client, version.run_id or "")
        except ServiceError as error:
            return 0, [str(error)]
        return _compared(client, version, model, run)


def _compared(
    client: "MlflowClient", version: "ModelVersion", model: VersionFiles, run: Path
) -> tuple[int, list[str]]:
    tag = version.tags.get("novad.files_digest")
    if tag is None:
        missing = "no tag novad.files_digest: published by an older novad, or the tag was removed"
        return 0, [*model.damaged, missing]
    recorded = _record(run / FILES_RECORD)
    if recorded is None or combined(recorded) != tag:
        return 0, [*model.damaged, f"{FILES_RECORD} is not the record that tag novad.files_digest stands for"]
    present = kept_files(run, "run") | kept_files(model.folder, "model")
    present.pop(f"run/{FILES_RECORD}", None)
    changed = [
        f"{name} {_how(name, recorded, present)}"
        for name in sorted(recorded | present)
        if recorded.get(name) != present.get(name)
    ]
    with service_errors(f"run {version.run_id}: cannot be read"):
        logged = client.get_run(version.run_id or "").data.tags
    lineage = (_record(run / "lineage.json") or {}).get("tags", {})
    changed += [
        f"tag {name} of its run differs from the one in lineage.json"
        for name, value in lineage.items()
        if logged.get(name) != value
    ]
    if combined(_record(run / "manifest.json") or {}) != version.tags.get("novad.output_digest"):
        changed.append("tag novad.output_digest is not that of manifest.json")
    return len(recorded), changed or list(model.damaged)


def _how(name: str, recorded: dict[str, str], present: dict[str, str]) -> str:
    if name not in present:
        return "was removed"
    return "was changed" if name in recorded else "was added"


def _record(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
