"""What is known about one version, from the files of its run."""

import json
from pathlib import PurePosixPath

import pandas as pd

from novad.config import Workspace
from novad.errors import IntegrityError
from novad.serving.console.answers import TestScores, VersionEvidence
from novad.tracking import PublishedRun, publications
from novad.tracking.events import champion_of, events
from novad.tracking.evidence import find_version, read_evidence
from novad.tracking.judging import judged
from novad.tracking.published import SCORES
from novad.tracking.store import open_client

__all__ = ["HEATMAPS", "version_evidence"]

HEATMAPS = "evaluate/heatmaps"
_DIGEST_START = 8


def version_evidence(workspace: Workspace, line: str, version: int) -> VersionEvidence:
    """Figures, gates, test scores and heatmaps of a published version.

    Raises:
        ConfigError: no such version, or the policy of the gates is wrong.
        IntegrityError: a file is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    run = PublishedRun.open(workspace, line, version)
    client = open_client(workspace)
    evidence = read_evidence(workspace, client, find_version(client, line, version))
    if not evidence.metrics:
        raise IntegrityError("; ".join(evidence.damaged))
    table = run.table(SCORES).to_pandas()
    champion = champion_of(events(workspace, line))
    published = next(each for each in publications(workspace, line) if each.version == version)
    return VersionEvidence(
        line=line,
        version=version,
        published_at=published.published_at,
        run_id=published.run_id,
        metrics=dict(evidence.metrics),
        thresholds=json.loads(run.read("tune_fusion/fusion.json"))["thresholds"],
        gates=judged(workspace, line, version, evidence, champion, lambda: run),
        test=TestScores(**table[list(TestScores.model_fields)].to_dict("list")),
        heatmaps=_heatmaps(run, table),
    )


def _heatmaps(run: PublishedRun, table: pd.DataFrame) -> dict[str, str]:
    """File names end in the first digits of their image's digest."""
    starts = {sha256[:_DIGEST_START]: sha256 for sha256 in table["sha256"]}
    names = [PurePosixPath(name) for name in run.names(HEATMAPS)]
    return {starts[end]: name.name for name in names if (end := name.stem[-_DIGEST_START:]) in starts}
