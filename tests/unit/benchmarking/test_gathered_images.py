"""A dataset of links is read where they lead; any other stays where it is, and nothing is written there."""

import os
from pathlib import Path

import pytest

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
