"""What every dataset layout promises; a layout joins by being registered and given an example here."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from novad.errors import ConfigError, exit_code
from novad.images import LAYOUTS, build_manifest, discover
from novad.images.layouts import keep_visa_split

Example = Callable[[Path], None]


def _image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(path)


def _mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(path)


def _mvtec(root: Path) -> None:
    for i in range(4):
        _image(root / f"train/good/{i}.png", i)
    _image(root / "test/good/0.png", 10)
    _image(root / "test/crack/0.png", 11)
    _mask(root / "ground_truth/crack/0_mask.png")
    _image(root / "test/stain/0.png", 12)


def _folder(root: Path) -> None:
    for i in range(5):
        _image(root / f"normal/{i}.png", i)
    _image(root / "anomalous/crack/0.png", 11)
    _mask(root / "masks/crack/0.png")
    _image(root / "anomalous/stain/0.png", 12)


def _visa_split(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    for i in range(4):
        _image(root / f"nut/Data/Images/Normal/{i}.png", i)
        rows.append(f"nut,train,normal,nut/Data/Images/Normal/{i}.png,")
    _image(root / "nut/Data/Images/Normal/9.png", 10)
    rows.append("nut,test,normal,nut/Data/Images/Normal/9.png,")
    for i, seed in enumerate((11, 12)):
        _image(root / f"nut/Data/Images/Anomaly/{i}.png", seed)
    _mask(root / "nut/Data/Masks/Anomaly/0.png")
    rows.append("nut,test,anomaly,nut/Data/Images/Anomaly/0.png,nut/Data/Masks/Anomaly/0.png")
    rows.append("nut,test,anomaly,nut/Data/Images/Anomaly/1.png,")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    (root / "nut/image_anno.csv").write_text(
        "image,label,mask\nnut/Data/Images/Anomaly/0.png,crack,\nnut/Data/Images/Anomaly/1.png,stain,\n"
    )


def _visa_annotations(root: Path) -> None:
    rows = ["image,label,mask"]
    for i in range(5):
        _image(root / f"Data/Images/Normal/{i}.png", i)
        rows.append(f"nut/Data/Images/Normal/{i}.png,normal,")
    for i, (kind, seed) in enumerate((("crack", 11), ("stain", 12))):
        _image(root / f"Data/Images/Anomaly/{i}.png", seed)
        mask = f"nut/Data/Masks/Anomaly/{i}.png" if kind == "crack" else ""
        rows.append(f"nut/Data/Images/Anomaly/{i}.png,{kind},{mask}")
    _mask(root / "Data/Masks/Anomaly/0.png")
    (root / "image_anno.csv").write_text("\n".join(rows) + "\n")


EXAMPLES: list[tuple[str, Example]] = [
    ("mvtec", _mvtec),
    ("folder", _folder),
    ("visa", _visa_split),
    ("visa", _visa_annotations),
]


@pytest.fixture(params=EXAMPLES, ids=lambda example: example[1].__name__.strip("_"))
def example(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    layout, write = request.param
    root = tmp_path / "nut"
    root.mkdir()
    write(root)
    return root, layout


def test_every_registered_layout_has_an_example() -> None:
    assert {layout for layout, _ in EXAMPLES} == set(LAYOUTS)


def test_a_layout_finds_each_image_once_with_label_type_and_mask(example: tuple[Path, str]) -> None:
    root, layout = example
    samples = discover(root, layout)
    images = {p.relative_to(root).as_posix() for p in root.rglob("*.png") if "ask" not in str(p.parent)}
    images = {path for path in images if not path.startswith("ground_truth")}
    assert [sample.path for sample in samples] == sorted(images)
    defects = {sample.defect_type: sample for sample in samples if sample.label}
    assert set(defects) == {"crack", "stain"}
    assert (root / str(defects["crack"].mask_path)).is_file()
    assert defects["stain"].mask_path is None
    assert all(sample.source == "test" for sample in defects.values())
    normals = [sample for sample in samples if not sample.label]
    assert {sample.defect_type for sample in normals} == {"good"}
    assert {sample.source for sample in normals} <= {"train", "test", "undivided"}
    assert sum(sample.source != "test" for sample in normals) >= 4


def test_what_a_layout_finds_can_be_read(example: tuple[Path, str]) -> None:
    root, layout = example
    manifest = build_manifest(root, discover(root, layout), 10_000)
    assert manifest["error"].isna().all()
    assert manifest["mask_error"].isna().all()
    assert manifest["mask_area"].dropna().tolist() == [16]


def test_a_missing_or_empty_folder_is_wrong_use_and_is_named(
    example: tuple[Path, str], tmp_path: Path
) -> None:
    _, layout = example
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        with pytest.raises(ConfigError, match=name) as caught:
            discover(tmp_path / name, layout)
        assert exit_code(caught.value) == 2


def test_the_folder_of_a_whole_data_set_names_the_lines_in_it(example: tuple[Path, str]) -> None:
    root, layout = example
    (root.parent / "readme").mkdir()
    with pytest.raises(ConfigError, match=f"; a product line is one of its folders: {root.name}$"):
        discover(root.parent, layout)


def test_an_unknown_layout_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'coco' is unknown; choose one of folder, mvtec, visa"):
        discover(tmp_path, "coco")


def test_defects_in_the_training_folder_are_refused(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    _image(tmp_path / "train/crack/0.png", 20)
    with pytest.raises(ConfigError, match="only 'good' belongs here, found crack"):
        discover(tmp_path, "mvtec")


def test_a_normal_class_of_another_name_is_named(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    (tmp_path / "train/good").rename(tmp_path / "train/fine")
    with pytest.raises(ConfigError, match=r"train/good: no such folder, but fine: call .* in train"):
        discover(tmp_path, "mvtec")


def test_btad_calls_normal_images_ok(tmp_path: Path) -> None:
    for i in range(4):
        _image(tmp_path / f"train/ok/000{i}.png", i)
    _image(tmp_path / "test/ok/0000.png", 10)
    _image(tmp_path / "test/ko/0000.png", 11)
    _mask(tmp_path / "ground_truth/ko/0000.png")
    found = {s.path: s for s in discover(tmp_path, "mvtec")}
    assert {(s.source, s.label, s.defect_type) for s in found.values()} == {
        ("train", 0, "good"),
        ("test", 0, "good"),
        ("test", 1, "ko"),
    }
    assert found["test/ko/0000.png"].mask_path == "ground_truth/ko/0000.png"
    assert found["test/ok/0000.png"].mask_path is None
    _image(tmp_path / "train/good/accepted-0.png", 20)
    assert sum(s.source == "train" and not s.label for s in discover(tmp_path, "mvtec")) == 5


def test_mvtec_ad_2_keeps_labelled_test_images_and_masks_in_test_public(tmp_path: Path) -> None:
    for i in range(4):
        _image(tmp_path / f"train/good/00{i}_regular.png", i)
    _image(tmp_path / "validation/good/000_regular.png", 9)
    _image(tmp_path / "test_public/good/000_regular.png", 10)
    _image(tmp_path / "test_public/bad/000_overexposed.png", 11)
    _mask(tmp_path / "test_public/ground_truth/bad/000_overexposed_mask.png")
    _image(tmp_path / "test_private/000_regular.png", 12)
    found = {s.path: s for s in discover(tmp_path, "mvtec")}
    defect = found["test_public/bad/000_overexposed.png"]
    assert (defect.source, defect.label, defect.defect_type) == ("test", 1, "bad")
    assert defect.mask_path == "test_public/ground_truth/bad/000_overexposed_mask.png"
    assert sorted(s.source for s in found.values()) == ["test"] * 2 + ["train"] * 5
    assert not any(s.remark for s in found.values())


def test_what_lies_beside_the_folders_that_are_read_is_remarked_once(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    strays = ["train/a.png", "validation/b.png", "test/c.png", "validation/crack/d.png"]
    for number, name in enumerate([*strays, "validation/ok/0.png", "test_public/good/0.png"]):
        _image(tmp_path / name, 30 + number)
    found = {s.path: s for s in discover(tmp_path, "mvtec")}
    assert found["validation/ok/0.png"].source == "train"
    assert not {*strays, "test_public/good/0.png"} & set(found)
    [remark] = [str(s.remark) for s in found.values() if s.remark]
    told = "train/a.png, validation/b.png, test/c.png, validation/crack, test_public: passed over, for only "
    assert remark.startswith(told)


def test_a_link_to_a_folder_of_images_is_not_passed_over(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    (tmp_path / "test/crack").rename(tmp_path / "cracks")
    (tmp_path / "test/crack").symlink_to(tmp_path / "cracks")
    found = discover(tmp_path, "mvtec")
    assert [sample.path for sample in found if sample.defect_type == "crack"] == ["test/crack/0.png"]
    assert not any(sample.remark for sample in found)


def test_folders_beside_the_plain_ones_are_remarked(tmp_path: Path) -> None:
    _folder(tmp_path)
    for folder in ("defect", "Masks", ".cache"):
        _image(tmp_path / folder / "0.png", 30)
    [remark] = [str(s.remark) for s in discover(tmp_path, "folder") if s.remark]
    assert remark.startswith("Masks, defect: passed over, for only normal, anomalous, masks are read")


@pytest.mark.parametrize(("layout", "write"), [("mvtec", _mvtec), ("folder", _folder)])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(
    layout: str, write: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    scan = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("crack"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ConfigError, match=r"crack: cannot be read: Permission denied"):
        discover(tmp_path, layout)


def test_masks_named_like_their_image_are_found_too(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    (tmp_path / "ground_truth/crack/0_mask.png").rename(tmp_path / "ground_truth/crack/0.png")
    masks = {s.path: s.mask_path for s in discover(tmp_path, "mvtec")}
    assert masks["test/crack/0.png"] == "ground_truth/crack/0.png"


@pytest.mark.parametrize("name", ["0_gt.png", "0_label.png", "0_MASK.png", "0.PNG", "0/000.png"])
def test_masks_are_found_under_the_names_that_data_sets_give_them(name: str, tmp_path: Path) -> None:
    _mvtec(tmp_path)
    place = tmp_path / "ground_truth/crack" / name
    mask = (tmp_path / "ground_truth/crack/0_mask.png").rename(tmp_path / "moved.png")
    place.parent.mkdir(exist_ok=True)
    mask.rename(place)
    masks = {s.path: s.mask_path for s in discover(tmp_path, "mvtec")}
    assert masks["test/crack/0.png"] == f"ground_truth/crack/{name}"


def test_an_image_whose_name_ends_like_that_of_a_mask_has_its_own(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    _image(tmp_path / "test/crack/1_gt.png", 20)
    _mask(tmp_path / "ground_truth/crack/1_gt.png")
    masks = {s.path: s.mask_path for s in discover(tmp_path, "mvtec")}
    assert masks["test/crack/1_gt.png"] == "ground_truth/crack/1_gt.png"


def test_the_files_of_a_folder_named_like_the_image_are_one_mask(tmp_path: Path) -> None:
    """As MVTec LOCO has them: a file for each region."""
    _mvtec(tmp_path)
    (tmp_path / "ground_truth/crack/0_mask.png").unlink()
    _mask(tmp_path / "ground_truth/crack/0/000.png")
    Image.fromarray(np.eye(16, dtype=np.uint8)[::-1]).save(tmp_path / "ground_truth/crack/0/001.png")
    (sample,) = (s for s in discover(tmp_path, "mvtec") if s.mask_path)
    assert (sample.path, sample.mask_path) == ("test/crack/0.png", "ground_truth/crack/0")
    (row,) = build_manifest(tmp_path, [sample], 10_000).itertuples()
    assert (row.mask_error, row.mask_area, row.mask_width, row.mask_height) == (None, 32, 16, 16)


@pytest.mark.parametrize(
    ("layout", "write", "folder"), [("mvtec", _mvtec, "ground_truth"), ("folder", _folder, "masks")]
)
def test_masks_that_belong_to_no_image_are_remarked_at_defects_without_one(
    layout: str, write: Example, folder: str, tmp_path: Path
) -> None:
    write(tmp_path)
    assert not any(s.remark for s in discover(tmp_path, layout))
    _mask(tmp_path / folder / "stain/00_mask.png")
    _mask(tmp_path / folder / "gone/0.png")
    remarks = {s.defect_type: s.remark for s in discover(tmp_path, layout) if s.remark}
    told = f"2 mask files match no image ({folder}/gone/0.png, {folder}/stain/00_mask.png)"
    assert list(remarks) == ["stain"]
    assert str(remarks["stain"]).startswith(told)


def test_the_black_masks_that_some_give_normal_images_are_no_strangers(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    _mask(tmp_path / "ground_truth/good/0.png")
    assert [(s.remark, s.mask_path) for s in discover(tmp_path, "mvtec") if s.path == "test/good/0.png"] == [
        (None, None)
    ]
    assert not any(s.remark for s in discover(tmp_path, "mvtec"))


def test_the_normal_images_for_validation_of_mvtec_loco_are_training_images(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    _image(tmp_path / "validation/good/0.png", 20)
    found = {s.path: s for s in discover(tmp_path, "mvtec")}
    assert (found["validation/good/0.png"].source, found["validation/good/0.png"].label) == ("train", 0)


def test_stray_files_are_found_for_the_gate_and_files_of_the_system_are_not(tmp_path: Path) -> None:
    _mvtec(tmp_path)
    for name in ("notes.txt", ".DS_Store", "Thumbs.db"):
        (tmp_path / "test/good" / name).write_text("x")
    paths = [sample.path for sample in discover(tmp_path, "mvtec")]
    assert [path for path in paths if not path.endswith(".png")] == ["test/good/notes.txt"]


def test_a_visa_file_of_many_objects_needs_one_to_be_the_line(tmp_path: Path) -> None:
    root = tmp_path / "nut"
    root.mkdir()
    _visa_split(root)
    table = root / "split_csv/1cls.csv"
    table.write_text(table.read_text() + "bolt,train,normal,bolt/0.png,\n")
    assert all(sample.path.startswith("nut/") for sample in discover(root, "visa"))
    root.rename(tmp_path / "visa")
    with pytest.raises(ConfigError, match=r"holds bolt, nut; .* one object: name its folder, .*/visa/nut$"):
        discover(tmp_path / "visa", "visa")


def test_an_object_of_visa_as_downloaded_is_divided_by_the_file_beside_its_folder(tmp_path: Path) -> None:
    _visa_split(tmp_path)
    table = tmp_path / "split_csv/1cls.csv"
    table.write_text(table.read_text() + "bolt,train,anomaly,bolt/0.png,\n")
    samples = discover(tmp_path / "nut", "visa")
    assert [(s.path, s.source, s.defect_type, s.mask_path) for s in samples] == [
        ("Data/Images/Anomaly/0.png", "test", "crack", "Data/Masks/Anomaly/0.png"),
        ("Data/Images/Anomaly/1.png", "test", "stain", None),
        *((f"Data/Images/Normal/{i}.png", "train", "good", None) for i in range(4)),
        ("Data/Images/Normal/9.png", "test", "good", None),
    ]
    shutil.copytree(tmp_path / "nut", tmp_path / "copies/line")
    keep_visa_split(tmp_path / "nut", tmp_path / "copies/line")
    shutil.rmtree(tmp_path / "split_csv")
    assert discover(tmp_path / "copies/line", "visa") == samples


def test_in_a_workspace_the_file_beside_a_folder_is_no_part_of_its_data(tmp_path: Path) -> None:
    _visa_split(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    table = tmp_path / "nut/image_anno.csv"
    normal = "".join(f"nut/Data/Images/Normal/{i}.png,normal,\n" for i in (0, 1, 2, 3, 9))
    table.write_text(table.read_text() + normal)
    samples = discover(tmp_path / "nut", "visa")
    assert {s.source for s in samples if not s.label} == {"undivided"}
    assert {str(s.remark)[:30] for s in samples if not s.label} == {"the split_csv/1cls.csv beside "}
    shutil.copy(tmp_path / "split_csv/1cls.csv", tmp_path / "nut")
    assert sum(s.source == "train" for s in discover(tmp_path / "nut", "visa")) == 4


def test_a_visa_file_without_its_columns_or_with_defects_in_train_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1cls.csv").write_text("object,split,label,image\n")
    with pytest.raises(ConfigError, match=r"1cls\.csv: lacks the column mask"):
        discover(tmp_path, "visa")
    (tmp_path / "1cls.csv").write_text("object,split,label,image,mask\nnut,train,anomaly,a.png,\n")
    with pytest.raises(ConfigError, match=r"a\.png: split 'train' with label 'anomaly'"):
        discover(tmp_path, "visa")
