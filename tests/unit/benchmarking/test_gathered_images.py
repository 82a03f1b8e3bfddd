"""A dataset of links is read where they lead; any other stays where it is, and nothing is written there."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from novad.benchmarking.gathered_images import gathered
from novad.images import build_manifest, discover

LIMIT = 1_000_000


@pytest.fixture
def snapshot(line_folder: Path, tmp_path: Path) -> Path:
    """The line as a hub's client lays it down: folders of links to files that are named by their digest."""
    for path in [path for path in line_folder.rglob("*") if path.is_file()]:
        blob = tmp_path / "blobs" / path.relative_to(line_folder).as_posix().replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    return line_folder


def test_plain_folders_and_links_inside_stay_where_they_are(line_folder: Path, tmp_path: Path) -> None:
    (line_folder / "test/good/again.png").symlink_to(line_folder / "test/good/000.png")
    assert gathered(line_folder, "mvtec", tmp_path / "images") == line_folder.resolve()
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("one_disk", [True, False])
def test_links_that_lead_out_are_followed(
    one_disk: bool, snapshot: Path, sound_line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not one_disk:
        monkeypatch.setattr(Path, "hardlink_to", _refuse)
    images = gathered(snapshot, "mvtec", tmp_path / "images")
    assert images == tmp_path / "images" / snapshot.name
    found, sound = discover(images, "mvtec"), discover(sound_line, "mvtec")
    assert found == sound
    described = build_manifest(images, found, LIMIT)
    assert described[["error", "mask_error"]].isna().all(axis=None)
    assert described["sha256"].tolist() == build_manifest(sound_line, sound, LIMIT)["sha256"].tolist()


def _refuse(*_: object) -> None:
    raise OSError(18, "Invalid cross-device link")


def test_what_is_no_file_is_left_to_the_gate_to_name(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    odd = {"gone.png": "/no/such/file", "parts": tmp_path / "parts", "circle.png": "circle.png"}
    for name, target in odd.items():
        (snapshot / "test/good" / name).symlink_to(target)
    os.mkfifo(snapshot / "test/good/pipe.png")
    images = gathered(snapshot, "mvtec", tmp_path / "images")
    described = build_manifest(images, discover(images, "mvtec"), LIMIT)
    bad = described.loc[described["error"].notna(), "path"]
    assert set(bad) == {f"test/good/{name}" for name in (*odd, "pipe.png")}


def test_a_table_cannot_name_places_outside(snapshot: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    (snapshot / "test/good/000.png").resolve().rename(outside)
    names = ["../outside.png", str(outside), "train/good/000.png"]
    rows = "".join(f"{snapshot.name},train,normal,{name},\n" for name in names)
    (snapshot / "1cls.csv").write_text(f"object,split,label,image,mask\n{rows}")
    images = gathered(snapshot, "visa", tmp_path / "images")
    described = build_manifest(images, discover(images, "visa"), LIMIT).set_index("path")
    assert described["error"].isna().to_dict() == {name: name == names[2] for name in names}
    assert not (tmp_path / "images/outside.png").exists()


def _link_elsewhere(folder: Path, blobs: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        blob = blobs / path.relative_to(folder).as_posix().replace("/", "-")
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(blob)


def test_a_mask_in_several_files_and_masks_of_no_image_come_along(line_folder: Path, tmp_path: Path) -> None:
    """MVTec LOCO has a file for each region of a defect."""
    parts = line_folder / "ground_truth/dent/000"
    parts.mkdir()
    mask = (line_folder / "ground_truth/dent/000_mask.png").rename(parts / "000.png")
    shutil.copy(mask, parts / "001.png")
    shutil.copy(mask, line_folder / "ground_truth/dent/stray.png")
    sound = discover(line_folder, "mvtec")
    before = build_manifest(line_folder, sound, LIMIT)
    _link_elsewhere(line_folder, tmp_path / "blobs")
    images = gathered(line_folder, "mvtec", tmp_path / "images")
    assert discover(images, "mvtec") == sound
    described = build_manifest(images, sound, LIMIT)
    columns = ["path", "mask_path", "mask_area", "mask_error"]
    assert described[columns].equals(before[columns])
    assert described["mask_error"].isna().all()
    assert any(sample.remark for sample in sound)


def test_the_division_that_lies_beside_an_object_of_visa_comes_along(tmp_path: Path) -> None:
    nut = tmp_path / "nut"
    rows = [
        f"nut,{split},normal,nut/Data/{name},\n" for name, split in (("0.png", "train"), ("1.png", "test"))
    ]
    (nut / "Data").mkdir(parents=True)
    for name in ("0.png", "1.png"):
        Image.new("L", (16, 16), 9).save(nut / "Data" / name)
    (nut / "image_anno.csv").write_text("image,label,mask\n")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,label,image,mask\n" + "".join(rows))
    sound = discover(nut, "visa")
    assert {sample.source for sample in sound} == {"train", "test"}
    _link_elsewhere(nut, tmp_path / "blobs")
    images = gathered(nut, "visa", tmp_path / "images")
    assert images != nut
    assert discover(images, "visa") == sound


def test_a_table_that_names_a_folder_and_a_file_in_it_writes_nothing_there(
    snapshot: Path, tmp_path: Path
) -> None:
    names = ["train", "train/good/000.png"]
    rows = "".join(f"{snapshot.name},train,normal,{name},\n" for name in names)
    (snapshot / "1cls.csv").write_text(f"object,split,label,image,mask\n{rows}")
    before = sorted(snapshot.rglob("*"))
    images = gathered(snapshot, "visa", tmp_path / "images")
    described = build_manifest(images, discover(images, "visa"), LIMIT).set_index("path")
    assert described["error"].isna().to_dict() == {names[0]: False, names[1]: True}
    assert sorted(snapshot.rglob("*")) == before
