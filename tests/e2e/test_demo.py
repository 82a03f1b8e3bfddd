"""The demo from its command to a champion that judges images, on a smaller network input."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ruamel.yaml import YAML

from fake_line import REPOSITORY
from novad.cli import main

LINE = "woven-fabric"


def _novad(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int | str | None, Any, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    told = capsys.readouterr()
    return ended.value.code, json.loads(told.out), told.err


@pytest.mark.slow
def test_the_demo_ends_with_a_champion_and_a_second_one_with_nothing_to_do(
    own_store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PREFECT_API_URL", "NOVAD_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("novad.pipeline.demo.DEMO_LINES", (LINE,))
    root = tmp_path / "demo"
    root.mkdir()
    settings = YAML().load((REPOSITORY / "params.yaml").read_text("utf-8"))
    for section in (settings["lines"][LINE]["backbone"], settings["lines"][LINE]["explainer"]["backbone"]):
        section["image_size"] = 96
    settings["lines"][LINE]["evaluate"] |= {"bootstrap": 50, "heatmaps": 3}
    YAML().dump(settings, root / "params.yaml")

    code, document, err = _novad(capsys, "demo", "--workdir", root)
    [first] = document["lines"]
    assert len(first["ran"]) == 5, err
    assert first["version"] == 1
    metrics = json.loads((root / f"artifacts/{LINE}/evaluate/metrics.json").read_text("utf-8"))
    for kind, shown in first["scores"].items():
        assert shown["image_auroc"] == metrics["scores"][kind]["image_auroc"]
    refused = metrics["scores"]["hybrid"]["image_auroc"] < _limit()
    assert (code, first["champion"]) == ((1, None) if refused else (0, 1))
    assert len(list((root / f"artifacts/{LINE}/evaluate/heatmaps").glob("*.png"))) == 3

    code, document, _ = _novad(capsys, "demo", "--workdir", root)
    [second] = document["lines"]
    assert (code, second["unchanged"], second["ran"], second["version"]) == (0, True, [], 1)
    assert second["scores"] == first["scores"]

    monkeypatch.setenv("NOVAD_WORKSPACE", str(root))
    some = sorted((root / f"data/{LINE}/test/oil_stain").glob("*.png"))[:2]
    code, document, _ = _novad(capsys, "score", LINE, *some, "--heatmaps", tmp_path / "maps")
    assert (code, document["version"], document["unreadable"]) == (0, 1, [])
    published = {row["decision"] for row in document["images"]}
    assert published <= {"PASS", "REVIEW", "FAIL"}
    for row in document["images"]:
        assert row["nearest"]["image"].startswith("train/good/")
        assert Image.open(row["heatmap"]).size[0] > 600
    assert document["images"][0]["hybrid"] != document["images"][1]["hybrid"]


def _limit() -> float:
    gates = YAML(typ="safe").load((REPOSITORY / "mlflow/gates.yaml").read_text("utf-8"))
    return float(gates["default"]["hybrid_auroc"]["min"])
