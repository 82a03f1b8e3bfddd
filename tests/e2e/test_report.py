"""The quality report of a line that is really trained, with hostile names, in a real browser."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from browser import needs_chromium, opened
from novad.config import Workspace
from novad.report.page import fresh_page
from novad.report.write import write_report
from novad.tracking import PublishedRun, publish, reject
from report_page import Page, read_page
from small_line import LINE, STAGES, untrained_line

HOSTILE = "<script>document.title='taken'<"
MOST = 2


@dataclass(frozen=True)
class Reported:
    """A version that somebody turned down, its report, and the report after all images were deleted."""

    workspace: Workspace
    file: Path
    page: Page
    without_images: Page


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Reported]:
    root = tmp_path_factory.mktemp("line")
    pictures = {"bootstrap": 20, "heatmaps": 3 * MOST}
    workspace = untrained_line(root, train=16, test_good=6, per_defect=4, evaluate=pictures)
    workspace.state.mkdir()
    shutil.copyfile(empty_database, workspace.state / "mlflow.db")
    data = root / "data" / LINE
    for part in ("test", "ground_truth"):
        (data / part / "scratch").rename(data / part / HOSTILE)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
            patched.delenv(name, raising=False)
        for stage in STAGES:
            stage.run(workspace, LINE)
        publish(workspace, LINE, page=fresh_page)
        reject(workspace, LINE, 1, HOSTILE, HOSTILE)
        first, second = root / "first.html", root / "second.html"
        write_report(workspace, LINE, None, first)
        data.rename(root / "elsewhere")
        write_report(workspace, LINE, None, second)
        yield Reported(workspace, first, read_page(first), read_page(second))


def _scores(reported: Reported) -> Any:
    return pd.read_parquet(reported.workspace.artifacts(LINE, "evaluate") / "scores.parquet")


def test_pictures_are_those_of_the_worst_misses_false_alarms_and_clearest_hits(reported: Reported) -> None:
    scores = _scores(reported).sort_values("hybrid")
    defects, goods = scores[scores["label"] == 1], scores[scores["label"] == 0]
    missed, alarms = defects[defects["decision"] == "PASS"], goods[goods["decision"] != "PASS"]
    shown = [each.attributes["alt"] for each in reported.page.all("img")]
    for path in (*missed["path"].head(MOST), *alarms["path"][::-1].head(MOST)):
        assert path in shown
        assert f"Hybrid map over {path}" in shown
    pictures = reported.page.one("section", aria_labelledby="pictures").text
    for title, count in (("Misses", len(missed)), ("False alarms", len(alarms))):
        assert f"{title}: {count}" in pictures


def test_recall_at_the_threshold_is_that_of_metrics_json(reported: Reported) -> None:
    metrics = json.loads((reported.workspace.artifacts(LINE, "evaluate") / "metrics.json").read_text())
    assert HOSTILE in metrics["by_defect_type"]
    for name, told in metrics["by_defect_type"].items():
        row = reported.page.one("tr", data_type=name).text
        assert f"{told['recall']['hybrid']:.3f}" in row


def test_deleted_images_take_no_evidence_away(reported: Reported) -> None:
    before, after = (
        [each.attributes for each in page.all("img")] for page in (reported.page, reported.without_images)
    )
    gone = [each for each in before if each not in after]
    findings = reported.page.one("section", aria_labelledby="data").text
    assert all(each["alt"] in findings for each in gone)
    assert len(after) > 4 * MOST


def test_the_run_keeps_the_page_of_its_publication(reported: Reported) -> None:
    run = PublishedRun.open(reported.workspace, LINE, 1)
    kept = read_page(run.folder / "report.html")
    assert "while the version was being published" in kept.source
    assert "pictures" in {each.attributes.get("id") for each in kept.all("h2")}


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_well_on_a_phone_and_a_laptop(scheme: str, reported: Reported, tmp_path: Path) -> None:
    with opened(reported.file.as_uri(), tmp_path) as browser:
        for width in (360, 1366):
            browser.screen(width, scheme)
            browser.open("")
            assert browser.faults() == []
            assert browser.script("return document.title") == f"Quality report: {LINE} version 1"
            broken = "return [...document.images].filter((image) => !image.naturalWidth).length"
            assert browser.script(broken) == 0
        assert browser.complaints() == []
