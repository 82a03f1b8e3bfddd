"""The decision log: what is written is found again, whole batches or nothing, by many writers at once."""

import math
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError as DuplicateKey

from novad.config import Workspace
from novad.images.fingerprint import GreyStatistics
from novad.tracking import latest_decisions
from novad.tracking.decisions import LoggedDecision, decide_now, decisions_on, find_decision, log_decisions
from novad.tracking.events import append, events
from novad.vision import Detection, NearestNormal

DETECTION = Detection(
    familiarity=0.1,
    novelty=-0.2,
    hybrid=1 / 3,
    p_value=0.05,
    decision="REVIEW",
    nearest=NearestNormal("train/good/7.png", "cd" * 32, 1, 2, 0.25),
    size=(8, 8),
    coarse_maps={"hybrid": np.zeros((2, 2), np.float32)},
)


def _decision(
    source: str = "a.png", image: str = "ab" * 32, shadow: bool = False, detection: Detection = DETECTION
) -> LoggedDecision:
    return decide_now(
        detection,
        GreyStatistics(0.5, 0.1, 0.05),
        line="metal",
        version=3,
        detector_digest="ef" * 32,
        image_sha256=image,
        source=source,
        latency_ms=12.5,
        shadow=shadow,
    )


def test_a_decision_is_found_by_its_id_and_by_its_image_as_it_was_written(workspace: Workspace) -> None:
    told, shadow, other = _decision(), _decision(shadow=True), _decision(image="00" * 32)
    log_decisions(workspace, [told, shadow])
    log_decisions(workspace, [other])
    assert find_decision(workspace, shadow.prediction_id) == shadow
    assert decisions_on(workspace, "ab" * 32) == [told, shadow]
    assert (told.hybrid, told.decision, told.nearest_image) == (1 / 3, "REVIEW", "train/good/7.png")
    assert (told.brightness, told.contrast, told.sharpness) == (0.5, 0.1, 0.05)


def test_a_score_that_is_no_number_is_logged_as_infinite_beside_the_others(workspace: Workspace) -> None:
    """It fails the part; as NaN it would be NULL in SQLite, and no decision of its batch were logged."""
    nothing = replace(DETECTION, familiarity=math.nan, novelty=math.nan, hybrid=math.nan, decision="FAIL")
    log_decisions(workspace, [other := _decision(), told := _decision(detection=nothing)])
    assert find_decision(workspace, told.prediction_id) == told
    assert (told.familiarity, told.novelty, told.hybrid, told.decision) == (math.inf,) * 3 + ("FAIL",)
    assert find_decision(workspace, other.prediction_id) == other


def test_before_the_first_decision_nothing_is_found_and_nothing_is_made(workspace: Workspace) -> None:
    log_decisions(workspace, [])
    assert find_decision(workspace, "none") is None
    assert decisions_on(workspace, "ab" * 32) == []
    assert not workspace.state.exists()


def test_a_database_from_before_the_decision_log_gets_its_table(workspace: Workspace) -> None:
    append(workspace, "metal", "refusal", actor="ada", reason="why")
    database = workspace.state / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("DROP TABLE novad_decisions")
    assert decisions_on(workspace, "ab" * 32) == []
    log_decisions(workspace, [_decision()])
    assert len(decisions_on(workspace, "ab" * 32)) == 1
    assert len(events(workspace)) == 1


def test_a_log_from_before_the_monitor_is_read_as_it_is_and_gains_columns_when_written(
    workspace: Workspace,
) -> None:
    log_decisions(workspace, [old := _decision()])
    with sqlite3.connect(workspace.state / "mlflow.db") as connection:
        for name in ("brightness", "contrast", "sharpness"):
            connection.execute(f"ALTER TABLE novad_decisions DROP COLUMN {name}")
    unseen = replace(old, brightness=None, contrast=None, sharpness=None)
    assert find_decision(workspace, old.prediction_id) == unseen
    assert [each.decision for each in latest_decisions(workspace)] == [unseen]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: log_decisions(workspace, [_decision()]), range(12)))
    assert [each.brightness for each in decisions_on(workspace, "ab" * 32)] == [None] + [0.5] * 12


def test_a_batch_is_written_whole_or_not_at_all(workspace: Workspace) -> None:
    first = _decision()
    with pytest.raises(DuplicateKey):
        log_decisions(workspace, [_decision(), first, replace(first)])
    assert decisions_on(workspace, "ab" * 32) == []


def test_writers_at_the_same_time_lose_nothing(workspace: Workspace) -> None:
    batches = [[_decision(f"{writer}-{at}.png") for at in range(5)] for writer in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda batch: log_decisions(workspace, batch), batches))
    written = {each.source for each in decisions_on(workspace, "ab" * 32)}
    assert written == {each.source for batch in batches for each in batch}


@pytest.mark.parametrize("source", ["\udcff.png", "a\x00b\n.png", "x" * 5000, "Prüfung 検査.png"])
def test_any_name_of_an_image_can_be_stored(source: str, workspace: Workspace) -> None:
    decision = _decision(source)
    log_decisions(workspace, [decision])
    assert find_decision(workspace, decision.prediction_id) == decision
    assert decision.source.isprintable()
    assert 0 < len(decision.source) <= 1000
    assert ("検査" in decision.source) == ("検査" in source)
