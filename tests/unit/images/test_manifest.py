"""The manifest says what is in the folder, reads back as it was written, and opens nothing outside."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from novad.errors import ConfigError
from novad.images import Sample, build_manifest, discover, read_manifest, write_manifest
from novad.images.fingerprint import GreyStatistics, grey_statistics, perceptual_hash, thumbnail, to_grey
from novad.images.manifest import COLUMNS, GATE_COLUMNS

LIMIT = 1_000_000


def test_figures_of_an_image_agree_with_numpy(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 3:7] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    row = build_manifest(tmp_path, [Sample("a.png", "test", 1, "crack", "m.png")], LIMIT).iloc[0]
    data = (tmp_path / "a.png").read_bytes()
    assert (row["width"], row["height"], row["mode"], row["bit_depth"]) == (30, 20, "L", 8)
    assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert row["brightness"] == pytest.approx(pixels.mean() / 255)
    assert row["contrast"] == pytest.approx(pixels.std() / 255)
    assert (row["mask_area"], row["mask_width"], row["mask_height"]) == (12, 30, 20)
    assert row["error"] is None
    assert row["split"] is None


def test_16_bit_images_have_the_figures_of_their_8_bit_twins(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40)).astype(np.uint16)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(pixels * 257).save(tmp_path / "16.png")
    samples = [Sample(f"{name}.png", "train", 0, "good") for name in (8, 16)]
    manifest = build_manifest(tmp_path, samples, LIMIT)
    eight, sixteen = manifest.iloc[0], manifest.iloc[1]
    for column in ("brightness", "contrast", "sharpness"):
        assert eight[column] == pytest.approx(sixteen[column], rel=1e-3)
    assert eight["phash"] == sixteen["phash"]
    assert eight["thumbnail"] == sixteen["thumbnail"]


def test_thumbnails_of_12_bit_cameras_are_stretched_and_those_of_8_bits_are_not() -> None:
    ramp = np.arange(32 * 32, dtype=np.int32).reshape(32, 32)
    assert max(thumbnail(ramp * 4)) == 255
    assert max(thumbnail(ramp // 8)) == 127


def test_it_reads_back_as_written_and_equal_manifests_are_equal_bytes(
    sound_line: Path, tmp_path: Path
) -> None:
    samples = discover(sound_line, "mvtec")
    manifest = build_manifest(sound_line, samples, LIMIT)
    manifest["split"] = "bank"
    for name in ("one", "two"):
        write_manifest(manifest, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    back = read_manifest(tmp_path / "one")
    pd.testing.assert_frame_equal(
        read_manifest(tmp_path / "one", thumbnails=False), back.drop(columns="thumbnail")
    )
    assert tuple(back.columns) == COLUMNS
    pd.testing.assert_frame_equal(back, manifest.drop(columns=list(GATE_COLUMNS)), check_dtype=False)
    assert back["path"].tolist() == [sample.path for sample in samples]
    assert str(sound_line).encode() not in (tmp_path / "one").read_bytes()
    again = build_manifest(sound_line, samples, LIMIT)
    again["split"] = "bank"
    write_manifest(again, tmp_path / "three")
    assert (tmp_path / "three").read_bytes() == (tmp_path / "one").read_bytes()


def test_reading_no_manifest_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"m\.parquet: no manifest here"):
        read_manifest(tmp_path / "m.parquet")
    (tmp_path / "m.parquet").write_text("not parquet")
    with pytest.raises(ConfigError, match=r"m\.parquet: not a manifest"):
        read_manifest(tmp_path / "m.parquet")
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "m.parquet")
    with pytest.raises(ConfigError, match="lacks split"):
        read_manifest(tmp_path / "m.parquet")


@pytest.mark.parametrize("target", ["outside.png", "/etc/hostname"])
def test_nothing_outside_the_folder_is_opened(target: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "outside.png")
    (root / "link.png").symlink_to(tmp_path / target)
    samples = [Sample("link.png", "train", 0, "good"), Sample("../outside.png", "train", 0, "good")]
    manifest = build_manifest(root, samples, LIMIT)
    assert manifest["error"].str.startswith("lies outside the data folder").all()
    assert manifest["sha256"].isna().all()


def test_links_inside_the_folder_are_fine_and_circles_are_not(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "c.png").symlink_to("c.png")
    samples = [Sample(f"{name}.png", "train", 0, "good") for name in "abc"]
    manifest = build_manifest(tmp_path, samples, LIMIT)
    assert manifest["error"].isna().tolist() == [True, True, False]
    assert manifest["sha256"].iloc[0] == manifest["sha256"].iloc[1]


def test_reasons_hold_no_path_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    samples = [Sample("a.png", "train", 0, "good"), Sample("gone.png", "train", 0, "good")]
    manifest = build_manifest(tmp_path, samples, LIMIT)
    assert manifest["error"].tolist() == [
        "the file is empty (0 bytes)",
        "cannot be read: No such file or directory",
    ]


def _statistics(grey: np.ndarray) -> GreyStatistics:
    return grey_statistics(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))


def test_no_part_of_a_mask_outside_the_folder_is_opened_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    root = tmp_path / "line"
    (root / "masks/a").mkdir(parents=True)
    Image.new("L", (8, 8), 255).save(root / "a.png")
    Image.new("L", (8, 8), 255).save(tmp_path / "secret.png")
    (root / "masks/a/0.png").symlink_to(tmp_path / "secret.png")
    sample = Sample("a.png", "test", 1, "crack", "masks/a")
    (row,) = build_manifest(root, [sample], LIMIT).itertuples()
    assert row.mask_error.startswith("masks/a/0.png: lies outside the data folder")
    assert row.mask_area is pd.NA
    (root / "masks/a/0.png").unlink()
    (root / "masks/a/0.png").write_bytes(b"")
    (row,) = build_manifest(root, [sample], LIMIT).itertuples()
    assert row.mask_error == "0.png: the file is empty (0 bytes)"


def test_sharpness_falls_when_an_image_is_blurred_and_contrast_when_it_is_greyed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.int32)
    blurred = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, (1, 1), (0, 1))) // 4
    assert _statistics(blurred).sharpness < 0.5 * _statistics(noise).sharpness
    assert _statistics(noise // 2).contrast == pytest.approx(_statistics(noise).contrast / 2, rel=0.02)
    assert _statistics(noise[:2]).sharpness == 0
    point = np.zeros((5, 5), np.int32)
    point[2, 2] = 3
    assert _statistics(point).sharpness == pytest.approx(np.sqrt((12**2 + 4 * 3**2) / 9) / 255)


def test_grey_is_luminance_and_the_hash_ignores_brightness() -> None:
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[..., 1] = 200
    assert to_grey(colours)[0, 0] == pytest.approx(0.587 * 200, abs=1)
    coarse = np.kron(np.random.default_rng(0).integers(0, 200, (8, 8)), np.ones((8, 8), int)).astype(np.int32)
    other = np.kron(np.random.default_rng(1).integers(0, 200, (8, 8)), np.ones((8, 8), int)).astype(np.int32)
    distance = int(perceptual_hash(coarse), 16) ^ int(perceptual_hash(other), 16)
    assert perceptual_hash(coarse) == perceptual_hash(coarse + 40)
    assert distance.bit_count() > 12
    assert len(thumbnail(coarse)) == 32 * 32
