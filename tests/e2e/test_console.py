"""The review console on a line that is really trained: what it shows, what it decides, what it refuses."""

import asyncio
import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from PIL import Image

import novad.serving.console
from browser import Browser, needs_chromium, opened, running
from hostile_requests import SECRET, png
from novad.config import Workspace
from novad.evaluation.overlays import judged_overlay
from novad.images import decode_image
from novad.serving.app import build_app
from novad.serving.image_store import ImageStore
from novad.serving.keys import Role, add_key
from novad.serving.service import Service
from novad.tracking import (
    Verdict,
    champion_event,
    history,
    monitor,
    promote,
    publications,
    resolve,
    trace,
    verdicts_on,
    verify,
)
from novad.tracking.evidence import run_folder
from novad.tracking.store import open_client
from novad.tracking.trace import PredictionTrace
from small_line import LINE, small_line, train_again

# An id that no prediction has; fixed, for every worker must collect the same tests.
NOBODYS = "b12bd9b3-ed39-4c0f-8cae-cdfd3122e2f2"

HOSTILE = """<img src=x onerror="document.title='taken'">'"&<script>document.title='taken'</script>${7*7}"""
VERSION = f"/v1/lines/{LINE}/versions/1"
KINDS = ("familiarity", "novelty", "hybrid")


@dataclass(frozen=True)
class Console:
    """A started service with two versions, of which the first is champion at first."""

    workspace: Workspace
    service: Service
    keys: dict[Role, str]

    @cached_property
    def app(self) -> FastAPI:
        """As a running service has it: made once, for all requests."""
        return build_app(self.service)

    def ask(self, method: str, url: str, role: Role = Role.REVIEW, **options: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://novad", timeout=60) as client:
                headers = {"X-API-Key": self.keys[role], **options.pop("headers", {})}
                return await client.request(method, url, headers=headers, **options)

        return asyncio.run(once())

    def read(self, url: str) -> Any:
        answer = self.ask("GET", url)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def line(self) -> Any:
        [line] = self.read("/v1/review")["lines"]
        return line

    def decide(self, what: str, role: Role = Role.ADMIN, **document: Any) -> httpx.Response:
        told = {"name": "Ben", "reason": "measured", "seen": self.line()["seen"], **document}
        return self.ask("POST", f"/v1/lines/{LINE}/{what}", role, json=told)

    def score(self, name: str, image: bytes) -> str:
        """Prediction id of an image that was sent under a name."""
        files = {"images": (name, image, "image/png")}
        answer = self.ask("POST", f"/v1/lines/{LINE}/score", files=files)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["results"][0]["prediction_id"])


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Console]:
    """Gates are not what is tested here."""
    with (
        small_line(
            tmp_path_factory.mktemp("console"), empty_database, train=16, test_good=8, per_defect=2
        ) as workspace,
        pytest.MonkeyPatch.context() as patched,
    ):
        train_again(workspace, empty_database, "seed: 0", "seed: 1")
        patched.setattr("novad.tracking.registry.gate", lambda *_: [])
        promote(workspace, LINE, 1, "ada", "first")
        file = workspace.state / "serve" / "keys.json"
        keys = {role: add_key(file, role) for role in Role}
        service = Service(workspace, file)
        service.start()
        try:
            yield Console(workspace, service, keys)
        finally:
            service.stop()


@pytest.fixture
def tested(console: Console) -> pd.DataFrame:
    """The published test scores of version 1."""
    run = run_folder(console.workspace, open_client(console.workspace), _run_id(console))
    return pd.read_parquet(run / "evaluate" / "scores.parquet")


def _run_id(console: Console) -> str:
    return publications(console.workspace, LINE)[0].run_id


def _pixels(text: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


ROUTES = [
    ("GET", "/v1/review", Role.REVIEW),
    ("GET", f"/v1/lines/{LINE}/history", Role.REVIEW),
    ("GET", VERSION, Role.REVIEW),
    ("GET", f"/v1/lines/{LINE}/comparison?left=1&right=2", Role.REVIEW),
    ("GET", f"{VERSION}/heatmaps/x.png", Role.REVIEW),
    ("GET", f"{VERSION}/images/{'0' * 64}", Role.REVIEW),
    ("GET", f"{VERSION}/images/{'0' * 64}/thumbnail", Role.REVIEW),
    ("GET", "/v1/predictions", Role.REVIEW),
    ("GET", f"/v1/predictions/{NOBODYS}/view", Role.REVIEW),
    ("GET", f"/v1/predictions/{NOBODYS}/verdicts", Role.REVIEW),
    ("POST", f"/v1/predictions/{NOBODYS}/verdict", Role.REVIEW),
    ("POST", f"/v1/lines/{LINE}/promote", Role.ADMIN),
    ("POST", f"/v1/lines/{LINE}/reject", Role.ADMIN),
    ("POST", f"/v1/lines/{LINE}/rollback", Role.ADMIN),
]


@pytest.mark.parametrize(("method", "url", "needed"), ROUTES)
def test_every_route_asks_for_a_key_of_its_role(
    method: str, url: str, needed: Role, console: Console
) -> None:
    for key in ("", "wrong"):
        answer = console.ask(method, url, headers={"X-API-Key": key})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key")
    for role in Role:
        answer = console.ask(method, url, role)
        assert (answer.status_code == 403) == (role < needed)
        assert answer.status_code not in {401, 500}


def test_a_line_shows_who_judges_and_who_waits(console: Console) -> None:
    line = console.line()
    assert (line["line"], line["champion"]["version"], line["challenger"], line["in_service"]) == (
        LINE,
        1,
        2,
        1,
    )
    assert line["champion"]["approver"] == "ada"
    assert [each["standing"] for each in line["versions"]] == ["champion", "candidate"]
    assert line["seen"] == len(history(console.workspace, LINE)) == 1
    before = sum(line["decisions"].values())
    console.score("a.png", png())
    assert sum(console.line()["decisions"].values()) == before + 1
    assert console.read("/v1/review")["role"] == "review"


def test_a_version_shows_what_was_published_with_it(console: Console, tested: pd.DataFrame) -> None:
    known = console.read(VERSION)
    assert known["run_id"] == _run_id(console)
    for column in known["test"]:
        assert known["test"][column] == tested[column].tolist()
    assert known["metrics"]["scores"]["hybrid"]["image_auroc"] is not None
    assert {gate["gate"] for gate in known["gates"]} >= {"digests", "hybrid_auroc"}
    assert set(known["thresholds"]["scores"]) == set(KINDS)
    assert len(known["heatmaps"]) == 2
    assert set(known["heatmaps"]) <= set(tested["sha256"])
    for name in known["heatmaps"].values():
        answer = console.ask("GET", f"{VERSION}/heatmaps/{name}")
        assert answer.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(answer.content)).width > 1000


def test_two_versions_are_compared_on_the_same_images(console: Console) -> None:
    known = [console.read(f"/v1/lines/{LINE}/versions/{version}") for version in (1, 2)]
    for kind in KINDS:
        url = f"/v1/lines/{LINE}/comparison?left=1&right=2&kind={kind}"
        found = console.read(url)
        assert found["images"] == len(known[0]["test"]["sha256"])
        one, other = (each["metrics"]["scores"][kind] for each in known)
        expected = other["image_auroc"] - one["image_auroc"]
        assert found["differences"]["auroc"]["value"] == pytest.approx(expected, abs=1e-5)
        expected = other["fnr_at_fpr_05"] - one["fnr_at_fpr_05"]
        assert found["differences"]["fnr_at_fpr_05"]["value"] == pytest.approx(expected, abs=1e-5)
        low, high = found["differences"]["auroc"]["ci95"]
        assert low <= high
    same = console.read(f"/v1/lines/{LINE}/comparison?left=2&right=2")["differences"]["auroc"]
    assert (same["value"], same["ci95"], same["p_value"]) == (0, [0, 0], 1)
    for query, status in (("left=1&right=9", 404), ("left=1", 422), ("left=1&right=2&kind=x", 422)):
        assert console.ask("GET", f"/v1/lines/{LINE}/comparison?{query}").status_code == status


def test_evidence_that_was_changed_is_not_shown(console: Console) -> None:
    run = run_folder(console.workspace, open_client(console.workspace), _run_id(console))
    known = console.read(VERSION)
    [first, *_] = known["heatmaps"].values()
    for file, url in (
        (run / "evaluate" / "scores.parquet", VERSION),
        (run / "evaluate" / "heatmaps" / first, f"{VERSION}/heatmaps/{first}"),
        (run / "manifest.json", VERSION),
    ):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        try:
            answer = console.ask("GET", url)
        finally:
            file.write_bytes(whole)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "refused")
        assert str(run) not in answer.text


def test_an_image_shows_the_maps_that_the_version_computes(console: Console, tested: pd.DataFrame) -> None:
    row = tested[tested["label"] == 1].iloc[0]
    view = console.read(f"{VERSION}/images/{row['sha256']}")
    detector = resolve(console.workspace, LINE, 1).load()
    root = console.workspace.root / "data" / LINE
    pixels = decode_image(root / row["path"], 10**6)
    [detection] = detector.score([pixels])
    assert (view["width"], view["height"]) == pixels.shape[1::-1]
    assert np.array_equal(_pixels(view["image"]), pixels)
    for kind in KINDS:
        assert view[kind] == pytest.approx(row[kind], abs=1e-4)
        threshold = detector.thresholds.map[kind]
        heat, passed = getattr(detection, f"{kind}_map"), detection.decision == "PASS"
        drawn = judged_overlay(kind, pixels, heat, threshold, passed)
        assert np.array_equal(_pixels(view["maps"][kind]), drawn)
    nearest = view["nearest"]
    assert (nearest["image"], nearest["sha256"]) == (detection.nearest.image, detection.nearest.sha256)
    assert _pixels(nearest["patch"]).shape == _pixels(nearest["normal"]).shape
    small = console.ask("GET", f"{VERSION}/images/{row['sha256']}/thumbnail")
    assert max(Image.open(io.BytesIO(small.content)).size) <= 224


def test_an_image_that_is_another_one_now_is_not_shown(console: Console, tested: pd.DataFrame) -> None:
    row = tested.iloc[0]
    url = f"{VERSION}/images/{row['sha256']}"
    nearest = console.read(url)["nearest"]
    root = console.workspace.root / "data" / LINE
    normal, image = root / nearest["image"], root / row["path"]
    whole = {file: file.read_bytes() for file in (normal, image)}
    try:
        normal.write_bytes(png())
        changed = console.read(url)["nearest"]
        assert (changed["normal"], changed["image"]) == (None, nearest["image"])
        image.unlink()
        for address in (url, f"{url}/thumbnail"):
            answer = console.ask("GET", address)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_image")
    finally:
        for file, data in whole.items():
            file.write_bytes(data)


def test_a_judged_image_is_kept_only_where_that_was_asked_for(console: Console) -> None:
    images = [png(40, 30, value) for value in (50, 150)]
    forgotten = console.score("a.png", images[0])
    answer = console.ask("GET", f"/v1/predictions/{forgotten}/view")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_image")
    folder = console.workspace.state / "serve" / "images"
    assert not folder.exists()
    service = Service(
        console.workspace, console.workspace.state / "serve" / "keys.json", images=ImageStore(folder, 10**6)
    )
    service.start()
    keeping = replace(console, service=service)
    try:
        view = keeping.read(f"/v1/predictions/{keeping.score('b.png', images[1])}/view")
        assert (view["width"], view["height"]) == (40, 30)
        decision = keeping.read("/v1/predictions")["decisions"][0]["decision"]
        assert view["hybrid"] == pytest.approx(decision["hybrid"], abs=1e-4)
        assert [file.read_bytes() for file in folder.iterdir()] == [images[1]]
        (folder / decision["image_sha256"]).write_bytes(images[0])
        answer = keeping.ask("GET", f"/v1/predictions/{decision['prediction_id']}/view")
        assert answer.status_code == 404
    finally:
        service.stop()


def test_decisions_come_filtered_with_their_verdicts(console: Console) -> None:
    identity = console.score(HOSTILE, png(20, 20, 3))
    newest = console.read("/v1/predictions")["decisions"][0]
    assert (newest["decision"]["prediction_id"], newest["verdict"]) == (identity, None)
    assert newest["decision"]["source"].endswith(HOSTILE.rpartition("/")[2])
    told = {"name": "x" * 101, "reason": HOSTILE, "verdict": "defect", "defect_type": HOSTILE[:90]}
    answer = console.ask("POST", f"/v1/predictions/{identity}/verdict", json=told)
    assert answer.status_code == 422, "a name has 100 characters at most"
    told["name"] = HOSTILE[:100].strip()
    answer = console.ask("POST", f"/v1/predictions/{identity}/verdict", json=told)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    [given] = verdicts_on(console.workspace, [identity])[identity]
    assert (given.actor, given.reason, given.defect_type) == (told["name"], HOSTILE, HOSTILE[:90])
    assert console.read(f"/v1/predictions/{identity}/verdicts")[0]["reason"] == HOSTILE
    [shown] = console.read(f"/v1/predictions?line={LINE}&verdict=defect")["decisions"]
    assert shown["verdict"]["verdict"] == "defect"
    assert console.read("/v1/predictions?line=glass") == {"decisions": [], "before": None}
    assert console.ask("GET", f"/v1/predictions?decision={SECRET}").status_code == 422
    found = trace(console.workspace, identity)
    assert isinstance(found, PredictionTrace)
    assert list(found.verdicts) == [given]


def test_approve_reject_and_roll_back(console: Console) -> None:
    workspace = console.workspace
    assert console.decide("rollback").json()["error"]["code"] == "refused"
    event = console.decide("reject", version=2, reason=HOSTILE).json()
    assert (event["kind"], event["version"], event["actor"], event["reason"]) == (
        "rejection",
        2,
        "Ben",
        HOSTILE,
    )
    line = console.line()
    assert (line["champion"]["version"], line["challenger"], line["former"]) == (1, None, None)
    assert [each["standing"] for each in line["versions"]] == ["champion", "rejected"]
    stale = console.decide("promote", version=2, seen=line["seen"] - 1)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "refused")
    assert "somebody else" in stale.json()["error"]["message"]
    assert console.decide("promote", version=2).json()["kind"] == "promotion"
    line = console.line()
    assert (line["champion"]["version"], line["former"]) == (2, 1)
    assert [each["standing"] for each in line["versions"]] == ["former champion", "champion"]
    for number in (0, 2**31, 10**20):
        assert console.decide("rollback", to=number).json()["error"]["code"] == "bad_document"
    assert console.decide("rollback", to=1).json()["kind"] == "rollback"
    event = champion_event(workspace, LINE)
    assert event is not None
    assert (event.version, event.actor, event.reason) == (1, "Ben", "measured")
    assert verify(workspace) == []
    assert [each["kind"] for each in console.read(f"/v1/lines/{LINE}/history")["events"]] == [
        each.kind for each in history(workspace, LINE)
    ]


def test_a_gate_that_says_no_is_named(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verdict("hybrid_auroc", 0.4, "at least 0.6", passed=False)
    monkeypatch.setattr("novad.tracking.registry.gate", lambda *_: [verdict])
    answer = console.decide("promote", version=2)
    assert answer.status_code == 409
    assert "hybrid_auroc: measured 0.4" in answer.json()["error"]["message"]
    assert history(console.workspace, LINE)[-1].kind == "refusal"


GOOD = {"name": "Ben", "reason": "why", "seen": 1, "version": 2}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "bad_document"),
        (b"null", 422, "bad_document"),
        (b"[" * 10_000, 422, "bad_document"),
        (b'{"name": "\\ud800"}', 422, "bad_document"),
        (b"{" + b" " * 20_000 + b"}", 413, "request_too_large"),
        (json.dumps(GOOD | {"name": " "}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"name": f"{SECRET}\u202egnp"}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"reason": f"{SECRET}\0"}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"reason": SECRET * 200}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"reason": [SECRET]}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {SECRET: 1}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"version": 0}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"version": 10**30}).encode(), 422, "bad_document"),
        (json.dumps(GOOD | {"version": 9}).encode(), 404, "unknown_version"),
        (json.dumps({key: GOOD[key] for key in ("name", "reason", "version")}).encode(), 422, "bad_document"),
    ],
)
@pytest.mark.parametrize("what", ["promote", "reject"])
def test_a_document_of_another_shape_decides_nothing(
    what: str, body: bytes, status: int, code: str, console: Console
) -> None:
    before = history(console.workspace, LINE)
    headers = {"content-type": "application/json"}
    answer = console.ask("POST", f"/v1/lines/{LINE}/{what}", Role.ADMIN, content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert SECRET not in answer.text
    assert history(console.workspace, LINE) == before


def test_a_form_of_a_foreign_page_is_no_document(console: Console) -> None:
    headers = {"content-type": "text/plain"}
    answer = console.ask(
        "POST", f"/v1/lines/{LINE}/promote", Role.ADMIN, content=json.dumps(GOOD), headers=headers
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "media_type")


@pytest.mark.parametrize("document", [{"verdict": "good", "defect_type": "dent"}, {"verdict": "maybe"}, {}])
def test_a_verdict_of_another_shape_is_refused(document: dict[str, str], console: Console) -> None:
    told = {"name": "Ben", "reason": "why", **document}
    answer = console.ask("POST", f"/v1/predictions/{NOBODYS}/verdict", json=told)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_document")


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/v1/lines/glass/versions/1", 404),
        (f"/v1/lines/{LINE}/versions/9", 404),
        (f"/v1/lines/{LINE}/versions/{SECRET}", 422),
        (f"{VERSION}/heatmaps/..%2F..%2Fmanifest.json", 404),
        (f"{VERSION}/heatmaps/nothing.png", 404),
        (f"{VERSION}/images/{SECRET}", 422),
        (f"{VERSION}/images/..%2F..%2F..%2Fetc%2Fpasswd", 404),
        (f"{VERSION}/images/{'0' * 64}", 404),
        (f"/v1/predictions/{NOBODYS}/view", 404),
        ("/console/..%2Fpage.py", 404),
        ("/console/nothing.js", 404),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_an_echo(
    url: str, status: int, console: Console
) -> None:
    answer = console.ask("GET", url)
    assert (answer.status_code, set(answer.json()["error"])) == (status, {"code", "message", "image"})
    for text in (SECRET, "glass", "passwd", str(console.workspace.root)):
        assert text not in answer.text


@pytest.mark.parametrize("url", ["/console/", "/console/main.js", "/v1/review", "/nothing", "/healthz"])
def test_every_answer_forbids_what_a_page_of_ours_never_needs(url: str, console: Console) -> None:
    headers = console.ask("GET", url).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert (policy["frame-ancestors"], policy["form-action"], policy["base-uri"]) == ("'none'",) * 3
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_page_needs_no_key_and_nothing_from_elsewhere(console: Console) -> None:
    assert console.ask("GET", "/", headers={"X-API-Key": ""}).headers["location"] == "/console/"
    folder = Path(novad.serving.console.__file__).parent / "static"
    for file in folder.iterdir():
        answer = console.ask("GET", f"/console/{file.name}", headers={"X-API-Key": ""})
        assert (answer.status_code, answer.content) == (200, file.read_bytes())
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    page = console.ask("GET", "/console/").text
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page)


@pytest.fixture(scope="module")
def address(console: Console) -> Iterator[str]:
    with running(console.app) as url:
        yield f"{url}/console/"


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Browser]:
    with opened(address, tmp_path) as browser:
        yield browser
        assert browser.complaints() == []


@needs_chromium
def test_a_key_is_asked_for_once_and_kept_from_the_address(console: Console, browser: Browser) -> None:
    browser.open("")
    for key, said in (("wrong", "does not know"), (console.keys[Role.SCORE], "may score, but not review")):
        browser.sign_in(key)
        browser.wait_for_text(".problem", said)
    browser.expect_complaints("401", "403")
    browser.sign_in(console.keys[Role.REVIEW])
    browser.wait_for_text("h1", "Product lines")
    assert browser.text("tbody th") == LINE
    waiting = console.line()["challenger"]
    told = "\N{EN DASH}" if waiting is None else f"Version {waiting}"
    assert told in browser.text("[data-label=Challenger]")
    browser.reload()
    browser.wait_for_text("h1", "Product lines")
    assert console.keys[Role.REVIEW] not in browser.script(
        "return location.href + JSON.stringify(localStorage)"
    )
    loaded = browser.script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert loaded
    assert all(each.startswith(browser.address.removesuffix("console/")) for each in loaded)
    browser.click("#sign-out")
    browser.wait_for_text("h1", "Review console")
    assert browser.script("return sessionStorage.length") == 0


@needs_chromium
def test_drift_of_a_line_is_told_beside_it(
    console: Console, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console.service.drift, "_reports", {})
    assert console.line()["drift"] is None
    quiet = monitor(console.workspace, LINE)
    alarm = replace(
        quiet, verdict="alarm", drifted=("brightness", "refused"), since="2026-01-02T03:04:05.000000+00:00"
    )
    monkeypatch.setattr(console.service.drift, "_reports", {LINE: quiet})
    assert console.line()["drift"] == {"verdict": "quiet", "drifted": [], "since": None}
    monkeypatch.setattr(console.service.drift, "_reports", {LINE: alarm})
    browser.enter(console.keys[Role.REVIEW], "#/lines")
    browser.wait_for_text("[data-label=Notes]", "Drift of brightness, refused since about ")
    assert browser.script("return document.querySelector('[data-label=Notes] time').dateTime") == alarm.since


@needs_chromium
def test_champion_and_challenger_stand_side_by_side(console: Console, browser: Browser) -> None:
    known = [console.read(f"/v1/lines/{LINE}/versions/{version}") for version in (1, 2)]
    browser.enter(console.keys[Role.REVIEW], f"#/lines/{LINE}")
    browser.wait_for(".histogram")
    first = browser.texts("section tbody tr:first-child td")[:2]
    for shown, version in zip(first, known, strict=True):
        figures = version["metrics"]["scores"]["hybrid"]
        low, high = figures["ci95"]["image_auroc"]
        assert shown.split("\n") == [f"{figures['image_auroc']:.3f}", f"{low:.3f} to {high:.3f}"]
    bars = browser.script(
        "return [...document.querySelectorAll('.histogram')].map((each) =>"
        " [...each.querySelectorAll('rect')].filter((bar) => bar.getAttribute('height') > 0).length)"
    )
    assert len(bars) == 2
    assert all(bars)
    assert browser.script("return document.querySelectorAll('.buttons').length") == 0, (
        "a review key decides nothing"
    )
    browser.wait_for_text("table", "Paired bootstrap")
    browser.click("[name=score][value=novelty]")
    browser.wait_for_text("h2", "Figures of the novelty score")
    browser.click("summary")
    browser.script("document.querySelector('.panels').scrollIntoView()")
    browser.wait_for_picture(".panels img")
    browser.click(".tile")
    browser.wait_for_picture("dialog section:last-of-type .view figure:nth-child(4) img")
    assert browser.texts("dialog h3") == ["Version 1", "Version 2"]


@needs_chromium
def test_of_two_pages_that_are_asked_for_at_once_the_later_one_is_shown(
    console: Console, browser: Browser
) -> None:
    browser.enter(console.keys[Role.REVIEW], "#/lines")
    browser.wait_for_text("h1", "Product lines")
    browser.script(
        """
        const ask = window.fetch;
        const pause = (time) => new Promise((done) => setTimeout(done, time));
        window.fetch = async (path, options) => {
          if (!path.endsWith("/history")) return ask(path, options);
          location.hash = "#/decisions";
          await pause(1500);
          setTimeout(() => (window.settled = true), 1000);
          return ask(path, options);
        };
        location.hash = arguments[0];
        """,
        f"#/lines/{LINE}",
    )
    browser.wait_until("return window.settled")
    assert browser.text("h1") == "Decisions"


@needs_chromium
def test_a_verdict_by_keyboard_alone(console: Console, browser: Browser, tested: pd.DataFrame) -> None:
    root = console.workspace.root / "data" / LINE
    row = tested[tested["label"] == 1].iloc[0]
    older = console.score("older.png", png(20, 20, 5))
    newer = console.score(HOSTILE, (root / row["path"]).read_bytes())
    browser.enter(console.keys[Role.REVIEW], f"#/decisions?line={LINE}")
    browser.wait_for(".decisions button")
    browser.press("j")
    browser.wait_for_picture(".view figure:nth-child(4) img")
    browser.wait_for_picture(".patches figure:nth-child(2) img")
    source = console.read("/v1/predictions")["decisions"][0]["decision"]["source"]
    assert "<script>" in source
    assert browser.text(".detail h2 .source") == source
    browser.press("j")
    browser.wait_for_text(".detail h2", "older.png")
    browser.wait_for_text(".view, .detail .note", "not at hand")
    browser.expect_complaints("404")
    browser.press("k")
    browser.wait_for_text(".detail h2", source)
    browser.press("d")
    browser.type("dent <b>", then="TAB")
    browser.type("Ada", then="TAB")
    browser.type(HOSTILE, then="TAB")
    browser.press("ENTER")
    browser.wait_for_text(".verdicts", HOSTILE)
    [given] = verdicts_on(console.workspace, [newer])[newer]
    assert (given.verdict, given.defect_type, given.actor, given.reason) == (
        "defect",
        "dent <b>",
        "Ada",
        HOSTILE,
    )
    assert verdicts_on(console.workspace, [older]) == {}
    assert browser.script("return document.activeElement.closest('.decisions') !== null")
    assert browser.script("return [document.title, document.querySelectorAll('main [onerror]').length]") == [
        "novad review console",
        0,
    ]


@needs_chromium
def test_reject_and_approve_by_name_and_reason(
    console: Console, browser: Browser, empty_database: Path
) -> None:
    browser.enter(console.keys[Role.ADMIN], f"#/lines/{LINE}")
    browser.wait_for(".buttons")
    browser.click(".buttons button:nth-child(2)")
    browser.type("Ada", then="TAB")
    browser.type(HOSTILE, then="TAB")
    browser.press("ENTER")
    browser.wait_for_text("#status", "is rejected")
    event = history(console.workspace, LINE)[-1]
    assert (event.kind, event.version, event.actor, event.reason) == ("rejection", 2, "Ada", HOSTILE)
    browser.wait_for_text("main", HOSTILE)
    train_again(console.workspace, empty_database, "seed: 1", "seed: 2")
    browser.reload()
    browser.wait_for_text(".buttons", "Approve version 3")
    promote(console.workspace, LINE, 2, "ben", "meanwhile")
    browser.click(".buttons button:first-child")
    browser.type("better", then="TAB")
    browser.press("ENTER")
    browser.wait_for_text("dialog .problem", "somebody else")
    browser.expect_complaints("409")
    browser.press("ESCAPE")
    browser.reload()
    browser.wait_for_text("main", "Version 2 is champion")
    browser.click(".buttons button:first-child")
    browser.type("better", then="TAB")
    browser.press("ENTER")
    browser.wait_for_text("main", "Version 3 is champion")
    champion = champion_event(console.workspace, LINE)
    assert champion is not None
    assert (champion.version, champion.actor, champion.reason) == (3, "Ada", "better")
    assert champion.actor in browser.text("main")


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1366])
def test_every_page_can_be_read_and_reached(
    width: int, scheme: str, console: Console, browser: Browser, tested: pd.DataFrame
) -> None:
    console.score("x" * 300, png(20, 20, 9))
    browser.screen(width, scheme)
    browser.enter(console.keys[Role.ADMIN], "#/lines")
    for place, sign in (
        ("#/lines", "tbody"),
        (f"#/lines/{LINE}", ".histogram"),
        ("#/decisions", ".decisions button"),
    ):
        browser.go(place)
        browser.wait_for(sign)
        if place == "#/decisions":
            browser.press("j")
            browser.wait_for(".detail form")
        assert browser.faults() == []
    browser.press("?")
    browser.wait_for_text("dialog", "next decision")
    assert browser.faults() == []
    browser.expect_complaints("404")
