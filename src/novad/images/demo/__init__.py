"""Synthetic product lines in MVTec AD layout, byte-identical on every machine."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from novad.images.demo import board, fabric, metal
from novad.images.demo.png import encode_png
from novad.images.demo.texture import Dice, Integers, Mask, to_pixels

__all__ = ["DEMO_LINES", "make_demo_line", "make_demo_lines"]

TRAIN, TEST_GOOD, PER_DEFECT = 80, 40, 16

Paint = Callable[[Dice, str | None], tuple[Integers, Mask]]
DEMO_LINES: dict[str, tuple[Paint, tuple[str, ...]]] = {
    "brushed-metal": (metal.paint, metal.DEFECTS),
    "woven-fabric": (fabric.paint, fabric.DEFECTS),
    "printed-board": (board.paint, board.DEFECTS),
}


def make_demo_lines(out: Path) -> None:
    """Write every demo line below ``out``; the same files again when run again."""
    for line in DEMO_LINES:
        make_demo_line(line, out / line)


def make_demo_line(
    line: str, out: Path, train: int = TRAIN, test_good: int = TEST_GOOD, per_defect: int = PER_DEFECT
) -> None:
    """Write one line: ``train/good``, ``test/good``, ``test/TYPE`` and ``ground_truth/TYPE``.

    Images are 8-bit PNG of 192 x 192 pixels, masks 0 or 255. A smaller count gives the first images of a
    larger one, so that tests can use a part of a line.
    """
    paint, defects = DEMO_LINES[line]
    folders: list[tuple[str, str | None, int]] = [("train/good", None, train), ("test/good", None, test_good)]
    folders += [(f"test/{defect}", defect, per_defect) for defect in defects]
    for folder, defect, count in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            values, mask = paint(Dice(f"{line}/{folder}/{index}"), defect)
            (out / folder / f"{index:03d}.png").write_bytes(encode_png(to_pixels(values)))
            if defect is not None:
                truth = out / "ground_truth" / defect / f"{index:03d}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                truth.write_bytes(encode_png(np.where(mask, 255, 0).astype(np.uint8)))
