"""Overlays on a fixed scale: what lies at or below the threshold never glows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

__all__ = ["fitting", "judged_overlay", "outlined", "overlay", "panel", "picture_name", "to_uint8"]

Picture = NDArray[np.uint8]

# From faint to certain: yellow, orange, red, magenta.
_GLOW = np.array([[255, 235, 90], [255, 150, 20], [230, 30, 30], [210, 0, 160]], np.float64)
_SIDE = 320
# Up to here a picture is coloured in all its pixels.
_DRAWN_SIDE = 4 * _SIDE
_GAP = 6
_TITLE_BYTES = 100
_NOT_IN_NAMES = str.maketrans("/\\\0", "___")


def overlay(image: NDArray[Any], heat: NDArray[np.floating], threshold: float, span: float = 1.0) -> Picture:
    """Colour an image where its map exceeds the threshold.

    Args:
        image: (H, W, 3) uint8 or uint16.
        heat: (H, W) map.
        threshold: value that maps of good parts stay below; nothing glows at or below it.
        span: map units above the threshold at which the glow is full; the same for every image of a line.
    Returns:
        (H, W, 3) uint8.
    Raises:
        ValueError: ``span`` is not positive, or map and image differ in size.
    """
    if not span > 0 or heat.shape != image.shape[:2]:
        raise ValueError(f"span {span}, image {image.shape}, map {heat.shape}: want span > 0 and one size")
    base = to_uint8(image).astype(np.float64)
    strength = _strength(heat, threshold, span)[..., None]
    at = strength * (len(_GLOW) - 1)
    left = np.minimum(at.astype(int), len(_GLOW) - 2)
    share = at - left
    colour = _GLOW[left[..., 0]] * (1 - share) + _GLOW[left[..., 0] + 1] * share
    opacity = np.where(strength > 0, 0.35 + 0.45 * strength, 0.0)
    return np.asarray(np.round(base * (1 - opacity) + colour * opacity), np.uint8)


def judged_overlay(
    kind: str, image: NDArray[Any], heat: NDArray[np.floating], threshold: float, passed: bool
) -> Picture:
    """The overlay of a judged part on the scale of its line: full glow one threshold's height above it.

    A score averages many places and may fail a part whose map stays below the map's threshold everywhere.
    On the hybrid map of a part that did not pass, and only there, a ring then says where it is highest.

    Args:
        kind: of the map.
        image: (H, W, 3) uint8 or uint16.
        heat: (H, W) map.
        threshold: of the map.
        passed: whether the part did.
    Returns:
        (H, W, 3) uint8.
    """
    drawn = overlay(image, heat, threshold, max(1.0, abs(threshold)))
    if passed or kind != "hybrid" or _glows(heat, threshold).any():
        return drawn
    return _ringed(drawn, np.unravel_index(int(np.argmax(heat)), heat.shape))


def _ringed(picture: Picture, place: tuple[np.intp, ...]) -> Picture:
    """A white ring, edged black, around a row and a column."""
    image, width = Image.fromarray(picture), max(1, round(max(picture.shape[:2]) / 160))
    row, column, radius = int(place[0]), int(place[1]), max(picture.shape[:2]) / 16
    for grown, colour, stroke in ((width, "black", 3 * width), (0, "white", width)):
        reach = radius + grown
        box = (column - reach, row - reach, column + reach, row + reach)
        ImageDraw.Draw(image).ellipse(box, outline=colour, width=stroke)
    return np.asarray(image)


def _strength(heat: NDArray[np.floating], threshold: float, span: float) -> NDArray[np.float64]:
    """Glow of each pixel, 0 to 1; none above an infinite threshold, none where the map has no value."""
    glows = _glows(heat, threshold)
    above = np.zeros(heat.shape)
    above[glows] = heat[glows].astype(np.float64) - threshold
    return np.asarray(np.clip(above / span, 0, 1), np.float64)


def _glows(heat: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    # Compared in the map's own precision: a float32 map may reach a threshold that was rounded from it.
    return np.asarray(heat > heat.dtype.type(threshold))


def panel(
    image: NDArray[Any],
    maps: Mapping[str, NDArray[np.floating]],
    thresholds: Mapping[str, float],
    mask: NDArray[np.bool_] | None = None,
    caption: str = "",
    passed: bool = True,
) -> Image.Image:
    """The image and its overlays side by side, with names above and a caption below.

    Args:
        image: (H, W, 3) uint8 or uint16.
        maps: (H, W) per name, in the order shown.
        thresholds: per name; the glow is full at one threshold's height above it, at least 1.
        mask: true defect, outlined on the first picture.
        caption: one line of text.
        passed: whether the part did, see ``judged_overlay``.
    """
    image, maps, mask = _for_drawing(to_uint8(image), maps, mask)
    pictures = {"image": outlined(image, mask)}
    for name, heat in maps.items():
        pictures[name] = judged_overlay(name, image, heat, thresholds[name], passed)
    scale = _SIDE / max(image.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (len(pictures) * (width + _GAP) + _GAP, height + 52), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (name, picture) in enumerate(pictures.items()):
        left = _GAP + place * (width + _GAP)
        pen.text((left, 5), name, fill="black", font=font)
        shown = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        sheet.paste(shown, (left, 24))
    pen.text((_GAP, height + 30), fitting(caption, font, sheet.width - 2 * _GAP), fill="black", font=font)
    return sheet


def _for_drawing(
    image: Picture, maps: Mapping[str, NDArray[np.floating]], mask: NDArray[np.bool_] | None
) -> tuple[Picture, Mapping[str, NDArray[np.floating]], NDArray[np.bool_] | None]:
    """Image, maps and mask, the larger ones shrunk: colouring takes a hundred bytes for each pixel."""
    scale = _DRAWN_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image, maps, mask
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))

    def shrunk(plane: NDArray[Any], method: Image.Resampling) -> NDArray[Any]:
        return np.asarray(Image.fromarray(plane).resize(size, method))

    smaller = {
        name: shrunk(np.asarray(heat, np.float32), Image.Resampling.BILINEAR) for name, heat in maps.items()
    }
    # Any pixel of the defect keeps its place, however thin the line that it belongs to.
    defect = None if mask is None else shrunk(np.uint8(255) * mask, Image.Resampling.BOX) > 0
    return shrunk(image, Image.Resampling.BOX), smaller, defect


def picture_name(title: str, digest: str) -> str:
    """File name of a picture of ``title``, which may hold what no file name can, or be as long as one.

    Args:
        title: from the names of image and defect type; a separator of folders becomes a line, and what is
            too long is lost.
        digest: of what is shown; its beginning keeps pictures of one title apart.
    """
    held = title.translate(_NOT_IN_NAMES)
    # The cut may halve a character, and not every file name is text.
    short = held.encode("utf-8", "surrogateescape")[:_TITLE_BYTES].decode("utf-8", "ignore")
    return f"{short}-{digest[:8]}.png"


def fitting(text: str, font: Any, width: int) -> str:
    """The text, its beginning dropped where it is too wide: the verdict stands at the end."""
    if font.getlength(text) <= width:
        return text
    start = next((at for at in range(len(text)) if font.getlength("..." + text[at:]) <= width), len(text))
    return "..." + text[start:]


def outlined(picture: Picture, mask: NDArray[np.bool_] | None) -> Picture:
    """An (H, W, 3) image with the edge of an (H, W) mask drawn; as it is without a mask."""
    if mask is None:
        return picture
    width = max(1, round(max(mask.shape) / 200))
    edge = ndimage.binary_dilation(mask, iterations=width) & ~mask
    marked = picture.copy()
    marked[edge] = (0, 200, 255)
    return marked


def to_uint8(image: NDArray[Any]) -> Picture:
    return np.asarray(image >> 8, np.uint8) if image.dtype == np.uint16 else np.asarray(image, np.uint8)
