"""What a line is trained again for: each cause, its key, and none of them twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from monitored_line import make_champion
from novad.config import RetrainSettings, Workspace, line_settings
from novad.errors import ConfigError, RefusedError
from novad.pipeline.causes import Cause, InService, causes, due_causes
from novad.pipeline.retraining import retrain_line, train_due
from novad.pipeline.train import LineResult
from novad.tracking import DATA_ACCEPTED, answered_causes, record_answers
from novad.tracking.events import append

BEGUN = datetime(2026, 1, 1, 12, tzinfo=UTC)
IN_SERVICE: dict[str, Any] = {
    "version": 3, "decision": 7, "since": BEGUN, "verified": 45, "acceptance": 9,
    "drifted": ("brightness", "familiarity"), "drift_since": "2026-02-03T04:05:06.000000+00:00",
}  # fmt: skip
ALL = RetrainSettings(verified_images=20, on_drift=True, champion_days=30)


def _keys(days: float = 91, settings: RetrainSettings = ALL, **changed: Any) -> list[str]:
    line = InService(**{**IN_SERVICE, **changed})
    return [cause.key for cause in causes(settings, line, BEGUN + timedelta(days=days))]


def test_every_cause_has_its_sentence_and_its_key() -> None:
    assert causes(ALL, InService(**IN_SERVICE), BEGUN + timedelta(days=91)) == [
        Cause("verified/3/2", "45 verified images since version 3"),
        Cause("drift/3/9", "drift of brightness, familiarity since 2026-02-03T04:05"),
        Cause("age/7/3", "version 3 has been champion for 91 days"),
    ]


def test_nothing_is_a_cause_unless_it_is_named() -> None:
    assert _keys(settings=RetrainSettings()) == []
    assert _keys(settings=RetrainSettings(on_drift=True), drifted=()) == []
    assert _keys(settings=RetrainSettings(champion_days=30)) == ["age/7/3"]


@pytest.mark.parametrize(
    ("verified", "keys"), [(19, []), (20, ["verified/3/1"]), (39, ["verified/3/1"]), (40, ["verified/3/2"])]
)
def test_verified_images_are_a_cause_at_every_so_many(verified: int, keys: list[str]) -> None:
    assert _keys(settings=RetrainSettings(verified_images=20), verified=verified) == keys


def test_drift_is_a_new_cause_after_an_acceptance_or_of_another_champion() -> None:
    told = [_keys(0, acceptance=at, verified=0) for at in (9, 9, 11)] + [_keys(0, version=4, verified=0)]
    assert told == [["drift/3/9"], ["drift/3/9"], ["drift/3/11"], ["drift/4/9"]]


def test_age_counts_whole_days_from_the_decision_and_begins_anew_with_the_next() -> None:
    quiet = {"verified": 0, "drifted": ()}
    assert _keys(29.9, **quiet) == []
    assert _keys(30, **quiet) == _keys(59.9, **quiet) == ["age/7/1"]
    # A version that is rolled back to is approved anew: another decision.
    assert _keys(60, decision=12, **quiet) == ["age/12/2"]


@pytest.mark.parametrize(
    ("told", "key"),
    [
        ("{verified_images: 0}", "retrain.verified_images"),
        ("{champion_days: 1.5}", "retrain.champion_days"),
        ("{on_drift: perhaps}", "retrain.on_drift"),
        ("{on_verified: 5}", "retrain.on_verified"),
    ],
)
def test_a_wrong_setting_is_refused_by_file_and_key(workspace: Workspace, told: str, key: str) -> None:
    workspace.params.write_text(workspace.params.read_text() + f"    retrain: {told}\n")
    with pytest.raises(ConfigError) as caught:
        line_settings(workspace.params, "metal")
    assert str(caught.value).startswith(f"{workspace.params}: lines.metal.{key}: ")


@pytest.fixture
def accepted(tracked: Workspace) -> Workspace:
    """Line `metal` with a champion and two accepted images, a cause from two on."""
    make_champion(tracked)
    images = [
        {"sha256": digest * 32, "path": f"train/good/{digest}.png", "prediction_id": digest}
        for digest in ("ab", "cd")
    ]
    detail = {"data": {"before": "old", "after": "new"}, "images": images}
    append(tracked, "metal", DATA_ACCEPTED, actor="ben", reason="looked", detail=detail)
    tracked.params.write_text(tracked.params.read_text() + "    retrain: {verified_images: 2}\n")
    return tracked


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Reasons of trainings; the first fails, the others find nothing to do."""
    reasons: list[Any] = []

    def train(
        _: Workspace, lines: list[str], force: bool = False, wait: bool = False, reason: str = ""
    ) -> list[LineResult]:
        reasons.append(reason)
        error = RefusedError("part-07.png is empty") if len(reasons) == 1 else None
        return [LineResult(lines[0], 1, unchanged=True, error=error, reason=reason)]

    monkeypatch.setattr("novad.pipeline.retraining.train_lines", train)
    return reasons


def test_a_cause_stands_until_a_training_succeeds_and_is_answered_then(
    accepted: Workspace, trained: list[Any]
) -> None:
    reason = "2 verified images since version 1"
    for count in (1, 2):
        assert [cause.reason for cause in due_causes(accepted, "metal")] == [reason]
        [result] = train_due(accepted, ["metal"], False, False)
        assert (result.error is not None, trained) == (count == 1, [reason] * count)
    assert (due_causes(accepted, "metal"), train_due(accepted, ["metal"], False, False)) == ([], [])
    assert answered_causes(accepted, "metal") == {"verified/1/1"}
    assert answered_causes(accepted, "other") == set()


def test_a_deployed_run_answers_its_causes_when_it_succeeds(accepted: Workspace, trained: list[Any]) -> None:
    with pytest.raises(RefusedError, match="is empty"):
        retrain_line(accepted, "metal", "drift", 0, ["drift/1/2"])
    assert answered_causes(accepted, "metal") == set()
    for _ in range(2):
        assert retrain_line(accepted, "metal", "drift", 0, ["drift/1/2", "age/1/1"]).is_completed()
    assert retrain_line(accepted, "metal", "by hand", 0).is_completed()
    assert answered_causes(accepted, "metal") == {"drift/1/2", "age/1/1"}
    assert trained == ["drift", "drift", "drift", "by hand"]


def test_without_a_champion_or_a_store_nothing_is_due(workspace: Workspace) -> None:
    workspace.params.write_text(workspace.params.read_text() + "    retrain: {on_drift: true}\n")
    assert (due_causes(workspace, "metal"), answered_causes(workspace, "metal")) == ([], set())
    assert not workspace.state.exists()


def test_answers_of_lines_are_apart(tracked: Workspace) -> None:
    record_answers(tracked, "metal", ["drift/1/0"])
    record_answers(tracked, "glass", ["drift/1/0", "age/1/1"])
    assert answered_causes(tracked, "metal") == {"drift/1/0"}
    assert answered_causes(tracked, "glass") == {"drift/1/0", "age/1/1"}
