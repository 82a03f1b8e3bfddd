"""Files of a version's run: handed out only while they are what was published."""

import json
import weakref
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking import PublishedRun, publish


@pytest.fixture
def run(tracked: Workspace) -> PublishedRun:
    publish(tracked, "metal")
    return PublishedRun.open(tracked, "metal", 1)


def test_files_are_listed_and_read(run: PublishedRun) -> None:
    assert run.names("evaluate/heatmaps") == ["evaluate/heatmaps/a.png"]
    assert run.read("evaluate/heatmaps/a.png") == b"picture"
    with pytest.raises(ConfigError, match="no file"):
        run.read("evaluate/heatmaps/../../manifest.json")
    with pytest.raises(ConfigError, match="version 9"):
        PublishedRun.open(run.workspace, "metal", 9)


@pytest.mark.parametrize("change", [b"another", None])
def test_a_file_that_was_changed_or_removed_is_named(change: bytes | None, run: PublishedRun) -> None:
    file = run.folder / "evaluate/heatmaps/a.png"
    file.unlink() if change is None else file.write_bytes(change)
    with pytest.raises(IntegrityError, match=r"heatmaps/a\.png is not the published one"):
        run.read("evaluate/heatmaps/a.png")


@pytest.mark.parametrize("text", ["{}", "not json", '{"evaluate/heatmaps/a.png": "00"}'])
def test_another_list_of_files_is_refused(text: str, run: PublishedRun) -> None:
    (run.folder / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        PublishedRun.open(run.workspace, "metal", 1)


def test_an_image_is_found_by_its_digest_while_its_file_is_the_same(run: PublishedRun) -> None:
    """The manifest of the fake line names one image, whose digest no content has."""
    sha256 = "0" * 64
    image = run.workspace.root / "data" / "metal" / "good" / "0.png"
    assert run.image(sha256) is None
    image.parent.mkdir(parents=True)
    image.write_bytes(b"another image")
    assert run.image(sha256) is None
    assert run.image("ab" * 32) is None


def test_lines_that_left_the_settings_have_no_images(run: PublishedRun) -> None:
    Path(run.workspace.params).write_text(json.dumps({"lines": {}}))
    assert run.image("0" * 64) is None


def test_threads_of_the_table_reader_hold_nothing_of_pythons(
    run: PublishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that let go of it while the interpreter ends brought a whole `novad score` down, now and then."""

    class Content(bytearray):
        """Can be watched, as bytes cannot."""

    read, rows, watched = PublishedRun.read, pq.read_table, list[Any]()

    def reads(self: PublishedRun, name: str) -> bytes:
        content = Content(read(self, name))
        watched.append(weakref.ref(content))
        return content

    def reads_rows(source: Any, **options: Any) -> Any:
        assert watched[0]() is None
        return rows(source, **options)

    monkeypatch.setattr(PublishedRun, "read", reads)
    monkeypatch.setattr(pq, "read_table", reads_rows)
    assert run.table("validate/manifest.parquet", ["sha256"]).column("sha256").to_pylist() == ["0" * 64]
    assert len(watched) == 1
