"""The demo lines are the same bytes everywhere, and their masks tell the truth."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from novad.images.demo import DEMO_LINES, fabric, make_demo_line, metal
from novad.images.demo.png import encode_png
from novad.images.demo.texture import Dice, near_segment, to_pixels
from novad.images.demo.texture import grid as pixel_grid

ROOT = Path(__file__).parents[3]


def test_the_generated_folder_has_the_digest_that_data_dvc_records(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "novad.images.demo", str(tmp_path)], check=True, timeout=120)
    listing = [
        {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(tmp_path).as_posix()}  # noqa: S324
        for path in tmp_path.rglob("*.png")
    ]
    # DVC's digest of a folder: md5 of the sorted listing as JSON.
    listing.sort(key=lambda entry: tuple(entry["relpath"].split("/")))
    recorded = (ROOT / "data.dvc").read_text()
    digest = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()  # noqa: S324
    assert re.search(r"md5: (\w+)\.dir", recorded).group(1) == digest  # type: ignore[union-attr]
    assert f"nfiles: {len(listing)}" in recorded


@pytest.mark.parametrize("line", sorted(DEMO_LINES))
def test_a_line_has_four_defect_types_with_masks_and_enough_normals(line: str, tmp_path: Path) -> None:
    make_demo_line(line, tmp_path, train=2, test_good=1, per_defect=2)
    defects = [folder.name for folder in (tmp_path / "test").iterdir() if folder.name != "good"]
    assert len(defects) >= 4
    for defect in defects:
        for index in range(2):
            mask = np.asarray(Image.open(tmp_path / f"ground_truth/{defect}/{index:03d}_mask.png"))
            assert set(np.unique(mask)) == {0, 255}
            assert 8 <= (mask > 0).sum() < mask.size // 10


@pytest.mark.parametrize("line", sorted(DEMO_LINES))
def test_a_picture_depends_on_its_name_and_nothing_else(line: str) -> None:
    paint, defects = DEMO_LINES[line]
    for defect in defects:
        picture, mask = paint(Dice("same"), defect)
        np.testing.assert_array_equal(picture, paint(Dice("same"), defect)[0])
        assert (picture != paint(Dice("other"), defect)[0]).mean() > 0.9
        assert mask.any()
        assert not paint(Dice("same"), None)[1].any()


def test_no_two_images_of_a_line_are_alike(tmp_path: Path) -> None:
    make_demo_line("printed-board", tmp_path, train=5, test_good=5, per_defect=0)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.rglob("*.png")]
    assert len(set(digests)) == 10


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (200, 400, 3)])
def test_png_files_read_back_as_they_were_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    with Image.open(tmp_path / "a.png") as image:
        image.verify()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_dice_are_uniform_and_reach_both_ends() -> None:
    dice = Dice("ends")
    rolls = np.bincount([dice.integer(1, 6) for _ in range(6000)], minlength=7)[1:]
    assert rolls.sum() == 6000
    assert rolls.min() > 850
    assert rolls.max() < 1150


def test_brightness_is_rounded_and_clipped() -> None:
    np.testing.assert_array_equal(to_pixels(np.array([-5, 7, 8, 24, 16 * 300])), [0, 0, 1, 2, 255])


def test_a_segment_is_as_wide_as_it_says() -> None:
    weight = near_segment(pixel_grid(), (50, 50), (50, 90), 32)
    column = weight[:, 70]
    assert column[50] == column[52] == 256
    assert weight[48:53, 70].min() > 0
    assert column[54] == column[46] == 0


@pytest.mark.parametrize("product", [metal, fabric])
def test_a_larger_piece_has_defects_of_the_same_size(product: ModuleType) -> None:
    for defect in product.DEFECTS:
        masks = [
            [product.paint(Dice(f"{defect}/{number}"), defect, size)[1] for number in range(4)]
            for size in (192, 512)
        ]
        small, large = (float(np.median([mask.sum() for mask in each])) for each in masks)
        assert {mask.shape for mask in masks[1]} == {(512, 512)}
        assert 0.4 < large / small < 2.5
