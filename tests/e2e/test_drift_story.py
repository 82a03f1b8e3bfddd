"""From failing light to the version that learned from it, through the commands that people use."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from novad.cli import main
from novad.config import Workspace
from novad.images.demo import make_demo_line
from novad.pipeline.train import LineResult
from novad.tracking import publish
from small_line import LINE, STAGES, small_plant

pytestmark = pytest.mark.slow

USUAL, DIM, FRESH = 10, 36, 10


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Workspace]:
    """A small trained line, to be retrained on drift."""
    with small_plant(
        tmp_path_factory.mktemp("plant"), empty_database, train=20, retrain={"on_drift": True}
    ) as workspace:
        yield workspace


def _novad(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    return ended.value.code, json.loads(capsys.readouterr().out)


def _parts(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Good parts that no training has seen: in the usual light, in half of it, and others in half of it."""
    make_demo_line(LINE, folder, train=20 + USUAL + DIM + FRESH, test_good=0, per_defect=0)
    files = sorted((folder / "train/good").iterdir())[20:]
    for file in files[USUAL:]:
        pixels = np.asarray(Image.open(file))
        Image.fromarray((pixels * 0.5).astype(np.uint8)).save(file)
    return files[:USUAL], files[USUAL : USUAL + DIM], files[USUAL + DIM :]


def test_a_line_learns_the_light_of_today_from_what_people_confirmed(
    plant: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(
        workspace: Workspace, lines: list[str], force: bool, wait: bool, reason: str
    ) -> list[LineResult]:
        """The stages as they are; how Prefect and DVC run them is tested elsewhere."""
        for stage in STAGES:
            stage.run(workspace, LINE)
        published = publish(workspace, LINE, reason=reason)
        return [LineResult(LINE, published.version, published.run_id, reason=reason)]

    monkeypatch.setattr("novad.pipeline.retraining.train_lines", train)
    usual, dim, fresh = _parts(tmp_path / "seen")
    _novad(capsys, "score", LINE, *usual)
    assert _novad(capsys, "monitor", LINE)[0] == 0
    assert _novad(capsys, "train", LINE, "--if-due") == (0, {"lines": [], "not_due": [LINE]})

    _, judged = _novad(capsys, "score", LINE, *dim)
    code, found = _novad(capsys, "monitor", LINE)
    assert (code, found["verdict"]) == (1, "alarm")
    alarms = [each for each in judged["images"] if each["decision"] != "PASS"]
    rows = [f"{each['prediction_id']},good,,dim light" for each in alarms]
    table = tmp_path / "found.csv"
    table.write_text("\n".join(["prediction_id,truth,defect_type,reason", *rows]))
    assert _novad(capsys, "data", "verdicts", LINE, table, "--by", "Ada")[1]["added"] == len(alarms)
    assert _novad(capsys, "data", "accept", LINE, "--approver", "Ben", "--reason", "good parts")[0] == 0

    _, before = _novad(capsys, "score", LINE, *fresh, "--no-log")
    _, told = _novad(capsys, "train", LINE, "--if-due")
    [row] = told["lines"]
    assert (row["version"], row["reason"].partition(" since ")[0]) == (
        2,
        f"drift of {', '.join(found['drifted'])}",
    )
    assert _novad(capsys, "train", LINE, "--if-due")[1]["not_due"] == [LINE]
    _novad(capsys, "promote", LINE, "--version", 2, "--approver", "Ben", "--reason", "learned the light")
    _, after = _novad(capsys, "score", LINE, *fresh, "--no-log")
    assert _refused(before) >= 0.9
    assert _refused(after) <= 0.5
    assert _novad(capsys, "monitor", LINE)[1]["verdict"] == "quiet"


def _refused(judged: Any) -> float:
    return float(np.mean([each["decision"] != "PASS" for each in judged["images"]]))
