"""The size of the network's input: as many pixels as were asked for, in the proportions of the images."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from novad.config import BackboneSettings
from novad.images import Sample
from novad.images.decode import upright_size
from novad.images.proportions import in_proportion


def folder(root: Path, *sizes: tuple[int, int]) -> list[Sample]:
    """Images of these widths and heights in ``root``, as a layout would find them."""
    samples = []
    for number, size in enumerate(sizes):
        Image.new("L", size, 120).save(root / f"{number}.png")
        samples.append(Sample(f"{number}.png", "train", 0, "good"))
    return samples


@pytest.mark.parametrize(
    ("size", "told", "tiled", "expected"),
    [
        ((300, 300), 224, False, 224),
        ((300, 250), "224", False, "224"),  # nearly square
        ((640, 256), "224", False, "352x144"),
        ((256, 640), "224", False, "144x352"),
        ((1600, 256), "448", False, "1120x176"),
        ((640, 256), "512", True, "800x320"),
        ((8000, 100), "224", False, "2000x32"),
        ((1600, 200), "2048", False, "4096x512"),  # no side is longer, and none shrinks alone
        ((200, 400), "4096", True, "2048x4096"),
        ((640, 256), "300x296", False, "300x296"),  # exactly that; the settings will refuse it
        ((640, 256), "225", False, "225"),
        ((640, 256), "24", False, "24"),
        ((640, 256), "wide", False, "wide"),
    ],
)
def test_long_images_get_as_many_pixels_in_their_own_proportions(
    size: tuple[int, int], told: int | str, tiled: bool, expected: int | str, tmp_path: Path
) -> None:
    assert in_proportion(told, tmp_path, folder(tmp_path, size, size), tiled=tiled) == expected


@given(st.integers(64, 2048), st.integers(64, 2048), st.integers(8, 128), st.booleans())
def test_whatever_the_images_the_settings_take_it(width: int, height: int, eighths: int, tiled: bool) -> None:
    told = 8 * eighths
    assume(not tiled or told % 32 == 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("novad.images.proportions.upright_size", lambda _: (width, height))
        found = in_proportion(told, Path("nowhere"), [Sample("a.png", "train", 0, "good")], tiled=tiled)
    settings = BackboneSettings(sha256="0" * 64, image_size=found, tile=32 if tiled else 0)
    rows, columns = settings.input_size
    step = 32 if tiled else 8
    # Each side is at most half a step off, but for the shortest that networks take.
    exact = np.array([told * (height / width) ** 0.5, told * (width / height) ** 0.5])
    exact *= min(1, 4096 / exact.max())
    if 0.8 < width / height < 1.25:
        assert (rows, columns) == (told, told)
    else:
        assert (np.abs(np.array([rows, columns]) - exact.clip(32)) <= step / 2).all()


def test_images_of_several_proportions_get_a_square(tmp_path: Path) -> None:
    samples = folder(tmp_path, (640, 256), (256, 640), (640, 256), (300, 300))
    assert in_proportion(224, tmp_path, samples, tiled=False) == 224


def test_what_cannot_be_read_is_passed_over_without_waiting(tmp_path: Path) -> None:
    samples = folder(tmp_path, (640, 256), (640, 256), (640, 256))
    (tmp_path / "0.png").write_bytes(b"rubbish")
    (tmp_path / "1.png").unlink()
    os.mkfifo(tmp_path / "1.png")
    assert in_proportion(224, tmp_path, samples, tiled=False) == "352x144"
    assert in_proportion(224, tmp_path, samples[:2], tiled=False) == 224
    assert in_proportion(224, tmp_path, [], tiled=False) == 224


@pytest.mark.parametrize(
    ("orientation", "expected"), [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))]
)
def test_a_camera_held_upright_takes_tall_images(
    orientation: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20)).save(tmp_path / "image.jpg", exif=exif)
    assert upright_size(tmp_path / "image.jpg") == expected
