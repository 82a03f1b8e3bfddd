"""What a report is about: one version with its evidence, its gates and where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking import Event, PublishedRun, Verdict, publications
from novad.tracking.events import champion_of, examine, threshold_event
from novad.tracking.evidence import find_version, read_evidence
from novad.tracking.gates import Evidence
from novad.tracking.judging import judged
from novad.tracking.published import METRICS, SCORES
from novad.tracking.review import VersionStanding, challenger, version_standing
from novad.tracking.store import open_client

__all__ = ["Subject", "fresh_subject", "registered_subject"]


@dataclass(frozen=True)
class Subject:
    """Everything that is known about one version at one moment."""

    run: PublishedRun
    evidence: Evidence
    scores: pd.DataFrame
    """One row per test image."""
    thresholds: Mapping[str, float]
    """`fail`, `review` and `alpha` in force."""
    changed_threshold: Event | None
    """The decision that put them in place of the version's own."""
    gates: list[Verdict]
    gate_problem: str | None
    """Why no gate could be judged."""
    events: list[Event]
    """Of the line, oldest first."""
    log_problems: list[str]
    """What is wrong with the event log."""
    standing: VersionStanding | None
    """None while the version is being published."""
    champion: Event | None
    """The decision that made the line's champion."""
    challenger: int | None
    """The newest version after the champion that nobody decided on."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Its ``metrics.json``."""
        return self.evidence.metrics


def registered_subject(workspace: Workspace, line: str, version: int | None) -> Subject:
    """A registered version; None for the champion, or the newest version of a line without one.

    Raises:
        ConfigError: nothing is registered, or no such version.
        IntegrityError: a file of its evidence is not the one that was published.
        ServiceError: the store cannot be reached, or the files are gone.
    """
    known = [each.version for each in publications(workspace, line)]
    if not known:
        raise ConfigError(f"{line}: no model is registered; run `novad train {line}` first")
    if version is None:
        champion = champion_of(examine(workspace, line)[0])
        version = known[-1] if champion is None or champion.version is None else champion.version
    run = PublishedRun.open(workspace, line, version)
    client = open_client(workspace)
    evidence = read_evidence(workspace, client, find_version(client, line, version))
    if not evidence.metrics or not evidence.report:
        raise IntegrityError(f"{line}: {'; '.join(evidence.damaged)}")
    return _subject(run, evidence)


def fresh_subject(run: PublishedRun) -> Subject:
    """A version whose files are being published: nobody can have decided on it yet."""
    return _subject(run, Evidence(run.document(METRICS), run.document("validate/report.json"), damaged=()))


def _subject(run: PublishedRun, evidence: Evidence) -> Subject:
    events, problems = examine(run.workspace, run.line)
    champion = champion_of(events)
    present = champion.version if champion is not None else None
    own: Mapping[str, float] = run.document("tune_fusion/fusion.json")["thresholds"]
    changed = threshold_event(events) if run.version is not None and run.version == present else None
    told = own if changed is None else changed.detail
    gates, gate_problem = _gates(run, evidence, champion)
    versions = [each.version for each in publications(run.workspace, run.line)]
    return Subject(
        run=run,
        evidence=evidence,
        scores=run.table(SCORES).to_pandas(),
        thresholds={name: told[name] for name in ("fail", "review", "alpha")},
        changed_threshold=changed,
        gates=gates,
        gate_problem=gate_problem,
        events=events,
        log_problems=problems,
        standing=None if run.version is None else version_standing(run.version, events, present),
        champion=champion,
        challenger=challenger(versions, events, present),
    )


def _gates(run: PublishedRun, evidence: Evidence, champion: Event | None) -> tuple[list[Verdict], str | None]:
    """A wrong policy must not keep a trained line from being published."""
    try:
        return judged(run.workspace, run.line, run.version, evidence, champion, lambda: run), None
    except ConfigError as error:
        return [], str(error)
