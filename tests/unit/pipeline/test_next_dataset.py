"""Who may join a divided line: nobody who would bring one picture to two sides, or move an image."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from novad.config import LineSettings, Workspace
from novad.images.fingerprint import perceptual_hash, thumbnail
from novad.images.layouts import accepted_stem
from novad.images.report import Finding, GateReport
from novad.pipeline import next_dataset as module
from novad.pipeline.next_dataset import divide_next, next_dataset
from novad.stages import validate
from novad.stages.validate import divided

SETTINGS = LineSettings.model_validate(
    {
        "data": "data",
        "layout": "mvtec",
        # Every hash is near enough, so that the thumbnails alone decide.
        "validate": {"near_duplicate_bits": 64, "calibration_share": 0.5, "tuning_share": 0.5},
        "backbone": {"sha256": "0" * 64},
        "explainer": {"backbone": {"sha256": "0" * 64}},
    }
)
OWN = 12


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32)).astype(float)


def _between(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * one + share * other


def _rows(pictures: list[np.ndarray], source: str = "test", joined: bool = False) -> pd.DataFrame:
    label = int(source == "test")
    table = []
    for number, picture in enumerate(pictures):
        grey = np.rint(picture).astype(np.int32)
        digest = hashlib.sha256(grey.tobytes()).hexdigest()
        name = accepted_stem(digest) if joined else f"{number:03d}"
        table.append(
            {
                "path": f"{source}/{label}/{name}.png",
                "source": source,
                "label": label,
                "defect_type": "dent" if label else "good",
                "sha256": digest,
                "phash": perceptual_hash(grey),
                "thumbnail": thumbnail(grey),
                "error": None,
            }
        )
    return pd.DataFrame(table, dtype=object)


@pytest.fixture
def present() -> pd.DataFrame:
    """Six normals and six defects, unlike each other, but for the last two of each, which are 0.97 alike."""
    normals, defects = ([_picture(seed) for seed in range(first, first + 5)] for first in (0, 100))
    for pictures in (normals, defects):
        pictures.append(_between(pictures[-1], _picture(50), 0.2))
    rows = [_rows(normals, "train"), _rows(defects)]
    return pd.concat(rows, ignore_index=True).sort_values("path", ignore_index=True)


def _splits(manifest: pd.DataFrame) -> pd.Series:
    return manifest.set_index("path")["split"]


def _divide(present: pd.DataFrame, *fresh: pd.DataFrame) -> tuple[pd.Series, dict[str, str]]:
    """Splits and reasons; what is there must not have moved."""
    manifest, reasons = divide_next(present, pd.concat(fresh), SETTINGS)
    splits, before = _splits(manifest), _splits(divided(present, SETTINGS))
    assert splits[before.index].tolist() == before.tolist()
    return splits, reasons


def test_unlike_pictures_join_and_near_ones_follow(present: pd.DataFrame) -> None:
    normal = _rows([_picture(0) + 3, _picture(200)], "train", joined=True)
    defect = _rows([_picture(100) + 3, _picture(201)], joined=True)
    splits, reasons = _divide(present, normal, defect)
    assert reasons == {}
    assert splits[normal["path"][0]] == splits["train/0/000.png"]
    assert splits[defect["path"][0]] == splits["test/1/000.png"]
    assert splits[normal["path"][1]] in {"bank", "calibration"}
    assert splits[defect["path"][1]] in {"tuning", "test"}


def test_no_picture_comes_to_both_train_and_test(present: pd.DataFrame) -> None:
    escape = _rows([_picture(0) + 3, _picture(202)], joined=True)
    alarm = _rows([_picture(100) + 3, _picture(203)], "train", joined=True)
    splits, reasons = _divide(present, escape, alarm)
    assert set(reasons) == {escape["sha256"][0], alarm["sha256"][0]}
    assert "train/0/000.png" in reasons[escape["sha256"][0]]
    assert "test/1/000.png" in reasons[alarm["sha256"][0]]
    assert len(splits) == OWN + 2


def test_two_that_come_together_and_contradict_each_other_both_stay_out(present: pd.DataFrame) -> None:
    defect, good = (
        _rows([_picture(300) + shift], source, joined=True) for shift, source in ((0, "test"), (3, "train"))
    )
    splits, reasons = _divide(present, defect, good)
    assert set(reasons) == {defect["sha256"][0], good["sha256"][0]}
    assert len(splits) == OWN
    assert _divide(present, defect)[1] == {}


@pytest.mark.parametrize("source", ["train", "test"])
def test_a_picture_between_two_sides_stays_out(source: str) -> None:
    """Alike to an image of each side, which are not alike to each other."""
    bridged = 0
    for seed in range(12):
        one = _picture(seed)
        other = _between(one, _picture(seed + 500), 0.22)
        pictures = [one, other, *(_picture(seed + number) for number in range(20, 26))]
        present = _rows(pictures, source).sort_values("path", ignore_index=True)
        sides = _splits(divided(present, SETTINGS))
        fresh = _rows([_between(one, other, 0.5)], source, joined=True)
        _, reasons = _divide(present, fresh)
        apart = sides.iloc[0] != sides.iloc[1]
        assert bool(reasons) == apart
        bridged += apart
    assert 0 < bridged < 12


def test_a_picture_that_would_pull_an_earlier_one_over_stays_out() -> None:
    """What joined before was drawn by its own hash; a newcomer ties it to an image on the other side."""
    pulled = 0
    for seed in range(12):
        own = _rows([_picture(seed + number) for number in range(0, 200, 20)])
        earlier = _between(_picture(seed), _picture(seed + 500), 0.22)
        joined = _rows([earlier], joined=True)
        present = pd.concat([own, joined]).sort_values("path", ignore_index=True)
        sides = _splits(divided(present, SETTINGS))
        apart = sides["test/1/000.png"] != sides[joined["path"][0]]
        fresh = _rows([_between(_picture(seed), earlier, 0.5)], joined=True)
        _, reasons = _divide(present, fresh)
        assert bool(reasons) == apart
        pulled += apart
    assert 0 < pulled < 12


@pytest.mark.parametrize(("leave_out", "images"), [(True, 25), (False, 26)])
def test_what_a_line_is_trained_without_keeps_nobody_from_joining(
    leave_out: bool,
    images: int,
    line_folder: Path,
    make_workspace: Callable[..., Workspace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = "train/good/003.png"
    (line_folder / bad).write_bytes(b"")
    workspace = make_workspace(leave_out=leave_out)

    def judge(manifest: pd.DataFrame, _settings: object, _docs: None, left_out: list[Finding]) -> GateReport:
        empty = Finding("readable_image", "error", (bad,), "empty")
        errors = (empty,) if bad in manifest["path"].tolist() else ()
        return GateReport(errors, (), {}, (), tuple(left_out))

    monkeypatch.setattr(validate, "run_gate", judge)
    monkeypatch.setattr(module, "own_data", lambda *_: (line_folder, line_folder.with_suffix(".dvc")))
    monkeypatch.setattr(module, "verified_images", lambda *_: [])
    paths = next_dataset(workspace, "plates").manifest["path"].tolist()
    assert (len(paths), bad in paths) == (images, not leave_out)
