"""Single pictures for pages and answers: images, the maps over them and pieces of them."""

import base64
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from novad.evaluation.overlays import judged_overlay, to_uint8
from novad.images.decode import Pixels

if TYPE_CHECKING:
    from novad.vision import Detection, Detector

__all__ = ["heatmap", "patch", "png_text", "small"]

_CONTEXT = 3
_PATCH_SIDE = 256
_OUTLINE = (0, 200, 255)


def small(pixels: Pixels, side: int) -> Image.Image:
    """The image (H, W, 3) in 8 bits, at most ``side`` pixels wide or high."""
    image = Image.fromarray(to_uint8(pixels))
    image.thumbnail((side, side))
    return image


def heatmap(
    detector: "Detector", kind: str, pixels: Pixels, detection: "Detection", side: int
) -> Image.Image:
    """The image under one of its maps, at most ``side`` pixels wide or high: maps are coarser than that.

    The scale is the detector's, the same for all its images; how parts that did not pass are shown tells
    ``judged_overlay``.
    """
    image = small(pixels, side)
    shown = replace(detection, size=(image.height, image.width))
    heat, threshold = getattr(shown, f"{kind}_map"), detector.thresholds.map[kind]
    passed = detection.decision == "PASS"
    return Image.fromarray(judged_overlay(kind, np.asarray(image), heat, threshold, passed))


def patch(pixels: Pixels, grid: tuple[int, int], place: tuple[int, int]) -> Image.Image:
    """One patch of an image, outlined, with what lies around it: a third of the image at least.

    Args:
        pixels: (H, W, 3).
        grid: rows and columns into which the image is divided.
        place: row and column of the patch.
    """
    height, width = pixels.shape[:2]
    cell = (height / grid[0], width / grid[1])
    top, left = place[0] * cell[0], place[1] * cell[1]
    rows, columns = (
        _window(at, step, side) for at, step, side in ((top, cell[0], height), (left, cell[1], width))
    )
    window = (columns[0], rows[0], columns[1], rows[1])
    image = small(pixels, max(height, width)).crop(window)
    scale = _PATCH_SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    box = [
        (left - window[0]) * scale,
        (top - window[1]) * scale,
        (left + cell[1] - window[0]) * scale - 1,
        (top + cell[0] - window[1]) * scale - 1,
    ]
    if box[2] > box[0] and box[3] > box[1]:
        ImageDraw.Draw(image).rectangle(box, outline=_OUTLINE, width=2)
    return image


def _window(start: float, step: float, side: int) -> tuple[int, int]:
    """Where to cut along one side: as much at the border as in the middle, so that crops are alike."""
    extent = min(side, max(1, round(step + 2 * max(_CONTEXT * step, side / 6))))
    first = min(max(0, round(start + step / 2 - extent / 2)), side - extent)
    return first, first + extent


def png_text(image: Image.Image) -> str:
    """Base64 text of the image as PNG."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")
