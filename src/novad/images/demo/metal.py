"""Brushed metal: a grey plate with two drilled holes."""

import numpy as np

from novad.images.demo.texture import (
    SIZE,
    UNIT,
    Dice,
    Grid,
    Integers,
    Mask,
    blob,
    box_blur,
    grain,
    grid,
    lattice_noise,
    light,
    near_segment,
)

__all__ = ["DEFECTS", "paint"]

DEFECTS = ("dent", "pits", "polished", "scratch", "weave_imprint")


def paint(dice: Dice, defect: str | None, size: int = SIZE) -> tuple[Integers, Mask]:
    """A plate in sixteenths of a grey level, (size, size), and where its defect is.

    A larger plate has the same brushing, the same holes and defects of the same size.

    ``polished`` (the brushing is gone, nothing is added) and ``weave_imprint`` (a faint foreign pattern)
    are the novel types: they hold little that a texture classifier needs to tell textures apart.
    """
    at = grid(size)
    brush = _brushing(dice, at)
    shade = light(dice, at, 26)
    fine = grain(dice, 3 * UNIT, at.y.shape)
    marks, mask = _damage(dice, at, brush, defect)
    plate = (150 * UNIT + brush + marks) * shade // 256
    plate = _drill(dice, at, plate)
    return plate + fine + _specks(dice, at), mask


def _brushing(dice: Dice, at: Grid) -> Integers:
    slope = dice.integer(-5, 5)
    sheared = at.y * 256 + at.x * slope
    long_strokes = lattice_noise(dice, sheared * 5 // 8, at.x * 3, dice.integer(13, 17) * UNIT)
    short_strokes = lattice_noise(dice, sheared, at.x * 11, dice.integer(12, 16) * UNIT)
    return long_strokes + short_strokes


def _drill(dice: Dice, at: Grid, plate: Integers) -> Integers:
    shift_y, shift_x = dice.integer(-5, 5), dice.integer(-5, 5)
    size = len(at.y)
    for row, column in ((38, 40), (size - 38, size - 40)):
        squared = (at.y - row - shift_y) ** 2 + (at.x - column - shift_x) ** 2
        rim = np.clip((17 * 17 - squared) * 256 // 60, 0, 256)
        hole = np.clip((13 * 13 - squared) * 256 // 50, 0, 256)
        plate = (plate * (256 - rim) + (plate + 34 * UNIT) * rim) // 256
        plate = (plate * (256 - hole) + 38 * UNIT * hole) // 256
    return plate


def _specks(dice: Dice, at: Grid) -> Integers:
    """Dust: every plate has some, so that a dark dot alone is no defect."""
    total, size = np.zeros_like(at.y), len(at.y)
    for _ in range(dice.integer(0, 5)):
        spot = (dice.integer(4, size - 5), dice.integer(4, size - 5))
        total -= near_segment(at, spot, spot, 8) * dice.integer(8, 22) * UNIT // 256
    return total


def _place(dice: Dice, at: Grid) -> tuple[int, int]:
    """A point of the plate clear of the holes."""
    size = len(at.y)
    if dice.integer(0, 1):
        return dice.integer(70, size - 71), dice.integer(24, size - 25)
    return dice.integer(24, 70), dice.integer(90, size - 25)


def _damage(dice: Dice, at: Grid, brush: Integers, defect: str | None) -> tuple[Integers, Mask]:
    if defect is None:
        return np.zeros_like(at.y), np.zeros(at.y.shape, bool)
    marks, weight = {
        "dent": _dent,
        "pits": _pits,
        "polished": _polished,
        "scratch": _scratch,
        "weave_imprint": _weave_imprint,
    }[defect](dice, at, brush)
    return marks, weight >= 64


def _dent(dice: Dice, at: Grid, _brush: Integers) -> tuple[Integers, Integers]:
    row, column = _place(dice, at)
    radius = dice.integer(9, 15)
    bowl = np.clip(256 - ((at.y - row) ** 2 + (at.x - column) ** 2) * 256 // radius**2, 0, 256)
    slope = ((at.y - row) * 2 + (at.x - column)) * 256 // (2 * radius)
    return slope * bowl // 256 * dice.sign() * dice.integer(70, 120) * UNIT // 256, bowl * 2


def _pits(dice: Dice, at: Grid, _brush: Integers) -> tuple[Integers, Integers]:
    row, column = _place(dice, at)
    weight = np.zeros_like(at.y)
    for _ in range(dice.integer(5, 9)):
        spot = (row + dice.integer(-9, 9), column + dice.integer(-9, 9))
        weight = np.maximum(weight, near_segment(at, spot, spot, dice.integer(6, 16)))
    return -weight * dice.integer(42, 66) * UNIT // 256, weight


def _polished(dice: Dice, at: Grid, brush: Integers) -> tuple[Integers, Integers]:
    weight = blob(dice, at, _place(dice, at), (dice.integer(22, 32), dice.integer(24, 36)), 120)
    smooth = box_blur(box_blur(brush, 5, 0), 5, 1)
    return (smooth - brush) * weight * dice.integer(230, 256) // 65536, weight


def _scratch(dice: Dice, at: Grid, _brush: Integers) -> tuple[Integers, Integers]:
    row, column = _place(dice, at)
    end = (row + dice.sign() * dice.integer(14, 30), column + dice.sign() * dice.integer(6, 30))
    weight = near_segment(at, (row, column), end, dice.integer(3, 9))
    return weight * dice.sign() * dice.integer(22, 44) * UNIT // 256, weight


def _weave_imprint(dice: Dice, at: Grid, _brush: Integers) -> tuple[Integers, Integers]:
    weight = blob(dice, at, _place(dice, at), (dice.integer(16, 24), dice.integer(16, 24)), 160)
    pattern = 2 * (((at.y + at.x) // 2 + (at.y - at.x) // 2) % 2) - 1
    return pattern * weight * dice.integer(150, 240) // 256, weight
