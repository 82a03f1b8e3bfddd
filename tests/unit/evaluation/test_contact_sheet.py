"""The contact sheet: every tile in its place, framed where it should be."""

import numpy as np
import pytest

from novad.evaluation.contact_sheet import Tile, contact_sheet, tile_pictures


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_a_tile_keeps_its_shape_and_frames_the_box(dtype: type, white: int) -> None:
    image = np.full((100, 400, 3), white, dtype)
    tile = Tile.of(image, ("a.png",), (0.5, 0.0, 0.75, 1.0))
    assert tile.picture.size == (160, 40)
    drawn = np.argwhere((np.asarray(tile.picture) != 255).any(axis=2))
    assert drawn.min(axis=0).tolist() == [0, 80]
    assert drawn.max(axis=0).tolist() == [39, 119]


def test_tiles_fill_rows_of_six_in_their_order() -> None:
    tiles = [Tile.of(np.full((8, 8, 3), shade, np.uint8), (), (0, 0, 0, 0)) for shade in range(10, 80, 10)]
    sheet = np.asarray(contact_sheet(tiles))
    width = (sheet.shape[1] - 8) // 6
    middles = [sheet[88 + 168 * (at // 6), 88 + width * (at % 6), 0] for at in range(7)]
    assert middles == [10, 20, 30, 40, 50, 60, 70]
    assert (sheet[88 + 168, 88 + width] == 255).all()


def test_one_tile_makes_a_narrow_sheet_and_a_long_name_stays_inside() -> None:
    tile = Tile.of(np.zeros((5, 5, 3), np.uint8), ("a/very/long/folder" * 9 + "/part.png",), (0, 0, 1, 1))
    sheet = np.asarray(contact_sheet([tile]))
    assert sheet.shape[1] == 160 + 2 * 8
    assert (sheet[168:, -8:] == 255).all()
    assert (sheet[168:] < 255).any()


def test_a_very_narrow_image_has_its_frame_too() -> None:
    tile = Tile.of(np.zeros((2, 2000, 3), np.uint8), (), (0.2, 0.3, 0.4, 0.4))
    assert tile.picture.size == (160, 1)
    assert np.asarray(tile.picture).any()


@pytest.mark.parametrize("count", [1, 6, 8])
def test_pictures_are_cut_out_of_a_sheet_as_they_went_in(count: int) -> None:
    images = [np.full((160, 160, 3), shade, np.uint8) for shade in range(10, 10 + 9 * count, 9)]
    tiles = [Tile.of(image, ("name", "verdict"), (0, 0, 0.1, 0.1)) for image in images]
    cut = list(tile_pictures(contact_sheet(tiles), captions=2))
    assert len(cut) >= count
    for tile, picture in zip(tiles, cut, strict=False):
        assert np.array_equal(np.asarray(tile.picture), np.asarray(picture))
