"""`novad monitor`: verdicts, exit codes, webhooks, and logs and records as bad as they come."""

import importlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import delete

from fake_line import make_workspace
from monitored_line import BEGUN, NORMALS, OWN, REVIEW, log_parts, make_champion, parts
from novad.cli import main
from novad.config import Workspace
from novad.errors import ConfigError, RefusedError
from novad.serving.drift import DriftWatch
from novad.serving.metrics import Metrics
from novad.tracking import monitor
from novad.tracking.database import DECISIONS, writing
from novad.tracking.events import append
from novad.tracking.store import locate

Novad = Callable[..., tuple[int, str, str]]
DIMMED = np.random.default_rng(1).normal(0.6 - 0.08 * (np.arange(300) >= 150), 0.02)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Workspace]:
    """Lines `metal`, with a champion, and `other`, without."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
            patched.delenv(name, raising=False)
        workspace = make_workspace(tmp_path_factory.mktemp("monitor"), "metal", "other")
        workspace.state.mkdir()
        shutil.copyfile(empty_database, workspace.state / "mlflow.db")
        make_champion(workspace)
        yield workspace


@pytest.fixture
def line(published: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The same without decisions, as the working folder."""
    monkeypatch.chdir(published.root)
    params = published.params.read_text()
    yield published
    published.params.write_text(params)
    with writing(locate(published)) as connection:
        connection.execute(delete(DECISIONS))


@pytest.fixture
def novad(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Novad:
    """Run ``novad monitor``: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["monitor", *map(str, arguments)])
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return run


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A webhook on the loopback: its address, what it took, and the statuses it answers with."""
    taken: list[Any] = []
    statuses: list[int] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret-token", taken, statuses
    server.shutdown()
    thread.join()
    server.server_close()


def _set(workspace: Workspace, setting: str) -> None:
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("data/metal\n", f"data/metal\n    monitor: {{{setting}}}\n"))


def _told(novad: Novad, *arguments: object) -> tuple[int, Any]:
    code, out, _ = novad("metal", "--json", *arguments)
    return code, json.loads(out)


def test_before_the_first_decision_it_is_quiet(novad: Novad, line: Workspace) -> None:
    code, told = _told(novad)
    assert (code, told["verdict"], told["parts"], told["first"], told["since"]) == (0, "quiet", 0, None, None)
    assert told["rates"]["PASS"] == {"count": 0, "share": None, "interval": None}
    assert "no decision of version 1 on a part yet" in novad("metal")[1]


def test_parts_like_the_normals_are_quiet_with_their_rates(novad: Novad, line: Workspace) -> None:
    log_parts(line, parts(300))
    code, told = _told(novad)
    assert (code, told["verdict"], told["drifted"], told["posted"]) == (0, "quiet", [], None)
    assert told["parts"] == 300
    rates = told["rates"]
    assert sum(rate["count"] for rate in rates.values()) == 300
    low, high = rates["PASS"]["interval"]
    assert low < rates["PASS"]["share"] == rates["PASS"]["count"] / 300 < high
    names = [stream["name"] for stream in told["streams"]]
    assert names == ["hybrid", "familiarity", "novelty", "brightness", "contrast", "sharpness", "refused"]
    assert {stream["parts"] for stream in told["streams"][:-1]} == {rates["PASS"]["count"]}
    assert "metal: quiet (evidence" in novad("metal")[1]


def test_dimmer_light_raises_an_alarm_that_tells_since_when(novad: Novad, line: Workspace) -> None:
    log_parts(line, parts(300, brightness=DIMMED))
    code, told = _told(novad)
    assert (code, told["verdict"], told["drifted"]) == (1, "alarm", ["brightness"])
    begun = datetime.fromisoformat(told["since"]) - BEGUN
    assert abs(begun - timedelta(minutes=150)) <= timedelta(minutes=10)
    assert _told(novad) == (code, told)
    code, out, _ = novad("metal")
    assert code == 1
    assert f"ALARM on brightness since about {told['since'][:19]}" in out
    assert " lower " in out


def test_an_alarm_is_settled_by_a_later_start_in_the_command_or_the_settings(
    novad: Novad, line: Workspace
) -> None:
    mended = np.where(np.arange(300) < 200, 0.4, 0.6) + np.random.default_rng(1).normal(0, 0.02, 300)
    log_parts(line, parts(300, brightness=mended))
    assert _told(novad)[0] == 1
    assert _told(novad, "--window", 100)[0] == 0
    code, told = _told(novad, "--since", "2026-01-01T03:20")
    assert (code, told["parts"], told["first"][:16]) == (0, 100, "2026-01-01T03:20")
    _set(line, "since: 2026-01-01 03:20:00")
    assert _told(novad) == (0, told)
    assert _told(novad, "--since", "2026-01-01")[0] == 1


def test_what_is_no_part_of_the_stream_is_left_out_and_counted(novad: Novad, line: Workspace) -> None:
    log_parts(line, parts(40))
    with sqlite3.connect(line.state / "mlflow.db") as connection:
        for at, change in enumerate(
            (
                "hybrid = 'much'",
                "hybrid = 9e999",
                "decision = 'MAYBE'",
                f"image_sha256 = '{OWN}'",
                f"image_sha256 = '{40:064x}'",
                "version = 2",
                "shadow = 1",
                "line = 'other'",
                "brightness = 'dark', contrast = NULL, sharpness = 9e999",
            )
        ):
            change = f"UPDATE novad_decisions SET {change} WHERE image_sha256 = ?"  # noqa: S608
            connection.execute(change, (f"{at + 1:064x}",))
    code, told = _told(novad)
    assert (code, told["parts"]) == (0, 32)
    assert told["left_out"] == {"own_data": 1, "repeated": 1, "unusable": 3}
    passed = told["rates"]["PASS"]["count"]
    assert {each["name"]: each["parts"] - passed for each in told["streams"][2:6]} == {
        "novelty": 0,
        "brightness": -1,
        "contrast": -1,
        "sharpness": -1,
    }
    assert "Left out: 1 own data, 1 repeated, 3 unusable" in novad("metal")[1]


def test_another_threshold_decides_which_parts_pass(novad: Novad, line: Workspace) -> None:
    from novad.tracking.reference import champion_reference, read_reference

    reference = champion_reference(line, "metal")
    [count] = {len(each) for each in reference.normals.values()}
    assert 0 < count < NORMALS
    assert reference.normals["hybrid"].max() < REVIEW
    limit = float(reference.normals["hybrid"][0])
    strict = read_reference(line.root / "artifacts/metal", 1, review=limit)
    kept = reference.normals["hybrid"] < limit
    for name, normals in reference.normals.items():
        np.testing.assert_array_equal(strict.normals[name], normals[kept])


def test_good_parts_of_the_tuning_split_are_the_reference_where_they_set_the_threshold(
    line: Workspace,
) -> None:
    from novad.tracking.reference import read_reference

    artifacts = line.root / "artifacts/metal"
    whole = read_reference(artifacts, 1).normals["hybrid"]
    file = artifacts / "calibrate_explainer/scores.parquet"
    scores = pd.read_parquet(file)
    scores.loc[: NORMALS // 2, "split"] = "tuning"
    scores.to_parquet(file)
    assert len(read_reference(artifacts, 1).normals["hybrid"]) < len(whole)
    told = artifacts / "tune_fusion/fusion.json"
    fusion = json.loads(told.read_text())
    fusion["thresholds"]["normals_of"] = ["calibration", "tuning"]
    told.write_text(json.dumps(fusion))
    np.testing.assert_array_equal(read_reference(artifacts, 1).normals["hybrid"], whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "lines.nothing: no such product line"),
        (("other",), "other has no champion"),
        (("metal", "--since", "yesterday"), "--since: 'yesterday' is not a time"),
        (("metal", "--webhook", "ftp://example.org"), "--webhook: must be an address"),
        (("metal", "--window", "0"), "--window"),
    ],
)
def test_wrong_input_exits_2_and_is_named(
    arguments: tuple[str, ...], message: str, novad: Novad, line: Workspace
) -> None:
    code, out, _ = novad(*arguments, "--json")
    assert code == 2
    assert message in json.loads(out)["error"]


def test_a_changed_record_of_the_champion_is_refused(novad: Novad, line: Workspace) -> None:
    [manifest] = (line.state / "mlartifacts/metal").glob("*/artifacts/manifest.json")
    run = manifest.parent
    for path in (manifest, run / "tune_fusion/fusion.json", run / "validate/manifest.parquet"):
        before = path.read_bytes()
        path.write_bytes(before.replace(b"e", b"f", 1))
        code, told = _told(novad)
        path.write_bytes(before)
        assert code == 1
        assert str(path) in told["error"]
    assert _told(novad)[0] == 0


def test_an_alarm_is_posted_once_where_the_user_wants_it_and_quiet_is_not(
    novad: Novad, line: Workspace, hook: tuple[str, list[Any], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novad.tracking.webhook._PAUSES", (0.0, 0.0))
    address, taken, statuses = hook
    log_parts(line, parts(300, brightness=DIMMED))
    assert _told(novad, "--webhook", address, "--window", 10)[1]["posted"] is None
    assert taken == []
    statuses += [500, 503]
    code, told = _told(novad, "--webhook", address)
    assert (code, told.pop("posted"), len(taken)) == (1, True, 3)
    assert taken[-1] == told
    _set(line, f"webhook: '{address}'")
    assert _told(novad)[0] == 1
    assert len(taken) == 4


def test_a_webhook_that_fails_exits_3_after_the_verdict_and_its_secret_is_kept(
    novad: Novad, line: Workspace, hook: tuple[str, list[Any], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novad.tracking.webhook._PAUSES", (0.0, 0.0))
    address, taken, statuses = hook
    log_parts(line, parts(300, brightness=DIMMED))
    statuses += [500, 404, 302]
    code, out, err = novad("metal", "--json", "--webhook", address)
    told = json.loads(out)
    assert (code, told["verdict"], told["posted"], len(taken)) == (3, "alarm", False, 3)
    assert "the webhook at 127.0.0.1 did not take the alarm: status 302" in err
    assert "secret-token" not in out + err
    code, out, err = novad("metal", "--webhook", "http://127.0.0.1:1/secret-token")
    assert code == 3
    assert "ALARM on" in out
    assert "refused" in err
    assert "secret-token" not in out + err


def test_the_service_tells_prometheus_and_a_line_that_cannot_be_watched_spoils_no_other(
    novad: Novad, line: Workspace
) -> None:
    log_parts(line, parts(300, brightness=DIMMED))
    watch = DriftWatch(line, lambda: {"gone": 1, "metal": 1})
    assert "drift_alarm{" not in Metrics().text({}, 0, watch.reports).decode()
    watch.refresh()
    told = _told(novad)[1]
    figures = Metrics().text({}, 0, watch.reports).decode()
    assert 'novad_drift_alarm{line="metal"} 1.0' in figures
    for stream in told["streams"]:
        shown = f'novad_drift_evidence{{figure="{stream["name"]}",line="metal"}} '
        [value] = [text.removeprefix(shown) for text in figures.splitlines() if text.startswith(shown)]
        assert float(value) == stream["evidence"]
    assert "gone" not in figures


def test_the_service_watches_the_version_that_still_judges(make_tracked: Callable[..., Workspace]) -> None:
    line = make_tracked("metal")
    make_champion(line)
    append(line, "metal", "promotion", actor="ben", reason="newer", version=2)
    log_parts(line, parts(300, brightness=DIMMED))
    watch = DriftWatch(line, lambda: {"metal": 1})
    watch.refresh()
    found = watch.reports["metal"]
    assert (found.version, found.verdict, found.drifted) == (1, "alarm", ("brightness",))
    with pytest.raises(ConfigError, match="version 3 was never champion"):
        monitor(line, "metal", version=3)


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_watches_every_line_with_a_champion_and_fails_on_an_alarm(
    line: Workspace, hook: tuple[str, list[Any], list[int]]
) -> None:
    address, taken, _ = hook
    flow = importlib.import_module("flows.monitor").monitor
    _set(line, f"webhook: '{address}'")
    assert {name: each.verdict for name, each in flow(line.root).items()} == {"metal": "quiet"}
    log_parts(line, parts(300, brightness=DIMMED))
    with pytest.raises(RefusedError, match="metal: drift of brightness; other: other has no champion"):
        flow(line.root, ["metal", "other"])
    assert [each["drifted"] for each in taken] == [["brightness"]]
