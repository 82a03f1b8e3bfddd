"""Verdicts from a CSV file: every row or none, and what is wrong by its row."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novad.config import Workspace
from novad.errors import ConfigError
from novad.tracking import LoggedDecision, import_verdicts, line_verdicts, log_decisions
from novad.tracking.digests import file_digest
from tracking_fixtures import logged_decision

IDS = [f"{number:08d}-1111-4111-8111-111111111111" for number in range(6)]


@pytest.fixture
def log(workspace: Workspace, tmp_path: Path) -> list[LoggedDecision]:
    """Two decisions on one image and one in the shadow, one on another image, one of another line."""
    image = tmp_path / "part.png"
    image.write_bytes(b"a part")
    digest = file_digest(image)
    written = [
        logged_decision(prediction_id=IDS[0], at="2026-01-01", image_sha256=digest),
        logged_decision(prediction_id=IDS[1], at="2026-01-02", image_sha256=digest),
        logged_decision(prediction_id=IDS[2], at="2026-01-03", image_sha256=digest, shadow=True),
        logged_decision(prediction_id=IDS[3], image_sha256="cd" * 32),
        logged_decision(prediction_id=IDS[4], line="glass"),
    ]
    log_decisions(workspace, written)
    return written


def _write(tmp_path: Path, *lines: str) -> Path:
    table = tmp_path / "verdicts.csv"
    table.write_text("\n".join(lines), "utf-8")
    return table


def _standing(workspace: Workspace) -> list[tuple[str, str, str | None, str, str]]:
    return [
        (each.prediction_id, each.verdict, each.defect_type, each.actor, each.reason)
        for _, each in line_verdicts(workspace, "metal")
    ]


def test_rows_become_verdicts_and_a_second_time_nothing(
    workspace: Workspace, log: list[LoggedDecision], tmp_path: Path
) -> None:
    table = _write(
        tmp_path,
        "\ufeffprediction_id, truth,defect_type,reason",
        f"{IDS[0]},good,,clean",
        "",
        f'{IDS[3].upper()}, defect ,oil stain,"seen, twice"',
    )
    table.write_text(table.read_text("utf-8").replace(" defect ", "defect"), "utf-8")
    assert import_verdicts(workspace, "metal", table, " ada ") == (2, 0)
    said = [
        (IDS[0], "good", None, "ada", "clean"),
        (IDS[3], "defect", "oil stain", "ada", "seen, twice"),
    ]
    assert _standing(workspace) == said
    assert import_verdicts(workspace, "metal", table, "ada") == (0, 2)
    assert _standing(workspace) == said
    _write(tmp_path, "prediction_id,truth,reason", f"{IDS[0]},defect,looked again", f"{IDS[3]},good,no")
    assert import_verdicts(workspace, "metal", table, "ben") == (2, 0)
    assert [each[1] for each in _standing(workspace)] == ["defect", "good"]


def test_an_image_stands_for_the_newest_decision_that_somebody_was_told(
    workspace: Workspace, log: list[LoggedDecision], tmp_path: Path
) -> None:
    table = _write(
        tmp_path, "image,truth,reason", f"{tmp_path / 'part.png'},good,clean", f"{'CD' * 32},defect,bent"
    )
    assert import_verdicts(workspace, "metal", table, "ada") == (2, 0)
    assert [each[:2] for each in _standing(workspace)] == [(IDS[1], "good"), (IDS[3], "defect")]


HEADER = "prediction_id,truth,defect_type,reason"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ("row 1", "nothing")),
        (["truth,reason"], ("row 1", "prediction_id or image")),
        (["prediction_id;truth;reason"], ("row 1", "commas")),
        (["prediction_id,image,truth,reason"], ("row 1",)),
        (["prediction_id,truth,truth,reason"], ("row 1",)),
        (["prediction_id,truth,why"], ("row 1", "why")),
        ([HEADER], ("row 2: no verdict",)),
        ([HEADER, f"{IDS[0]},fine,,clean"], ("row 2: truth", "'good' or 'defect'")),
        ([HEADER, f"{IDS[0]},good,,clean", f"{IDS[3]},good,dent,x"], ("row 3", "no defect type")),
        ([HEADER, "", f"{IDS[0]},good,,"], ("row 3: reason",)),
        ([HEADER, ",good,,clean"], ("row 2: prediction_id",)),
        ([HEADER, f"{IDS[5]},good,,clean"], ("row 2", IDS[5], "metal has taken no decision")),
        ([HEADER, f"{IDS[4]},good,,another line"], ("row 2", IDS[4])),
        ([HEADER, f"{IDS[0]},good,,a", f"{IDS[0]},defect,,b"], ("row 3: row 2",)),
        ([HEADER, f"{IDS[0]},good,,a,b"], ("row 2: 5 cells",)),
        ([HEADER, f"{IDS[0]},defect,de\x07nt,a"], ("row 2: defect_type", "cannot be shown")),
        ([HEADER, f"{IDS[0]},defect,{'x' * 101},a"], ("row 2: defect_type", "100")),
        ([HEADER, f'{IDS[0]},good,,"open'], ("cannot be read as CSV",)),
        (["image,truth,reason", "nowhere.png,good,a"], ("row 2: image", "nowhere.png")),
        (["image,truth,reason", "a\x00b,good,a"], ("row 2: image",)),
        (["image,truth,reason", "/dev/zero,good,a"], ("row 2: image", "not a plain file")),
        (["image,truth,reason", f"{'ef' * 32},good,a"], ("row 2", "no decision")),
        ([HEADER, *[f"{IDS[5]},good,,a"] * 30], ("row 21", "and 10 more")),
    ],
)
def test_what_is_wrong_is_named_by_its_row_and_nothing_is_written(
    lines: list[str], words: tuple[str, ...], workspace: Workspace, log: list[LoggedDecision], tmp_path: Path
) -> None:
    table = _write(tmp_path, *lines)
    with pytest.raises(ConfigError) as refused:
        import_verdicts(workspace, "metal", table, "ada")
    assert str(table) in str(refused.value)
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert _standing(workspace) == []


cell = st.sampled_from(
    [IDS[0], IDS[3], "good", "defect", "dent", "clean", "", '"', '""', "\r", "\x00", "\ud7ff"]
)
sheet = st.lists(st.lists(cell, max_size=6).map(",".join), max_size=6).map("\n".join)


@given(content=st.one_of(st.binary(max_size=80), sheet.map(lambda text: f"{HEADER}\n{text}".encode())))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_taken_whole_or_refused(
    content: bytes, workspace: Workspace, log: list[LoggedDecision], tmp_path: Path
) -> None:
    table = tmp_path / "any.csv"
    table.write_bytes(content)
    before = _standing(workspace)
    try:
        added, standing = import_verdicts(workspace, "metal", table, "ada")
    except ConfigError:
        assert _standing(workspace) == before
    else:
        assert added + standing > 0


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_is_no_text_is_named(
    content: bytes | None, workspace: Workspace, log: list[LoggedDecision], tmp_path: Path
) -> None:
    table = tmp_path / "odd.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(ConfigError, match=r"odd\.csv: cannot be read"):
        import_verdicts(workspace, "metal", table, "ada")
