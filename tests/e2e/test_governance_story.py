"""One line's life by its commands, and what its records say of every point of it afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from novad.cli import main
from novad.config import Workspace
from novad.tracking import publish
from small_line import LINE, STAGES, untrained_line

Novad = Callable[..., Any]
ANN = ("--approver", "Ann", "--reason", "asked by the shift")
POLICY = "default: {{digests: {{}}, data_gate: {{}}, sample_counts: {{train: {train}}}}}\n"


@pytest.fixture
def novad(capsys: pytest.CaptureFixture[str]) -> Novad:
    """The document of a command, and its status where another one than 0 is expected."""

    def run(*arguments: object, status: int = 0) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--json"])
        told = capsys.readouterr()
        assert ended.value.code == status, told.err
        return json.loads(told.out)

    return run


@pytest.fixture
def workspace(own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Images and settings of a line, and a policy of its own."""
    monkeypatch.setenv("NOVAD_WORKSPACE", str(tmp_path))
    made = untrained_line(tmp_path, train=24, test_good=8, per_defect=2)
    code = (tmp_path / "mlflow").readlink() / "novad_model.py"
    (tmp_path / "mlflow").unlink()
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "novad_model.py").symlink_to(code)
    _demand(made, 5)
    return made


def _demand(workspace: Workspace, train: int) -> None:
    workspace.path("mlflow/gates.yaml").write_text(POLICY.format(train=train))


def _train(workspace: Workspace) -> int:
    for stage in STAGES:
        stage.run(workspace, LINE)
    return publish(workspace, LINE).version


def _measured(gates: dict[str, Any]) -> int:
    """Training images that the gate of sample counts found."""
    [counts] = [each["measured"] for each in gates["gates"] if each["gate"] == "sample_counts"]
    return int(counts["train"])


def test_every_point_of_a_lines_life_is_told_from_its_records(workspace: Workspace, novad: Novad) -> None:
    part = workspace.root / "data" / LINE / "test" / "good" / "000.png"
    good = workspace.root / "data" / LINE / "train" / "good"
    later = sorted(good.iterdir())[16:]
    aside = workspace.root / "aside"
    aside.mkdir()
    for path in later:
        path.rename(aside / path.name)

    def judged() -> dict[str, Any]:
        [row] = novad("score", LINE, part)["images"]
        return dict(novad("trace", row["prediction_id"])) | {"row": row}

    assert _train(workspace) == 1
    first = novad("promote", LINE, "--version", 1, *ANN)
    by_first = judged()
    changed = novad("threshold", LINE, "--value", -1000, "--approver", "Bea", "--reason", "recall of lot 7")
    assert (changed["kind"], changed["version"], changed["detail"]["fail"]) == ("threshold", 1, -1000.0)
    by_changed = judged()
    for path in aside.iterdir():
        path.rename(good / path.name)
    assert _train(workspace) == 2
    fewer, more = (_measured(novad("gate", LINE, "--version", version)) for version in (1, 2))
    assert fewer < more
    _demand(workspace, more)
    refused = novad("promote", LINE, "--version", 1, *ANN, status=1)
    assert "sample_counts" in refused["error"]
    second = novad("promote", LINE, "--version", 2, "--approver", "Cem", "--reason", "more data")
    by_second = judged()
    back = novad("rollback", LINE, "--approver", "Dan", "--reason", "false alarms")
    by_former = judged()

    told = novad("history", LINE)["events"]
    assert [(each["kind"], each["version"], each["actor"]) for each in told] == [
        ("promotion", 1, "Ann"),
        ("threshold", 1, "Bea"),
        ("refusal", 1, "Ann"),
        ("promotion", 2, "Cem"),
        ("rollback", 1, "Dan"),
    ]

    def at(time: str) -> Any:
        [standing] = novad("audit", LINE, "--at", time)["standings"]
        return standing

    own = at(first["at"])["thresholds"]
    assert at("2020-01-01T00:00")["decision"] is None
    for event, version, thresholds in (
        (first, 1, own),
        (changed, 1, {name: changed["detail"][name] for name in ("fail", "review", "alpha")}),
        (told[2], 1, {name: changed["detail"][name] for name in ("fail", "review", "alpha")}),
        (second, 2, at(second["at"])["model"]["thresholds"]),
        (back, 1, own),
    ):
        then = at(event["at"])
        assert (then["decision"]["version"], then["model"]["version"]) == (version, version)
        assert then["thresholds"] == thresholds
        split = pd.read_parquet(_manifest(workspace, then["model"]["run_id"]))["split"]
        assert then["model"]["images"] == split.value_counts().to_dict()
        assert split.value_counts()["bank"] == {1: fewer, 2: more}[version]

    for found, version, approver in (
        (by_first, 1, "Ann"), (by_changed, 1, "Ann"), (by_second, 2, "Cem"), (by_former, 1, "Dan"),
    ):  # fmt: skip
        assert (found["model"]["version"], found["approval"]["approver"]) == (version, approver)
        images = pd.read_parquet(_manifest(workspace, found["model"]["run_id"]))
        nearest = found["row"]["nearest"]
        assert dict(zip(images["path"], images["sha256"], strict=True))[nearest["image"]] == nearest["sha256"]
        uses = novad("trace", nearest["sha256"])["versions"]
        assert version in [use["version"] for use in uses if use["split"] == "bank"]
    assert by_changed["row"]["decision"] == "FAIL"
    assert by_former["row"]["hybrid"] == by_first["row"]["hybrid"]
    assert by_former["row"]["decision"] == by_first["row"]["decision"]
    assert novad("audit", "--verify")["checked"][LINE]["problems"] == []


def _manifest(workspace: Workspace, run_id: str) -> Path:
    [path] = workspace.state.glob(f"mlartifacts/**/{run_id}/artifacts/validate/manifest.parquet")
    return path
