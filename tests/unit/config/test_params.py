"""Lines in params.yaml: whatever stands there, it is read, extended, or refused by file and key."""

from pathlib import Path

import pytest

from novad.config import add_line, ensure_lines, line_settings, load_lines
from novad.errors import ConfigError
from small_line import bundled_line_settings


@pytest.mark.parametrize("lines", ["3", "[metal]", "metal", "true"])
def test_lines_that_are_no_mapping_are_refused_whoever_asks(lines: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"lines: {lines}\n")
    for ask in (
        lambda: load_lines(params),
        lambda: line_settings(params, "metal"),
        lambda: add_line(params, "metal", bundled_line_settings(64)),
    ):
        with pytest.raises(ConfigError, match=r"params\.yaml: lines: must map line names to settings"):
            ask()
    assert params.read_text() == f"lines: {lines}\n"


@pytest.mark.parametrize(
    ("since", "why"),
    [("2026-11-31 14:00:00", "day is out of range for month"), ("2026-11-30 24:00:00", "hour must be in 0")],
)
def test_a_date_that_there_cannot_be_is_refused_by_the_file(since: str, why: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"lines:\n  metal:\n    monitor: {{since: {since}}}\n")
    with pytest.raises(ConfigError, match=rf"params\.yaml: not valid YAML: {why}"):
        load_lines(params)


@pytest.mark.parametrize("lines", ["", "lines:\n", "lines: {}\n"])
def test_a_line_is_added_where_there_is_none_and_what_stands_there_stays(lines: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"# ours\nowner: ada  # who answers\n{lines}")
    assert load_lines(params) == {}
    with pytest.raises(ConfigError, match="known: none yet"):
        line_settings(params, "metal")
    settings = bundled_line_settings(64)
    add_line(params, "metal", settings)
    add_line(params, "wood", settings)
    assert load_lines(params) == {"metal": settings, "wood": settings}
    assert params.read_text().startswith("# ours\nowner: ada  # who answers\n")


@pytest.mark.parametrize("lines", ["", "lines:\n", "lines: null\n", "lines:\n  # the demo lines were here\n"])
def test_no_value_for_lines_becomes_an_empty_mapping_and_a_mapping_is_left_alone(
    lines: str, tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"# ours\nowner: ada  # who answers\n{lines}")
    ensure_lines(params)
    text = params.read_text()
    assert text.startswith("# ours\nowner: ada  # who answers\nlines: {}")
    assert ("# the demo lines were here" in text) == ("demo" in lines)
    ensure_lines(params)
    assert params.read_text() == text
    add_line(params, "metal", bundled_line_settings(64))
    assert list(load_lines(params)) == ["metal"]


@pytest.mark.parametrize(("written", "meant"), [("true", 1.0), ("false", 0.0), ("0.25", 0.25)])
def test_lines_of_before_said_yes_or_no_to_whitening(written: str, meant: float, tmp_path: Path) -> None:
    """Yes is unit variance, as it was; what was added since says how far."""
    params = tmp_path / "params.yaml"
    params.write_text("lines: {}\n")
    add_line(params, "metal", bundled_line_settings(64))
    text = params.read_text()
    assert text.count("whiten: 0.5\n") == 1
    params.write_text(text.replace("whiten: 0.5\n", f"whiten: {written}\n"))
    assert line_settings(params, "metal").memory_bank.whiten == meant
    params.write_text(text.replace("whiten: 0.5\n", "whiten: 1.5\n"))
    with pytest.raises(ConfigError, match=r"params\.yaml.*memory_bank\.whiten"):
        line_settings(params, "metal")


def test_a_wrong_setting_is_told_by_file_key_and_reason_alone(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("lines: {}\n")
    add_line(params, "metal", bundled_line_settings(64))
    params.write_text(params.read_text().replace("image_size: 64\n", "image_size: 50\n"))
    with pytest.raises(ConfigError) as told:
        line_settings(params, "metal")
    first = f"{params}: lines.metal.backbone.image_size: 50: sides must be multiples of 8"
    assert str(told.value).startswith(first)
    assert "Value error" not in str(told.value)
