"""Where a line stands, from its events and publications."""

import sqlite3

import pytest

from fake_line import write_outputs
from novad.config import Workspace
from novad.report.subject import registered_subject
from novad.serving.console.answers import LineReview
from novad.serving.console.overview import overview
from novad.serving.keys import Role
from novad.tracking import promote, publish, reject, rollback


@pytest.fixture
def published(tracked: Workspace) -> Workspace:
    """Line `metal` with versions 1, 2 and 3."""
    publish(tracked, "metal")
    for seed in (1, 2):
        write_outputs(tracked, "metal", seed=seed)
        publish(tracked, "metal")
    return tracked


def _line(workspace: Workspace) -> LineReview:
    answer = overview(workspace, {}, Role.REVIEW, {})
    assert answer.log_problems == []
    [line] = answer.lines
    return line


def _standings(line: LineReview) -> list[str]:
    return [each.standing for each in line.versions]


def test_a_line_goes_from_candidates_to_champions_and_back(published: Workspace) -> None:
    line = _line(published)
    assert (line.champion, line.challenger, line.former, line.seen) == (None, 3, None, 0)
    promote(published, "metal", 1, "ada", "first")
    reject(published, "metal", 3, "ben", "dents")
    line = _line(published)
    assert _standings(line) == ["champion", "candidate", "rejected"]
    assert (line.challenger, line.former, line.seen) == (2, None, 2)
    promote(published, "metal", 2, "ada", "second")
    line = _line(published)
    assert _standings(line) == ["former champion", "champion", "rejected"]
    assert (line.challenger, line.former) == (None, 1)
    promote(published, "metal", 3, "ada", "measured again")
    assert _standings(_line(published)) == ["former champion", "former champion", "champion"]
    rollback(published, "metal", "ada", "false alarms")
    line = _line(published)
    assert line.champion is not None
    assert (line.champion.version, line.champion.kind, line.champion.reason) == (
        2,
        "rollback",
        "false alarms",
    )
    assert (line.challenger, line.former) == (None, 1), "who was rolled back waits for no decision"
    assert registered_subject(published, "metal", 2).challenger is None


def test_a_log_that_was_changed_is_told(published: Workspace) -> None:
    promote(published, "metal", 1, "ada", "first")
    with sqlite3.connect(published.state / "mlflow.db") as connection:
        connection.execute("UPDATE novad_events SET actor = 'ben'")
    [problem] = overview(published, {}, Role.REVIEW, {}).log_problems
    assert "was edited" in problem


def test_before_the_first_version_there_is_no_line(tracked: Workspace) -> None:
    assert overview(tracked, {}, Role.ADMIN, {}).model_dump() == {
        "role": "admin",
        "lines": [],
        "log_problems": [],
    }
