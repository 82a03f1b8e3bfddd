"""Contact sheet: many small pictures on one page, each with a caption and the place to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from novad.evaluation.overlays import fitting, to_uint8

__all__ = ["Tile", "contact_sheet", "tile_pictures"]

_SIDE, _GAP, _LINE = 160, 8, 14
_COLUMNS = 6


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet.

    Attributes:
        picture: thumbnail, at most as large as a tile.
        captions: lines below it.
    """

    picture: Image.Image
    captions: Sequence[str]

    @classmethod
    def of(
        cls, image: NDArray[Any], captions: Sequence[str], box: tuple[float, float, float, float]
    ) -> "Tile":
        """Shrink an (H, W, 3) uint8 or uint16 image and frame a part of it.

        Args:
            image: decoded.
            captions: lines below it.
            box: left, top, right, bottom of the frame, as shares of width and height.
        """
        picture = Image.fromarray(to_uint8(image))
        scale = _SIDE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = box[0] * width, box[1] * height
        # In a very narrow picture a box may be less than a pixel wide.
        right, bottom = max(left, box[2] * width - 1), max(top, box[3] * height - 1)
        ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(255, 150, 20), width=2)
        return cls(picture, captions)


def contact_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """The tiles in rows, in their order; at least one."""
    font = ImageFont.load_default(11)
    columns, rows = min(len(tiles), _COLUMNS), -(-len(tiles) // _COLUMNS)
    height = _SIDE + _LINE * max(len(tile.captions) for tile in tiles) + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_SIDE + _GAP), _GAP + rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, _COLUMNS)
        left, top = _GAP + column * (_SIDE + _GAP), _GAP + row * height
        sheet.paste(tile.picture, (left, top))
        for line, text in enumerate(tile.captions):
            at = (left, top + _SIDE + line * _LINE)
            pen.text(at, fitting(text, font, _SIDE), fill="black", font=font)
    return sheet


def tile_pictures(sheet: Image.Image, captions: int) -> Iterator[Image.Image]:
    """The pictures of a sheet again, row by row, on their white ground; empty places come last.

    Args:
        captions: most lines that a tile of it has.
    """
    width, height = _SIDE + _GAP, _SIDE + _LINE * captions + _GAP
    for top in range(_GAP, sheet.height - _GAP, height):
        for left in range(_GAP, sheet.width - _GAP, width):
            yield sheet.crop((left, top, left + _SIDE, top + _SIDE))
