"""Schedules in params.yaml: short or whole, refused by file and key, in the zone that they name."""

from datetime import UTC, datetime

import pytest

from novad.config import ScheduleSettings, Workspace, line_settings
from novad.errors import ConfigError
from tiny_pipeline import MakeTiny


def _with_schedule(make_tiny: MakeTiny, schedule: str) -> Workspace:
    workspace = make_tiny("metal")
    workspace.params.write_text(workspace.params.read_text() + f"    schedule: {schedule}\n")
    return workspace


def test_a_cron_expression_alone_is_short_for_a_mapping(make_tiny: MakeTiny) -> None:
    workspace = _with_schedule(make_tiny, "0 3 * * 1")
    assert line_settings(workspace.params, "metal").schedule == ScheduleSettings(cron="0 3 * * 1")


@pytest.mark.parametrize(
    ("schedule", "key", "told"),
    [
        ("0 33 * * 1", "schedule.cron", "'0 33 * * 1' is not a cron expression"),
        ("0 0 30 2 *", "schedule.cron", "not a cron expression"),
        ("'* * * * * *'", "schedule.cron", "five fields"),
        (
            "{cron: 0 3 * * 1, timezone: Mars/Olympus}",
            "schedule.timezone",
            "'Mars/Olympus' is not a time zone",
        ),
        ("{cron: 0 3 * * 1, timezone: ../etc/passwd}", "schedule.timezone", "is not a time zone"),
        ("{cron: 0 3 * * 1, jitter_seconds: -1}", "schedule.jitter_seconds", "greater than or equal to 0"),
        ("{cron: 0 3 * * 1, often: true}", "schedule.often", "Extra inputs"),
        ("{timezone: UTC}", "schedule.cron", "required"),
        ("7", "schedule", "valid dictionary"),
    ],
)
def test_a_wrong_schedule_is_refused_by_file_and_key(
    make_tiny: MakeTiny, schedule: str, key: str, told: str
) -> None:
    workspace = _with_schedule(make_tiny, schedule)
    with pytest.raises(ConfigError) as caught:
        line_settings(workspace.params, "metal")
    assert str(caught.value).startswith(f"{workspace.params}: lines.metal.{key}: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("zone", "month", "due"),
    [
        ("UTC", 7, (3, 0)),
        ("Europe/Berlin", 7, (1, 0)),
        ("Europe/Berlin", 1, (2, 0)),
        ("Asia/Kolkata", 1, (21, 30)),
    ],
)
def test_a_schedule_comes_round_in_its_own_zone(zone: str, month: int, due: tuple[int, int]) -> None:
    schedule = ScheduleSettings(cron="0 3 * * *", timezone=zone)
    found = schedule.next_run(datetime(2026, month, 10, 12, tzinfo=UTC))
    assert found is not None
    assert (found.hour, found.minute, found.tzinfo) == (*due, UTC)


def test_a_paused_schedule_never_comes_round() -> None:
    paused = ScheduleSettings(cron="0 3 * * *", paused=True)
    assert paused.next_run(datetime(2026, 1, 1, tzinfo=UTC)) is None
