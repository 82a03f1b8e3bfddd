"""The scoring service on a line that is really trained: answers, bad requests, exchange of champions."""

import asyncio
import base64
import hashlib
import importlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from PIL import Image

from hostile_requests import FORM, GOOD, HOSTILE, SECRET, b64, part, png
from novad.cli import main
from novad.config import Workspace
from novad.errors import ConfigError, RefusedError, ServiceError
from novad.evaluation.overlays import overlay
from novad.images import decode_image
from novad.images.fingerprint import grey_statistics
from novad.serving.answers import line_answer
from novad.serving.app import build_app
from novad.serving.champions import Champions
from novad.serving.keys import Role, add_key
from novad.serving.queue import Job, Picture
from novad.serving.scoring import Scorer
from novad.serving.service import Service
from novad.serving.uploads import Limits
from novad.tracking import (
    change_threshold,
    check,
    decisions_on,
    find_decision,
    promote,
    publications,
    resolve,
    standing,
    trace,
)
from novad.tracking.database import DECISIONS, reading
from novad.tracking.events import append
from novad.tracking.golden import golden_images
from novad.tracking.model import OUTPUT_COLUMNS
from novad.tracking.reference import champion_reference
from novad.tracking.store import locate
from novad.vision import Detector
from novad.vision.calibration import conformal_threshold
from small_line import LINE, small_line, train_again

LIMITS = Limits(request_bytes=1_000_000, image_bytes=200_000, images=8, pixels=3_000_000, body_seconds=5)
SCORE = f"/v1/lines/{LINE}/score"
KINDS = ("familiarity", "novelty", "hybrid")


@dataclass(frozen=True)
class Served:
    """A started service with two registered versions, of which the first is champion at first."""

    workspace: Workspace
    service: Service
    keys: dict[Role, str]
    images: tuple[Path, ...]

    @cached_property
    def app(self) -> FastAPI:
        """As a running service has it: made once, for all requests."""
        return build_app(self.service)

    def ask(self, *calls: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]) -> list[httpx.Response]:
        """Answers to requests that are made at the same time, with a key that may score."""

        async def together() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app)
            headers = {"X-API-Key": self.keys[Role.SCORE]}
            async with httpx.AsyncClient(
                transport=transport, base_url="http://novad", headers=headers, timeout=60
            ) as client:
                return list(await asyncio.gather(*(call(client) for call in calls)))

        return asyncio.run(together())

    def one(self, method: str, url: str, role: Role = Role.SCORE, **options: Any) -> httpx.Response:
        """One answer."""
        headers = {"X-API-Key": self.keys[role], **options.pop("headers", {})}
        [answer] = self.ask(lambda client: client.request(method, url, headers=headers, **options))
        return answer

    def expected(self, version: int) -> list[dict[str, float]]:
        """Scores of the images by the detector that is registered as ``version``."""
        detector = Detector.load(resolve(self.workspace, LINE, version).folder)
        found = detector.score(decode_image(path, 10**6) for path in self.images)
        return [{kind: getattr(each, kind) for kind in KINDS} for each in found]

    def logged(self) -> int:
        """Rows of the decision log."""
        with reading(locate(self.workspace), DECISIONS) as connection:
            return len(connection.execute(DECISIONS.select()).all()) if connection is not None else 0


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Workspace]:
    """Two versions, the first promoted; gates are not what is tested here."""
    with small_line(
        tmp_path_factory.mktemp("service"), empty_database, train=16, test_good=8, per_defect=2
    ) as workspace:
        train_again(workspace, empty_database, "seed: 0", "seed: 1")
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("novad.tracking.registry.gate", lambda *_: [])
            promote(workspace, LINE, 1, "ada", "first")
            yield workspace


@pytest.fixture(scope="module")
def keys(line: Workspace) -> tuple[Path, dict[Role, str]]:
    file = line.state / "serve" / "keys.json"
    return file, {role: add_key(file, role) for role in Role}


def _images(workspace: Workspace) -> tuple[Path, ...]:
    test = workspace.root / "data" / LINE / "test"
    return (test / "good" / "000.png", test / "scratch" / "000.png", test / "dent" / "001.png")


@pytest.fixture(scope="module")
def served(line: Workspace, keys: tuple[Path, dict[Role, str]]) -> Iterator[Served]:
    service = Service(line, keys[0], limits=LIMITS)
    service.start()
    try:
        yield Served(line, service, keys[1], _images(line))
    finally:
        service.stop()


def _texts(images: tuple[Path, ...]) -> list[str]:
    return [base64.b64encode(path.read_bytes()).decode() for path in images]


def _close(results: list[dict[str, Any]], expected: list[dict[str, float]]) -> bool:
    return all(
        result[kind] == pytest.approx(wanted[kind], abs=1e-4)
        for result, wanted in zip(results, expected, strict=True)
        for kind in KINDS
    )


def test_forms_json_and_mlflows_form_give_the_scores_of_the_champion(served: Served) -> None:
    files = [("images", (path.name, path.read_bytes(), "image/png")) for path in served.images]
    texts = _texts(served.images)
    form = served.one("POST", SCORE, files=files)
    plain = served.one("POST", SCORE, json={"images": texts})
    split = served.one(
        "POST", "/invocations", json={"dataframe_split": {"columns": ["image"], "data": [[t] for t in texts]}}
    )
    records = served.one(
        "POST", f"/invocations?line={LINE}", json={"dataframe_records": [{"image": text} for text in texts]}
    )
    model = resolve(served.workspace, LINE)
    for answer in (form, plain):
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert (document["line"], document["version"]) == (LINE, model.version)
        assert document["digest"] == model.detector_digest
        assert _close(document["results"], served.expected(model.version))
        assert [result["index"] for result in document["results"]] == [0, 1, 2]
    for answer in (split, records):
        assert answer.status_code == 200, answer.text
        rows = answer.json()["predictions"]
        assert _close(rows, served.expected(model.version))
        assert set(rows[0]) == {*OUTPUT_COLUMNS, "version", "prediction_id"}
        assert {row["digest"] for row in rows} == {model.detector_digest}


def test_every_answer_is_in_the_log_and_leads_to_its_approver(served: Served) -> None:
    before = served.logged()
    path = served.images[1]
    [result] = served.one("POST", SCORE, files={"images": (path.name, path.read_bytes())}).json()["results"]
    assert served.logged() == before + 1
    decision = find_decision(served.workspace, result["prediction_id"])
    assert decision is not None
    assert (decision.source, decision.hybrid, decision.decision) == (
        path.name,
        result["hybrid"],
        result["decision"],
    )
    assert decision in decisions_on(served.workspace, result["sha256"])
    manifest = pd.read_parquet(served.workspace.artifacts(LINE, "validate") / "manifest.parquet")
    [row] = manifest[manifest["path"] == "test/scratch/000.png"].to_dict("records")
    for name in ("brightness", "contrast", "sharpness"):
        assert getattr(decision, name) == row[name]
    assert decision.latency_ms > 0
    found = trace(served.workspace, result["prediction_id"])
    assert found.approval.approver == "ada"  # type: ignore[union-attr]
    found = trace(served.workspace, str(path))
    assert {(use.version, use.split) for use in found.versions} == {  # type: ignore[union-attr]
        (1, found.versions[0].split),  # type: ignore[union-attr]
        (2, found.versions[0].split),  # type: ignore[union-attr]
    }
    answer = served.one("GET", f"/v1/predictions/{result['prediction_id']}", Role.REVIEW)
    assert answer.json()["image_sha256"] == result["sha256"]
    unknown = served.one("GET", f"/v1/predictions/{uuid4()}", Role.REVIEW)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_prediction")


def test_a_line_in_service_is_monitored_against_its_own_calibration(served: Served) -> None:
    detector = Detector.load(resolve(served.workspace, LINE).folder)
    reference = champion_reference(served.workspace, LINE)
    hybrid = detector.fusion.normal_scores
    passing = np.sort(hybrid[hybrid < detector.thresholds.review])
    np.testing.assert_allclose(np.sort(reference.normals["hybrid"]), passing, atol=1e-9)
    texts = [b64(png(16, 16)), *_texts(served.images)]
    assert served.one("POST", SCORE, json={"images": texts}).status_code == 200
    served.service.drift.refresh()
    report = served.service.drift.reports[LINE]
    assert report.parts >= 1
    assert report.left_out["own_data"] >= len(served.images)
    assert f'novad_drift_alarm{{line="{LINE}"}} ' in served.one("GET", "/metrics", Role.REVIEW).text


def test_a_heatmap_comes_as_a_picture_when_it_is_asked_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = served.service.champions.state(LINE).champion
    assert champion is not None
    for kind in KINDS:  # So few calibration images promise no threshold, and nothing would glow.
        monkeypatch.setitem(champion.detector.thresholds.map, kind, 0.0)
    body = {"images": _texts(served.images[1:2])}
    pixels = decode_image(served.images[1], 10**6)
    [detection] = champion.detector.score([pixels])
    for kind in KINDS:
        [result] = served.one("POST", f"{SCORE}?heatmap={kind}", json=body).json()["results"]
        picture = Image.open(io.BytesIO(base64.b64decode(result["heatmap"])))
        drawn = overlay(pixels, getattr(detection, f"{kind}_map"), 0.0)
        assert picture.format == "PNG"
        assert np.abs(np.asarray(picture).astype(int) - drawn).max() <= 1
    assert (detection.familiarity_map != detection.novelty_map).any()
    wide = io.BytesIO()
    Image.new("I;16", (2000, 100), 30_000).save(wide, "PNG")
    body = {"images": [base64.b64encode(wide.getvalue()).decode()]}
    [result] = served.one("POST", f"{SCORE}?heatmap=hybrid", json=body).json()["results"]
    assert Image.open(io.BytesIO(base64.b64decode(result["heatmap"]))).size == (1024, 51)
    [result] = served.one("POST", SCORE, json=body).json()["results"]
    assert result["heatmap"] is None


ROUTES = [
    ("POST", SCORE, Role.SCORE),
    ("POST", "/invocations", Role.SCORE),
    ("GET", "/v1/lines", Role.SCORE),
    ("GET", "/v1/predictions/x", Role.REVIEW),
    ("GET", "/metrics", Role.REVIEW),
    ("POST", "/v1/refresh", Role.ADMIN),
]


@pytest.mark.parametrize(("method", "url", "needed"), ROUTES)
def test_every_route_asks_for_a_key_of_its_role(method: str, url: str, needed: Role, served: Served) -> None:
    for given in ({}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {"Authorization": "Basic eDp5"}):
        [answer] = served.ask(
            lambda client, given=given: client.request(method, url, headers={"X-API-Key": "", **given})
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    for role, key in served.keys.items():
        bearer = {"X-API-Key": "", "Authorization": f"Bearer {key}"}
        [answer] = served.ask(lambda client, bearer=bearer: client.request(method, url, headers=bearer))
        assert (answer.status_code == 403) == (role < needed)
        assert answer.status_code != 401


def test_health_readiness_lines_figures_and_description(served: Served) -> None:
    served.one("POST", SCORE, json={"images": _texts(served.images)})
    for url in ("/healthz", "/readyz"):
        [answer] = served.ask(lambda client, url=url: client.get(url, headers={"X-API-Key": ""}))
        assert answer.status_code == 200
    [row] = served.one("GET", "/v1/lines").json()["lines"]
    model = resolve(served.workspace, LINE)
    assert (row["line"], row["version"], row["problem"]) == (LINE, model.version, None)
    assert (row["digest"], row["approver"]) == (model.detector_digest, model.approver)
    assert row["replayed"] == 4
    figures = served.one("GET", "/metrics", Role.REVIEW).text
    assert f'novad_champion_version{{line="{LINE}"}} {model.version}' in figures
    assert 'novad_requests_total{route="/v1/lines/{line}/score",status="200"}' in figures
    assert 'shadow="false"' in figures
    document = served.one("GET", "/openapi.json").json()
    body = document["paths"]["/v1/lines/{line}/score"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "example" in body["application/json"]
    assert served.one("GET", "/docs").status_code == 404


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_request_is_answered_by_code_and_harms_nobody(name: str, served: Served) -> None:
    status, code, headers, body = HOSTILE[name]
    before = served.logged()
    answer, good = served.ask(
        lambda client: client.post(SCORE, content=body, headers=headers),
        lambda client: client.post(SCORE, json={"images": _texts(served.images[:1])}),
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert (error["image"] is not None) == (code in {"image_refused", "image_too_large", "too_many_pixels"})
    for text in (SECRET, "passwd", "Traceback", "検", "%%%", "File "):
        assert text not in answer.text
    assert good.status_code == 200
    assert _close(good.json()["results"], served.expected(good.json()["version"])[:1])
    assert served.logged() == before + 1


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["picture"], "data": [[GOOD]]}},
        {"dataframe_split": {"columns": ["image", "x"], "data": [[GOOD, 1]]}},
        {"dataframe_split": {"columns": ["image"], "data": [GOOD]}},
        {"dataframe_split": {"columns": ["image"], "data": [[]]}},
        {"dataframe_split": {"columns": ["image"]}},
        {"dataframe_split": [GOOD]},
        {"dataframe_records": [[GOOD]]},
        {"dataframe_records": [{"image": GOOD, "x": 1}]},
        {"dataframe_records": {"image": GOOD}},
        {"inputs": [GOOD]},
        {"dataframe_split": {"columns": ["image"], "data": [[GOOD]]}, "params": {}},
    ],
)
def test_a_table_of_another_shape_is_refused(body: dict[str, Any], served: Served) -> None:
    answer = served.one("POST", "/invocations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"] in {"bad_table", "bad_request"}) == (400, True)
    assert GOOD not in answer.text


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/v1/lines/glass/score", 404),
        ("/v1/lines/..%2F..%2Fetc/score", 404),
        ("/v1/lines/%00/score", 404),
        ("/v1/lines/%E6%A4%9C/score", 404),
        (f"/v1/lines/{'a' * 9000}/score", 404),
        (f"{SCORE}?heatmap={SECRET}", 422),
        ("/invocations?line=glass", 404),
        ("/nothing", 404),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_an_echo(url: str, status: int, served: Served) -> None:
    answer = served.one("POST", url, json={"images": [GOOD]})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "image"}
    for text in (SECRET, "glass", "etc", "aaaa"):
        assert text not in answer.text


def test_an_id_that_is_none_is_refused_without_an_echo(served: Served) -> None:
    answer = served.one("GET", f"/v1/predictions/{SECRET}%00", Role.REVIEW)
    assert (answer.status_code, SECRET in answer.text) == (422, False)


def test_a_body_that_does_not_come_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"images": ['
        await asyncio.sleep(20)

    monkeypatch.setattr(served.service, "limits", replace(LIMITS, body_seconds=0.05))
    answer = served.one("POST", SCORE, content=slow(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "too_slow")


def test_requests_beyond_the_limit_are_refused_as_json(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.service, "limits", replace(LIMITS, requests=2))
    answers = served.ask(*[lambda client: client.post(SCORE, json={"images": [GOOD]})] * 5)
    assert sorted(each.status_code for each in answers) == [200, 200, 503, 503, 503]
    refused = next(each for each in answers if each.status_code == 503)
    assert (refused.json()["error"]["code"], refused.headers["retry-after"]) == ("too_busy", "1")
    assert served.one("GET", "/healthz").status_code == 200


def test_no_more_bodies_are_read_at_once_than_may_be_held(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.service, "_bodies", asyncio.Semaphore(2))
    reading, most = 0, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0.02)
        yield json.dumps({"images": [GOOD]}).encode()
        reading -= 1

    headers = {"content-type": "application/json"}
    answers = served.ask(*[lambda client: client.post(SCORE, content=body(), headers=headers)] * 6)
    assert [each.status_code for each in answers] == [200] * 6
    assert most == 2


def test_a_full_queue_says_when_to_come_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.queue, "_max_images", 0)
    answer = served.one("POST", SCORE, json={"images": [GOOD]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"] == "1"
    assert served.one("GET", "/readyz").status_code == 503


def test_other_verbs_are_refused(served: Served) -> None:
    assert served.one("GET", SCORE).json()["error"]["code"] == "http_405"


def test_odd_but_true_images_are_judged(served: Served) -> None:
    images = [b64(png(width, height)) for width, height in ((1, 1), (3000, 1), (1, 3000), (64, 64))]
    assert served.one("POST", SCORE, json={"images": images}).status_code == 200


def test_a_file_name_is_a_name_and_nothing_more(served: Served) -> None:
    body = part(png(), b'name="../x"; filename="../../../etc/passwd%00\xe6\xa4\x9c.png"')
    answer = served.one("POST", SCORE, content=body, headers=FORM)
    assert answer.status_code == 200
    decision = find_decision(served.workspace, answer.json()["results"][0]["prediction_id"])
    assert decision is not None
    assert decision.source.endswith("検.png")


def test_what_cannot_be_logged_is_not_answered(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ServiceError("the disk is full, says /secret/path")

    monkeypatch.setattr("novad.serving.scoring.log_decisions", fail)
    answer = served.one("POST", SCORE, json={"images": [GOOD]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
    assert "secret" not in answer.text


def test_a_fault_of_novad_itself_spoils_only_its_own_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = served.service.champions.state(LINE).champion
    assert champion is not None
    judge = type(champion.detector)._judge

    def broken(self: Detector, group: Any, before: int) -> Any:
        if any(image.shape[0] == 5 for image in group):
            raise ZeroDivisionError("no such luck")
        return judge(self, group, before)

    monkeypatch.setattr(Detector, "_judge", broken)
    pixels = [np.full((height, 16, 3), 99, np.uint8) for height in (16, 5, 16)]
    jobs = [Job(LINE, (Picture("a.png", "ab" * 32, each, grey_statistics(each)),), 0.0) for each in pixels]
    Scorer(served.workspace, served.service.champions, lambda _: None)(jobs)
    assert [job.answer.exception(10) is None for job in jobs] == [True, False, True]
    answer = served.one("POST", SCORE, json={"images": [b64(png(16, 5))]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "luck" not in answer.text


def test_each_answer_is_by_the_version_it_names_while_champions_change(served: Served) -> None:
    expected = {version: served.expected(version) for version in (1, 2)}
    assert not _close(expected[1], expected[2])
    texts = _texts(served.images)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in served.images]
    detectors = {version: resolve(served.workspace, LINE, version).detector_digest for version in (1, 2)}
    swaps = 20
    seen: list[int] = []
    answered: dict[str, tuple[int, str]] = {}

    def exchange() -> None:
        for at in range(swaps):
            promote(served.workspace, LINE, 2 - at % 2, "ada", f"swap {at}")
            served.service.champions.refresh()

    def until_done(order: tuple[int, ...]) -> Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]:
        """Asks for the images in an order of its own: an answer to somebody else would be noticed."""

        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            answer = httpx.Response(500)
            while not done.done():
                answer = await client.post(SCORE, json={"images": [texts[at] for at in order]})
                assert answer.status_code == 200, answer.text
                document = answer.json()
                version, results = document["version"], document["results"]
                assert document["digest"] == detectors[version]
                assert [result["sha256"] for result in results] == [digests[at] for at in order]
                assert _close(results, [expected[version][at] for at in order])
                seen.append(version)
                answered.update({each["prediction_id"]: (version, each["sha256"]) for each in results})
            return answer

        return ask

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(exchange)
        served.ask(*map(until_done, ((0, 1, 2), (1, 2), (2, 0, 1), (2,))))
        done.result()
    assert sum(one != other for one, other in pairwise(seen)) >= swaps / 2
    with reading(locate(served.workspace), DECISIONS) as connection:
        assert connection is not None
        rows = connection.execute(DECISIONS.select()).mappings().all()
    logged = {row["prediction_id"]: (row["version"], row["image_sha256"]) for row in rows}
    assert answered.items() <= logged.items()
    assert resolve(served.workspace, LINE).version == 1


def test_a_champion_that_was_tampered_with_never_judges(
    line: Workspace, keys: tuple[Path, dict[Role, str]], served: Served
) -> None:
    service = Service(line, keys[0], limits=LIMITS)
    service.start()
    bank = resolve(line, LINE, 2).folder / "bank.safetensors"
    whole = bank.read_bytes()
    other = Served(line, service, keys[1], served.images)
    try:
        promote(line, LINE, 2, "ada", "better")
        bank.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        [row] = other.one("POST", "/v1/refresh", Role.ADMIN).json()["lines"]
        assert (row["version"], "bank.safetensors" in row["problem"]) == (1, True)
        assert other.one("POST", SCORE, json={"images": [GOOD]}).json()["version"] == 1
        assert f'novad_line_problem{{line="{LINE}"}} 1.0' in other.one("GET", "/metrics", Role.REVIEW).text
        bank.write_bytes(whole)
        [row] = other.one("POST", "/v1/refresh", Role.ADMIN).json()["lines"]
        assert (row["version"], row["problem"]) == (2, None)
    finally:
        bank.write_bytes(whole)
        promote(line, LINE, 1, "ada", "back")
        service.stop()


def test_a_device_that_is_not_there_serves_and_scores_nothing(
    line: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOVAD_DEVICE", "abacus")
    for attempt in (Champions(line).start, resolve(line, LINE).load):
        with pytest.raises(ConfigError, match="device 'abacus'"):
            attempt()
    monkeypatch.setenv("NOVAD_DEVICE", " cpu ")
    assert resolve(line, LINE).load().device.type == "cpu"


def test_a_champion_that_scores_otherwise_than_at_its_evaluation_never_judges(
    line: Workspace, served: Served
) -> None:
    champions = Champions(line)
    champions.refresh()
    changed = resolve(line, LINE, 2).detector_digest
    score = Detector.score

    def drifted(self: Detector, *images: Any) -> Iterator[Any]:
        for found in score(self, *images):
            yield replace(found, novelty=found.novelty + 0.01 * max(1.0, abs(found.novelty)))

    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                Detector, "score", lambda self, *a: (drifted if self.digest == changed else score)(self, *a)
            )
            promote(line, LINE, 2, "ada", "better")
            champions.refresh()
            row = line_answer(LINE, champions.state(LINE))
            assert (row.version, row.replayed) == (1, 4)
            for told in ("version 2 scores otherwise", "test/", ".png: novelty is", "recorded"):
                assert told in str(row.problem)
        champions.refresh(retry=True)
        row = line_answer(LINE, champions.state(LINE))
        assert (row.version, row.replayed, row.problem) == (2, 4, None)
    finally:
        promote(line, LINE, 1, "ada", "back")


def test_without_its_test_images_a_champion_judges_and_says_that_nothing_was_compared(
    line: Workspace, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    test = line.root / "data" / LINE / "test"
    champions = Champions(line)
    test.rename(test.with_name("away"))
    try:
        champions.refresh()
    finally:
        test.with_name("away").rename(test)
    row = line_answer(LINE, champions.state(LINE))
    assert (row.version, row.replayed, row.problem) == (1, 0, None)
    assert "no golden image was replayed" in caplog.text


def test_golden_images_span_the_scores_and_others_stand_in_for_those_that_changed(line: Workspace) -> None:
    every = golden_images(line, LINE, 1, 100)
    hybrids = [image.scores["hybrid"] for image in every]
    assert hybrids == sorted(hybrids)
    chosen = golden_images(line, LINE, 1, 4)
    last = len(every) - 1
    assert chosen == [every[round(at * last / 3)] for at in range(4)]
    before = chosen[1].file.read_bytes()
    chosen[1].file.write_bytes(before + b"\0")
    chosen[2].file.rename(chosen[2].file.with_suffix(".away"))
    try:
        others = golden_images(line, LINE, 1, 4)
    finally:
        chosen[1].file.write_bytes(before)
        chosen[2].file.with_suffix(".away").rename(chosen[2].file)
    assert [each for each in others if each in chosen] == [chosen[0], chosen[3]]
    assert others == [each for each in every if each in others]
    assert len(others) == 4
    assert [len(golden_images(line, LINE, 1, wanted)) for wanted in (0, 1, last + 1)] == [0, 1, last + 1]


def test_a_challenger_that_cannot_be_loaded_does_not_hold_a_champion_back(
    line: Workspace, keys: tuple[Path, dict[Role, str]], served: Served
) -> None:
    bank = resolve(line, LINE, 2).folder / "bank.safetensors"
    whole = bank.read_bytes()
    champions = Champions(line, shadow=True)
    try:
        bank.write_bytes(whole[:-1])
        champions.refresh()
        state = champions.state(LINE)
        assert state.champion is not None
        assert (state.champion.version, state.challenger) == (1, None)
        assert "bank.safetensors" in str(state.problem)
        assert state.champion_problem is None
    finally:
        bank.write_bytes(whole)
    champions.refresh()
    assert champions.state(LINE) is state, "not tried again at once"
    champion = state.champion
    champions.refresh(retry=True)
    state = champions.state(LINE)
    assert state.champion is champion, "nothing was wrong with it"
    assert state.challenger is not None
    assert (state.challenger.version, state.problem) == (2, None)
    champions.refresh()
    assert champions.state(LINE) is state, "nothing has changed"


def test_a_champion_is_loaded_again_only_for_what_changes_it(line: Workspace, served: Served) -> None:
    champions = Champions(line)
    champions.refresh()
    first = champions.state(LINE)
    assert first.champion is not None
    append(line, LINE, "refusal", actor="ben", reason="not yet", version=2)
    append(line, LINE, "data-accepted", actor="ben", reason="good parts")
    champions.refresh()
    state = champions.state(LINE)
    assert state.seen == (first.seen[0] + 2, None)
    assert state.champion is first.champion
    promote(line, LINE, 1, "ada", "measured again")
    champions.refresh()
    again = champions.state(LINE).champion
    assert again is not first.champion
    assert again is not None
    assert again.version == first.champion.version


def test_a_challenger_scores_silently_in_the_shadow(
    line: Workspace, keys: tuple[Path, dict[Role, str]], served: Served
) -> None:
    assert [each.version for each in publications(line)] == [1, 2]
    service = Service(line, keys[0], shadow=True, limits=LIMITS)
    service.start()
    shadowed = Served(line, service, keys[1], served.images)
    [row] = shadowed.one("GET", "/v1/lines").json()["lines"]
    assert (row["version"], row["shadow_version"]) == (1, 2)
    image = png(40, 30, 7)
    [result] = shadowed.one("POST", SCORE, json={"images": [b64(image)]}).json()["results"]
    service.stop()
    told, quiet = sorted(decisions_on(line, result["sha256"]), key=lambda each: each.shadow)
    assert (told.version, told.shadow, told.prediction_id) == (1, False, result["prediction_id"])
    assert (quiet.version, quiet.shadow) == (2, True)
    assert quiet.hybrid != told.hybrid
    answer = shadowed.one("POST", SCORE, json={"images": [GOOD]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
    assert shadowed.one("GET", "/readyz").status_code == 503


def test_without_a_champion_nobody_judges(tracked: Workspace, tmp_path: Path) -> None:
    service = Service(tracked, tmp_path / "keys.json")
    key = add_key(tmp_path / "keys.json", Role.SCORE)
    service.start()
    alone = Served(tracked, service, dict.fromkeys(Role, key), ())
    try:
        assert alone.one("GET", "/readyz").json()["error"]["code"] == "no_champion"
        assert alone.one("POST", "/v1/lines/metal/score", json={"images": [GOOD]}).status_code == 404
        assert alone.one("POST", "/invocations", json={}).json()["error"]["code"] == "line_needed"
    finally:
        service.stop()


@pytest.fixture
def serve(line: Workspace, tmp_path: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Any]]]:
    """Starts `novad serve` as anybody would; gives the process and what it says once it is ready."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Any]:
        environment = {
            **os.environ,
            "NOVAD_WORKSPACE": str(line.root),
            "NOVAD_KEYS_FILE": str(tmp_path / "serve" / "keys.json"),
        }
        command = [sys.executable, "-c", "from novad.cli import main; main()"]
        options = ["serve", "--port", "0", "--shadow", "--json"]
        with (tmp_path / "log").open("a") as log:
            process = subprocess.Popen(
                [*command, *options], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        started.append(process)
        assert process.stdout is not None
        told = ""
        while not told.endswith("}\n"):
            read = process.stdout.readline()
            assert read, (tmp_path / "log").read_text()
            told += read
        return process, json.loads(told)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _ask_until_it_ends(told: Any, key: str, images: tuple[Path, ...], answered: list[str]) -> None:
    with httpx.Client(base_url=told["url"], headers={"X-API-Key": key}, timeout=60) as client:
        while True:
            try:
                answer = client.post(SCORE, json={"images": _texts(images)})
            except httpx.TransportError:
                return
            if answer.status_code != 200:
                return
            answered += [result["prediction_id"] for result in answer.json()["results"]]


def _logged_since(workspace: Workspace, at: str, shadow: bool) -> int:
    wanted = DECISIONS.select().where(DECISIONS.c.at >= at, DECISIONS.c.shadow == shadow)
    with reading(locate(workspace), DECISIONS) as connection:
        return len(connection.execute(wanted).all()) if connection is not None else 0


def test_what_was_answered_is_in_the_log_however_the_service_ends(
    serve: Callable[[], tuple[subprocess.Popen[str], Any]], line: Workspace, tmp_path: Path
) -> None:
    key = None
    every: list[str] = []
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)):
        begun = datetime.now(UTC).isoformat()
        process, told = serve()
        assert (told["key"] is None) == (key is not None), "a key is made once"
        key = key or told["key"]
        answered: list[str] = []
        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                pool.submit(_ask_until_it_ends, told, key, _images(line), answered)
            deadline = time.monotonic() + 60
            while len(answered) < 30 and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(30) == status, (tmp_path / "log").read_text()
        assert len(answered) >= 30
        every += answered
        told_since, quiet_since = (_logged_since(line, begun, shadow) for shadow in (False, True))
        # A graceful end finishes what nobody waits for, too.
        assert quiet_since == told_since or (number is signal.SIGKILL and quiet_since < told_since)
    assert all(find_decision(line, each) for each in every)
    file = tmp_path / "serve" / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_connections_that_ask_nothing_shut_nobody_out(
    serve: Callable[[], tuple[subprocess.Popen[str], Any]],
) -> None:
    process, told = serve()
    url = httpx.URL(told["url"])
    with ExitStack() as idle:
        for _ in range(200):
            idle.enter_context(socket.create_connection((url.host, url.port)))
        assert httpx.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("fault", [None, ServiceError("the address is gone")])
def test_the_command_ends_every_thread_that_it_began(
    fault: Exception | None, line: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: list[str] = []

    def run(*_: object) -> None:
        running.extend(thread.name for thread in set(threading.enumerate()) - before)
        if fault is not None:
            raise fault

    monkeypatch.setenv("NOVAD_WORKSPACE", str(line.root))
    monkeypatch.setenv("NOVAD_KEYS_FILE", str(tmp_path / "keys.json"))
    monkeypatch.setattr("novad.cli.serve._run", run)
    before = set(threading.enumerate())
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--port", "0"])
    assert (ended.value.code == 0) == (fault is None)
    assert {"novad-scoring", "novad-champions"} <= set(running)
    assert set(threading.enumerate()) == before


def test_the_service_is_measured_beside_its_champion_without_a_trace_in_the_log(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    measured = importlib.import_module("benchmarks.__main__").main
    before, root = served.logged(), served.workspace.root
    asked = ["--data", root / "data" / LINE, "--artifacts", root / "artifacts", "--results", tmp_path]
    options = ["--scored", 12, "--repeats", 1, "--threads", 1]
    assert measured(["service", *map(str, [*asked, *options])]) == 0
    told = json.loads((tmp_path / "service.json").read_text("utf-8"))
    rows = {row["what"]: row for row in told["rows"]}
    assert (told["conditions"]["line"], len(rows)) == (LINE, 6)
    batches, forward, *_ = rows.values()
    assert batches["throughput of batches"] == forward["p50 of bare p50"] == 1
    assert all(row["throughput of batches"] > 0 for row in rows.values())
    alone = rows["service: one client, image by image"]
    assert 0 < alone["p50 of bare p50"] <= alone["p95 of bare p50"]
    assert all(row["memory MB"] > 100 for row in rows.values())
    assert served.logged() == before
    empty = ["--data", root / "data" / LINE, "--artifacts", tmp_path, "--results", tmp_path / "none"]
    assert measured(["service", *map(str, empty)]) == 0
    assert not (tmp_path / "none").exists()


def test_pixels_in_answers_are_never_arrays_of_numbers(served: Served) -> None:
    answer = served.one("POST", f"{SCORE}?heatmap=hybrid", json={"images": _texts(served.images)})
    assert len(answer.content) < 10 * sum(np.asarray(Image.open(path)).size for path in served.images)


def test_another_threshold_decides_at_once_and_until_the_next_promotion(served: Served) -> None:
    def decisions() -> set[str]:
        served.one("POST", "/v1/refresh", Role.ADMIN)
        answer = served.one("POST", SCORE, json={"images": _texts(served.images)}).json()
        assert answer["version"] == 1
        return {result["decision"] for result in answer["results"]}

    workspace = served.workspace
    own = resolve(workspace, LINE).load()
    normal, thresholds = own.fusion.normal_scores, own.thresholds
    event = change_threshold(workspace, LINE, "ada", "lawyers", value=-1000.0)
    assert decisions() == {"FAIL"}
    assert (event.version, event.detail["review"], event.detail["alpha"]) == (1, -1000.0, 1.0)
    assert standing(workspace, LINE).threshold == event
    event = change_threshold(workspace, LINE, "ada", "stock", value=1000.0)
    assert "FAIL" not in decisions()
    assert event.detail["before"]["fail"] == -1000.0
    assert event.detail["review"] == thresholds.review
    event = change_threshold(workspace, LINE, "ada", "a middle way", alpha=0.5)
    assert event.detail["fail"] == conformal_threshold(normal, 0.5)
    assert check(workspace, LINE).problems == ()
    with pytest.raises(RefusedError, match=f"{len(normal)} good parts promise"):
        change_threshold(workspace, LINE, "ada", "none must fail", alpha=0.5 / (len(normal) + 1))
    for wrong in ({"alpha": 1.0}, {"value": float("nan")}, {}, {"alpha": 0.1, "value": 1.0}):
        with pytest.raises(ConfigError, match="--"):
            change_threshold(workspace, LINE, "ada", "by mistake", **wrong)
    assert resolve(workspace, LINE).threshold == event
    promote(workspace, LINE, 1, "ada", "as it was")
    assert resolve(workspace, LINE).load().thresholds == thresholds
