"""From a wrong judgement to the version that learned from it, through the commands that people use."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novad.cli import main
from novad.config import Workspace
from novad.images import read_manifest
from novad.images.demo import make_demo_line
from novad.stages import validate
from novad.tracking import promote, publish, verified_since_champion, verify
from small_line import LINE, small_plant

pytestmark = pytest.mark.slow

Novad = Callable[..., Any]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Workspace]:
    """A small trained line."""
    with small_plant(tmp_path_factory.mktemp("plant"), empty_database, train=14) as workspace:
        yield workspace


@pytest.fixture
def novad(capsys: pytest.CaptureFixture[str]) -> Novad:
    """The document of a command that ends well."""

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--json"])
        told = capsys.readouterr()
        assert ended.value.code == 0, told
        return json.loads(told.out)

    return run


def test_judged_verified_accepted_trained_and_traced(plant: Workspace, novad: Novad, tmp_path: Path) -> None:
    make_demo_line(LINE, tmp_path / "shift", train=16, test_good=4, per_defect=4)
    good, defect = (tmp_path / "shift" / name for name in ("train/good/015.png", "test/dent/003.png"))
    judged = novad("score", LINE, good, defect)["images"]
    # Whatever an untrained network said, people found otherwise, or confirmed the defect.
    rows = [f"{judged[0]['prediction_id']},good,,clean", f"{judged[1]['prediction_id']},defect,dent,bent"]
    table = tmp_path / "shift.csv"
    table.write_text("\n".join(["prediction_id,truth,defect_type,reason", *rows]))
    assert novad("data", "verdicts", LINE, table, "--by", "Ada")["added"] == 2

    before = read_manifest(plant.artifacts(LINE, "validate") / "manifest.parquet").set_index("path")["split"]
    waiting = {each["sha256"] for each in novad("data", "pending", LINE)["ready"]}
    false_alarm = judged[0]["decision"] != "PASS"
    assert waiting == {each["sha256"] for each in judged[0 if false_alarm else 1 :]}
    told = novad("data", "accept", LINE, "--approver", "Ben", "--reason", "looked at both")
    assert told["event"]["detail"]["data"]["path"] == "data.dvc"
    assert verified_since_champion(plant, LINE) == len(waiting)

    # The manifest is what a version knows its images by; learning from them is tested elsewhere.
    validate.run(plant, LINE)
    assert publish(plant, LINE).version == 2
    after = read_manifest(plant.artifacts(LINE, "validate") / "manifest.parquet").set_index("path")["split"]
    assert after[before.index].tolist() == before.tolist()
    assert len(after) == len(before) + len(waiting)
    found = novad("trace", defect)
    [use] = found["versions"]
    assert (use["version"], use["path"]) == (2, found["acceptances"][0]["path"])
    assert use["split"] in {"tuning", "test"}
    assert (found["verdicts"][0]["actor"], found["acceptances"][0]["approver"]) == ("Ada", "Ben")
    promote(plant, LINE, 2, "ada", "learned from the shift")
    assert verified_since_champion(plant, LINE) == 0
    assert verify(plant) == []
