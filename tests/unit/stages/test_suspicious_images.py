"""The stage memory_bank ranks its images, shows them, and leaves out what the settings say and no more."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from novad.config import Workspace
from novad.images import read_manifest
from novad.stages import memory_bank, suspicious_images, validate
from novad.stages.deviations import Deviations
from novad.stages.line import Line
from novad.tracking.digests import file_digest
from novad.vision.memory_bank import load_bank
from small_line import LINE, untrained_line

# First by name: where it is left out, every other image moves up.
ODD = "train/good/0-odd.png"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A validated line of 20 normals, one of them with a glaring spot."""
    made = untrained_line(tmp_path, train=19, test_good=3, per_defect=1)
    good = tmp_path / "data" / LINE / "train/good"
    pixels = np.array(Image.open(sorted(good.iterdir())[0]).convert("RGB"))
    pixels[40:80, 40:80] = (255, 0, 255)
    Image.fromarray(pixels).save(good / Path(ODD).name)
    # By another seed the odd image may calibrate instead.
    for seed in range(10):
        made.params.write_text(made.params.read_text().replace("    seed: 0\n", f"    seed: {seed}\n"))
        validate.run(made, LINE)
        manifest = read_manifest(made.artifacts(LINE, "validate") / "manifest.parquet")
        if manifest.set_index("path")["split"][ODD] == "bank":
            return made
    raise AssertionError("the odd image is in no bank")


def _trained(workspace: Workspace, share: float = 0.0) -> dict[str, Any]:
    text = workspace.params.read_text()
    assert "exclude_suspicious: 0.0" in text
    workspace.params.write_text(text.replace("exclude_suspicious: 0.0", f"exclude_suspicious: {share}"))
    memory_bank.run(workspace, LINE)
    workspace.params.write_text(text)
    folder = workspace.artifacts(LINE, "memory_bank")
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in ("bank", "suspicious")}


def test_the_odd_image_comes_first_and_nothing_is_left_out_unasked(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _trained(workspace)
    first = told["suspicious"]["images"][0]
    assert first["path"] == ODD
    assert first["sha256"] == file_digest(workspace.root / "data" / LINE / ODD)
    assert first["robust_z"] > 3
    assert first["nearest"] != ODD
    suspicion = [each["suspicion"] for each in told["suspicious"]["images"]]
    assert suspicion == sorted(suspicion, reverse=True)
    assert told["suspicious"]["ranked"] == len(suspicion) == len(told["bank"]["images"])
    assert told["bank"]["excluded"] == []
    assert not any(each["excluded"] for each in told["suspicious"]["images"])
    said = capsys.readouterr().err
    assert ODD in said
    assert "left out" not in said


def test_what_is_left_out_is_named_everywhere_and_known_to_no_later_stage(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = _trained(workspace)["bank"]["images"]
    told = _trained(workspace, 0.1)
    assert [path for path, _ in told["bank"]["excluded"]] == [ODD]
    assert told["bank"]["images"] == [each for each in images if each[0] != ODD]
    assert [each["path"] for each in told["suspicious"]["images"] if each["excluded"]] == [ODD]
    assert f"1 images left out by exclude_suspicious: {ODD}" in capsys.readouterr().err
    bank = load_bank(workspace.artifacts(LINE, "memory_bank") / "bank.safetensors")
    assert bank.origins[:, 0].max() == len(images) - 2
    read: list[str] = []
    decoded = Line.images

    def images_of(line: Line, rows: pd.DataFrame) -> Iterator[Any]:
        read.extend(rows["path"])
        return decoded(line, rows)

    monkeypatch.setattr(Line, "images", images_of)
    Deviations.fit(Line.open(workspace, LINE))
    # Once for the explanation, once for the memory.
    assert read == 2 * [path for path, _ in told["bank"]["images"]]


def test_all_that_was_left_out_is_listed_however_much_it_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspicious_images, "SHOWN", 2)
    told = _trained(workspace, 0.5)
    assert all(each["excluded"] for each in told["suspicious"]["images"])
    assert len(told["suspicious"]["images"]) == len(told["bank"]["excluded"])
    assert len(told["bank"]["excluded"]) == told["suspicious"]["ranked"] // 2
    assert told["suspicious"]["excluded"] == len(told["bank"]["excluded"])


def test_two_trainings_leave_the_same_bytes_and_a_sheet_of_every_image(workspace: Workspace) -> None:
    _trained(workspace, 0.1)
    folder = workspace.artifacts(LINE, "memory_bank")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    told = _trained(workspace, 0.1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {"bank.json", "bank.safetensors", "suspicious.json", "suspicious.png"}
    with Image.open(folder / "suspicious.png") as sheet:
        assert sheet.width > 6 * 160
        assert sheet.height > (told["suspicious"]["ranked"] // 6) * 160
