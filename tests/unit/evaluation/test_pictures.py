"""Pictures in answers: small enough, and patches cut where they lie."""

import base64
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from novad.evaluation.pictures import patch, png_text, small

OUTLINE = (0, 200, 255)


@st.composite
def _places(draw: st.DrawFn) -> tuple[int, int, tuple[int, int], tuple[int, int]]:
    """Height, width, grid and a place in the grid."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    grid = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    return height, width, grid, (draw(st.integers(0, grid[0] - 1)), draw(st.integers(0, grid[1] - 1)))


@given(_places())
def test_crops_of_one_grid_are_alike_wherever_they_lie(
    drawn: tuple[int, int, tuple[int, int], tuple[int, int]],
) -> None:
    height, width, grid, place = drawn
    pixels = np.zeros((height, width, 3), np.uint8)
    assert patch(pixels, grid, place).size == patch(pixels, grid, (0, 0)).size


def test_the_outline_lies_around_the_patch() -> None:
    pixels = np.zeros((96, 192, 3), np.uint8)
    grid, place = (12, 24), (10, 3)
    pixels[place[0] * 8 : (place[0] + 1) * 8, place[1] * 8 : (place[1] + 1) * 8] = 255
    cut = np.asarray(patch(pixels, grid, place)).astype(int)
    outlined = np.argwhere(np.abs(cut - OUTLINE).sum(axis=2) == 0)
    (top, left), (bottom, right) = outlined.min(axis=0), outlined.max(axis=0)
    bright = cut[..., 0] > 128
    inside = np.zeros_like(bright)
    inside[top - 2 : bottom + 3, left - 2 : right + 3] = True  # scaled up: edges are soft
    assert bright[top + 3 : bottom - 2, left + 3 : right - 2].all()
    assert not bright[~inside].any()


def test_an_image_that_is_one_patch_is_shown_whole() -> None:
    pixels = np.full((30, 60, 3), 99, np.uint8)
    assert patch(pixels, (1, 1), (0, 0)).size == (256, 128)


def test_wide_values_become_eight_bits_and_small_images_stay() -> None:
    wide = np.full((20, 30, 3), 0x1234, np.uint16)
    assert np.asarray(small(wide, 100)).tolist() == np.full((20, 30, 3), 0x12).tolist()
    assert small(wide, 15).size == (15, 10)
    data = base64.b64decode(png_text(small(wide, 100)))
    assert Image.open(io.BytesIO(data)).size == (30, 20)
