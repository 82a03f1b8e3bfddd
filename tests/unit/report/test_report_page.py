"""The report of a line that looks trained: right, self-contained, and not fooled by what it is told."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fake_line import THRESHOLDS, fake_scores, write_outputs
from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.report.page import fresh_page, render
from novad.report.subject import registered_subject
from novad.report.write import write_report
from novad.tracking import PublishedRun, check, promote, publish, reject, rollback
from novad.tracking.events import append, head
from novad.tracking.evidence import run_folder
from novad.tracking.store import open_client
from report_page import Page, read_page

HOSTILE = """<script>document.title='taken'</script>'"&<img src=http://evil.example/x>"""
LINE = "metal"


def _report(workspace: Workspace, version: int | None = None) -> Page:
    return read_page(render(registered_subject(workspace, LINE, version)))


def _verdict(page: Page) -> str:
    return page.one("h2", id="verdict").text


def _publish_again(workspace: Workspace, seed: int = 1) -> None:
    write_outputs(workspace, LINE, seed=seed)
    publish(workspace, LINE)


def _rescored(workspace: Workspace, scores: pd.DataFrame) -> None:
    scores.to_parquet(workspace.artifacts(LINE, "evaluate") / "scores.parquet")


def _change_threshold(workspace: Workspace, fail: float, review: float) -> None:
    detail = {"fail": fail, "review": review, "alpha": 0.2}
    base = head(workspace, LINE)
    append(workspace, LINE, "threshold", actor="Ono", reason="r", version=1, detail=detail, expected=base)


def test_its_figures_are_those_of_metrics_json(tracked: Workspace) -> None:
    publish(tracked, LINE)
    metrics = json.loads((tracked.artifacts(LINE, "evaluate") / "metrics.json").read_text())
    figures = _report(tracked).figures()
    assert {"scores.hybrid.image_auroc", "scores.novelty.f1", "counts.train"} <= set(figures)
    assert len(figures) == 3 * 8 + 5 + 1
    for path, value in figures.items():
        found = metrics
        for key in path.split("."):
            found = found[key]
        assert value == str(found)


def test_its_rates_are_counted_at_the_thresholds_in_force(tracked: Workspace) -> None:
    publish(tracked, LINE)
    promote(tracked, LINE, 1, "Ben", "measured")
    scores = fake_scores()
    for fail, review in ((THRESHOLDS["fail"], THRESHOLDS["review"]), (3.0, 2.0)):
        if fail != THRESHOLDS["fail"]:
            _change_threshold(tracked, fail, review)
        page = _report(tracked)
        told = [
            each.attributes for each in page.all("data") if each.attributes.get("data-of") in {"30", "40"}
        ]
        good, bad = (scores.loc[scores["label"] == label, "hybrid"] for label in (0, 1))
        between = [(each > review) & (each <= fail) for each in (good, bad)]
        expected = [good > fail, between[0], bad <= review, between[1], bad > fail]
        assert [int(each["value"]) for each in told] == [int(each.sum()) for each in expected]
        row = page.one("tr", data_type="dent").text
        assert f"{((scores['defect_type'] == 'dent') & (scores['hybrid'] > fail)).sum()}, " in row


def test_a_threshold_of_the_champion_is_not_that_of_another_version(tracked: Workspace) -> None:
    publish(tracked, LINE)
    promote(tracked, LINE, 1, "Ben", "measured")
    _change_threshold(tracked, 3.0, 2.0)
    _publish_again(tracked)
    assert registered_subject(tracked, LINE, None).thresholds["fail"] == 3.0
    assert registered_subject(tracked, LINE, 2).thresholds["fail"] == THRESHOLDS["fail"]


def test_it_asks_for_nothing_from_elsewhere(tracked: Workspace) -> None:
    publish(tracked, LINE)
    page = _report(tracked)
    assert page.addresses()
    assert all(re.match(r"data:image/(png|jpeg);base64,|#[a-z]+$", each) for each in page.addresses())
    names = {each.name for each in page.elements}
    assert not names & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "audio",
        "video",
        "use",
    }
    assert not re.search(r"https?:|url\(|@import", page.source)
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    [digest] = re.findall(r"style-src 'sha256-([^']+)'", policy)
    assert base64.b64decode(digest) == hashlib.sha256(page.one("style").text.encode()).digest()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not [each for each in page.elements if "style" in each.attributes]


def test_names_and_reasons_stay_text(tracked: Workspace) -> None:
    _rescored(tracked, fake_scores().replace({"defect_type": {"dent": HOSTILE}}))
    publish(tracked, LINE)
    promote(tracked, LINE, 1, HOSTILE, HOSTILE)
    page = _report(tracked)
    assert page.one("tr", data_type=HOSTILE)
    assert page.source.count("<script") == 0
    assert page.one("title").text == "Quality report: metal version 1"
    assert page.one("section", aria_labelledby="history").text.count(HOSTILE) == 2


def test_the_verdict_follows_what_was_decided(tracked: Workspace) -> None:
    publish(tracked, LINE)
    assert "Not yet." in _verdict(_report(tracked))
    promote(tracked, LINE, 1, "Ben", "measured")
    assert "Yes." in _verdict(_report(tracked))
    _publish_again(tracked)
    promote(tracked, LINE, 2, "Ben", "better")
    assert "No longer." in _verdict(_report(tracked, 1))
    rollback(tracked, LINE, "Ben", "worse")
    assert "Yes." in _verdict(_report(tracked, 1))
    _publish_again(tracked, seed=2)
    reject(tracked, LINE, 3, "Ada", "scratches")
    page = _report(tracked, 3)
    assert "No." in _verdict(page)
    assert "Rejection by Ada" in page.one("section", aria_labelledby="verdict").text


def test_a_version_that_a_gate_refuses_may_not_judge(tracked: Workspace) -> None:
    write_outputs(tracked, LINE, auroc=0.55)
    publish(tracked, LINE)
    page = _report(tracked)
    assert "No." in _verdict(page)
    assert "Gates that it does not pass: hybrid auroc" in page.one("section", aria_labelledby="verdict").text


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("default: {no_such_gate: {}}", "no such gate"),
        (f"default: {{digests: {{}}}}\nlines: {{{LINE}: off}}", f"lines.{LINE}: must map gates"),
    ],
)
def test_a_wrong_policy_stops_no_publication_and_is_told(tracked: Workspace, policy: str, told: str) -> None:
    shared = (tracked.root / "mlflow").resolve()
    (tracked.root / "mlflow").unlink()
    shutil.copytree(shared, tracked.root / "mlflow")
    tracked.path("mlflow/gates.yaml").write_text(f"{policy}\n")
    publish(tracked, LINE, page=fresh_page)
    page = _report(tracked)
    assert "No." in _verdict(page)
    assert told in page.one("section", aria_labelledby="verdict").text


def test_changed_files_and_a_changed_log_are_told_first(tracked: Workspace) -> None:
    publish(tracked, LINE)
    promote(tracked, LINE, 1, "Ben", "measured")
    run = PublishedRun.open(tracked, LINE, 1)
    model = next(tracked.state.rglob("detector.json"))
    model.write_text("{}")
    page = _report(tracked)
    assert "No." in _verdict(page)
    assert "Its files were changed" in page.source
    (run.folder / "evaluate/metrics.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"metrics\.json"):
        _report(tracked)


@pytest.mark.parametrize("label", [0, 1])
def test_a_test_split_of_one_kind_leaves_the_other_unknown(label: int, tracked: Workspace) -> None:
    scores = fake_scores()
    _rescored(tracked, scores[scores["label"] == label])
    publish(tracked, LINE)
    page = _report(tracked)
    assert ("no defective test image", "no good test image")[label] in page.source
    assert ("no good test image", "no defective test image")[label] not in page.source


def test_champion_and_challenger_are_compared_on_the_same_images(tracked: Workspace) -> None:
    publish(tracked, LINE)
    assert "no other version" in _report(tracked).one("section", aria_labelledby="beside").text
    promote(tracked, LINE, 1, "Ben", "measured")
    write_outputs(tracked, LINE, seed=0)
    better = fake_scores()
    better.loc[better["label"] == 1, "hybrid"] += 9
    _rescored(tracked, better)
    publish(tracked, LINE)
    for version, role, word in (
        (2, "version 1, the champion:", "better"),
        (1, "version 2, the challenger:", "worse"),
    ):
        beside = _report(tracked, version).one("section", aria_labelledby="beside").text
        assert role in beside
        assert "70 test images" in beside
        assert word in beside
    promote(tracked, LINE, 2, "Ben", "better")
    assert "the champion before it" in _report(tracked).source
    (PublishedRun.open(tracked, LINE, 1).folder / "evaluate/scores.parquet").write_bytes(b"")
    assert "cannot be compared" in _report(tracked, 2).source


def test_versions_without_kept_pictures_say_so(tracked: Workspace) -> None:
    publish(tracked, LINE)
    pictures = _report(tracked).one("section", aria_labelledby="pictures")
    assert "no picture was kept" in pictures.text


def test_findings_name_their_images_though_these_are_gone(tracked: Workspace) -> None:
    warning = {
        "check": "no_blank_image",
        "severity": "warning",
        "images": ["good/0.png"] * 9,
        "message": HOSTILE,
    }
    report = tracked.artifacts(LINE, "validate") / "report.json"
    report.write_text(json.dumps({"errors": [], "warnings": [warning]}))
    publish(tracked, LINE)
    data = _report(tracked).one("section", aria_labelledby="data").text
    assert "no blank image" in data
    assert HOSTILE in data
    assert data.count("good/0.png (no longer at hand)") == 6
    assert "3 more not shown" in data


def test_a_run_keeps_the_page_of_the_moment_once(tracked: Workspace) -> None:
    calls = []

    def page(run: PublishedRun) -> str:
        calls.append(run.version)
        return fresh_page(run)

    first = publish(tracked, LINE, page=page)
    again = publish(tracked, LINE, page=page)
    assert (first.version, again.version, calls) == (1, 1, [None])
    folder = run_folder(tracked, open_client(tracked), first.run_id)
    kept = read_page(folder / "report.html")
    assert "Not yet." in _verdict(kept)
    assert "while the version was being published" in kept.source
    files = json.loads((folder / "files.json").read_text())
    assert files["run/report.html"] == hashlib.sha256(kept.source.encode()).hexdigest()
    assert check(tracked, LINE).problems == ()
    (folder / "report.html").write_text("forged")
    assert any("run/report.html was changed" in each for each in check(tracked, LINE).problems)


def test_a_file_appears_whole_or_not_at_all(
    tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tracked, LINE)
    target = tmp_path / "out" / "report.html"
    with pytest.raises(ConfigError, match="no such folder"):
        write_report(tracked, LINE, None, target)
    target.parent.mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        write_report(tracked, LINE, None, target.parent)
    written = write_report(tracked, LINE, None, target)
    assert (written.version, written.bytes) == (1, target.stat().st_size)
    before = target.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_report(tracked, LINE, None, target)
    assert [each.name for each in target.parent.iterdir()] == ["report.html"]
    assert target.read_bytes() == before


def test_nothing_registered_is_told(make_tracked: Callable[..., Workspace]) -> None:
    workspace = make_tracked("metal", "fabric")
    publish(workspace, "fabric")
    with pytest.raises(ConfigError, match="metal: no model is registered; run `novad train metal` first"):
        registered_subject(workspace, LINE, None)
    with pytest.raises(ConfigError, match="fabric: version 9 is not registered"):
        registered_subject(workspace, "fabric", 9)
