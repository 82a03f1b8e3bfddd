"""Acceptances as the event log tells them, and what they mean for the champion."""

import sqlite3
from collections.abc import Callable

import pytest

from fake_line import write_outputs
from novad.config import Workspace
from novad.errors import IntegrityError
from novad.tracking import (
    DATA_ACCEPTED,
    acceptances,
    give_verdict,
    log_decisions,
    promote,
    publish,
    trace,
    verified_since_champion,
)
from novad.tracking.events import append
from novad.tracking.trace import ImageTrace
from tracking_fixtures import logged_decision

# The one image that the fake line's versions know.
KNOWN = "0" * 64
NEW, OTHER = "ab" * 32, "cd" * 32


def _accept(workspace: Workspace, *digests: str, line: str = "metal") -> None:
    images = [
        {"sha256": each, "path": f"train/good/{each[:4]}.png", "prediction_id": f"p-{each[:4]}"}
        for each in digests
    ]
    detail = {"data": {"before": "old", "after": "new"}, "images": images}
    append(workspace, line, DATA_ACCEPTED, actor="ben", reason="looked", detail=detail)


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    """Line `metal` with version 1."""
    return with_versions(1)


def test_what_the_champion_has_not_seen_counts_once(published: Workspace) -> None:
    assert verified_since_champion(published, "metal") == 0
    _accept(published, NEW, KNOWN)
    _accept(published, NEW, OTHER)
    _accept(published, "ef" * 32, line="glass")
    # Nobody is champion yet: all of them are new.
    assert verified_since_champion(published, "metal") == 3
    promote(published, "metal", 1, "ada", "first")
    assert verified_since_champion(published, "metal") == 2
    assert [each.sha256 for each in acceptances(published, "glass")] == ["ef" * 32]


def test_a_challenger_that_learned_from_them_changes_nothing_before_it_is_champion(
    published: Workspace,
) -> None:
    import pandas as pd

    promote(published, "metal", 1, "ada", "first")
    _accept(published, NEW)
    write_outputs(published, "metal", auroc=0.95, seed=1)
    manifest = published.artifacts("metal", "validate") / "manifest.parquet"
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "split": "bank", "sha256": [KNOWN, NEW]})
    frame.to_parquet(manifest)
    publish(published, "metal")
    assert verified_since_champion(published, "metal") == 1
    promote(published, "metal", 2, "ada", "second")
    assert verified_since_champion(published, "metal") == 0


def test_an_image_leads_to_verdict_acceptance_and_the_versions_that_used_it(published: Workspace) -> None:
    decision = logged_decision(image_sha256=KNOWN, decision="FAIL")
    log_decisions(published, [decision])
    verdict = give_verdict(published, decision, "good", "ada", "clean")
    _accept(published, KNOWN, OTHER)
    found = trace(published, KNOWN)
    assert isinstance(found, ImageTrace)
    [accepted] = found.acceptances
    assert (accepted.line, accepted.sequence, accepted.approver, accepted.reason) == (
        "metal",
        1,
        "ben",
        "looked",
    )
    assert (accepted.path, accepted.data_after) == ("train/good/0000.png", "new")
    assert found.verdicts == (verdict,)
    assert [(use.version, use.split) for use in found.versions] == [(1, "bank")]


def test_nothing_is_told_from_a_log_that_was_edited(published: Workspace) -> None:
    _accept(published, KNOWN)
    with sqlite3.connect(published.state / "mlflow.db") as connection:
        connection.execute("UPDATE novad_events SET detail = replace(detail, '0000', '1111')")
    for ask in (
        lambda: acceptances(published, "metal"),
        lambda: verified_since_champion(published, "metal"),
        lambda: trace(published, KNOWN),
    ):
        with pytest.raises(IntegrityError, match="edited"):
            ask()


def test_before_the_first_event_nothing_was_accepted(workspace: Workspace) -> None:
    assert acceptances(workspace) == []
    assert verified_since_champion(workspace, "metal") == 0
    assert not workspace.state.exists()
