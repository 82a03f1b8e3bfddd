"""A trained line, published, loaded and served by MLflow itself, without a network."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from novad.config import Workspace
from novad.errors import IntegrityError
from novad.images import decode_image
from novad.tracking import check, gate, resolve
from novad.tracking.model import OUTPUT_COLUMNS
from novad.tracking.store import locate, open_client
from novad.vision import Detector
from small_line import LINE, small_line

SECONDS_TO_START = 120
# How pickles begin from protocol 2 on, and the zip archives that torch.save makes of them.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


@dataclass(frozen=True)
class Trained:
    """A published line and one good and one defective image of it."""

    workspace: Workspace
    images: tuple[Path, Path]

    @property
    def environment(self) -> dict[str, str]:
        """What MLflow's own commands need to find the registry, and nothing that finds the internet."""
        proxies = dict.fromkeys(
            ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"
        )
        return {
            **os.environ,
            **proxies,
            "NO_PROXY": "127.0.0.1,localhost",
            "MLFLOW_TRACKING_URI": locate(self.workspace).tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def expected(self) -> pd.DataFrame:
        """Scores of the two images by the detector that training left."""
        detector = Detector.load(self.workspace.artifacts(LINE, "evaluate") / "detector")
        found = detector.score(decode_image(path, 10**6) for path in self.images)
        columns = ("familiarity", "novelty", "hybrid", "p_value", "decision")
        return pd.DataFrame([{name: getattr(one, name) for name in columns} for one in found])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Trained]:
    """A small part of a demo line, trained and published once."""
    with small_line(
        tmp_path_factory.mktemp("serving"), empty_database, train=16, test_good=8, per_defect=2
    ) as workspace:
        data = workspace.root / "data" / LINE / "test"
        yield Trained(workspace, (data / "good" / "000.png", next((data / "scratch").glob("*.png"))))


@pytest.fixture(scope="module")
def server(trained: Trained) -> Iterator[str]:
    """Address of `mlflow models serve`, the command that anybody would type."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{LINE}@challenger"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    log = trained.workspace.root / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=trained.environment, stdout=stream, stderr=stream, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not _answers(f"{address}/ping"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.25)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback
            return bool(answer.status == 200)
    except OSError:
        return False


def _post(address: str, rows: list[list[object]], columns: tuple[str, ...] = ("image",)) -> tuple[int, Any]:
    body = json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}).encode()
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{address}/invocations", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def _text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _same_scores(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(table.columns) == list(OUTPUT_COLUMNS)
    assert table["decision"].tolist() == expected["decision"].tolist()
    for name in ("familiarity", "novelty", "hybrid", "p_value"):
        assert table[name].tolist() == pytest.approx(expected[name].tolist(), abs=1e-4)


def test_served_scores_are_those_of_the_trained_detector(trained: Trained, server: str) -> None:
    status, answer = _post(server, [[_text(path)] for path in trained.images])
    assert status == 200
    table = pd.DataFrame(answer["predictions"])
    _same_scores(table, trained.expected())
    assert set(table["digest"]) == {resolve(trained.workspace, LINE).detector_digest}


@pytest.mark.parametrize("bad", ["", "%%%", "c2VjcmV0LXBpeGVscw==", 7, None])
def test_a_bad_image_is_answered_with_400_by_row_without_an_echo(
    trained: Trained, server: str, bad: object
) -> None:
    status, answer = _post(server, [[_text(trained.images[0])], [bad]])
    assert status == 400
    text = json.dumps(answer)
    assert "row 1" in text
    assert "Traceback" not in text
    assert _text(trained.images[0])[:40] not in text
    assert "c2VjcmV0" not in text


def test_a_table_without_images_is_answered_with_400(server: str) -> None:
    assert _post(server, [["x"]], columns=("picture",))[0] == 400


def test_the_registered_model_loads_and_scores_without_any_connection(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    def refuse(*arguments: object, **_named: object) -> None:
        raise AssertionError(f"a connection was attempted: {arguments[1:]}")

    open_client(trained.workspace)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model = mlflow.pyfunc.load_model(f"models:/{LINE}@challenger")
    given = pd.DataFrame({"image": [_text(trained.images[0]), trained.images[1].read_bytes()]})
    _same_scores(model.predict(given), trained.expected())


def test_loading_through_mlflow_leaves_the_published_digests_intact(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    open_client(trained.workspace)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    mlflow.pyfunc.load_model(f"models:/{LINE}@challenger")
    # Compiled code was written there: Python made its folder.
    assert (resolve(trained.workspace, LINE).folder.parents[1] / "__pycache__").is_dir()
    assert check(trained.workspace, LINE).problems == ()


def test_nothing_in_the_model_is_a_pickle(trained: Trained) -> None:
    folder = resolve(trained.workspace, LINE).folder.parents[1]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.read_bytes()[:2] in PICKLES]
    assert {path.suffix for path in (folder / "artifacts").rglob("*") if path.is_file()} == {
        ".json",
        ".safetensors",
    }


def test_the_gates_find_their_figures_in_what_the_stages_wrote(trained: Trained) -> None:
    verdicts = {verdict.gate: verdict for verdict in gate(trained.workspace, LINE, 1)}
    metrics = json.loads((trained.workspace.artifacts(LINE, "evaluate") / "metrics.json").read_text())
    assert verdicts["data_gate"].measured == 0
    assert verdicts["digests"].passed
    assert verdicts["sample_counts"].measured["test_normal"] == metrics["counts"]["test_normal"]
    assert verdicts["hybrid_auroc"].measured == metrics["scores"]["hybrid"]["image_auroc"]


def test_a_tampered_detector_is_refused_by_mlflow_and_by_novad(trained: Trained) -> None:
    import mlflow

    open_client(trained.workspace)
    folder = resolve(trained.workspace, LINE).folder
    kept = trained.workspace.root / "kept"
    shutil.copytree(folder, kept)
    try:
        bank = folder / "bank.safetensors"
        data = bytearray(bank.read_bytes())
        data[-1] ^= 1
        bank.write_bytes(data)
        with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
            resolve(trained.workspace, LINE)
        with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
            mlflow.pyfunc.load_model(f"models:/{LINE}@challenger")
    finally:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
