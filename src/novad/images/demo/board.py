"""Printed board: traces under solder mask, pads, vias, a chip body and silkscreen."""

from dataclasses import dataclass

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

DEFECTS = ("bridge", "flux_residue", "mask_tint", "open_trace", "pad_shift")

_SOLDER_MASK = np.array([34, 92, 58], np.int64)
_TRACE = np.array([58, 128, 80], np.int64)
_PAD = np.array([188, 166, 104], np.int64)
_SILK = np.array([202, 206, 200], np.int64)
_BODY = np.array([48, 48, 52], np.int64)

_COLUMNS = tuple(range(34, 120, 14))
_BUS = tuple(range(136, 184, 9))
_VIAS = ((150, 34), (166, 48), (150, 62), (166, 76), (150, 90), (166, 104))
_PADS = tuple((row, column) for row in (50, 104) for column in _COLUMNS)
_SEGMENTS = (
    *(((44, column), (14, column)) for column in _COLUMNS),
    *(((14, column), (8, column + 6)) for column in _COLUMNS),
    *(((110, column), (124, column)) for column in _COLUMNS[:6]),
    *(((124, column), via) for column, via in zip(_COLUMNS, _VIAS, strict=False)),
    *(((16, column), (176, column)) for column in _BUS),
)


@dataclass
class _Layers:
    """Weights 0..256 of each material, (SIZE, SIZE)."""

    trace: Integers
    pad: Integers
    hole: Integers
    silk: Integers
    body: Integers


def paint(dice: Dice, defect: str | None) -> tuple[Integers, Mask]:
    """A board in sixteenths of a grey level, (SIZE, SIZE, 3), and where its defect is.

    ``mask_tint`` (right structure, slightly wrong hue at equal luminance) and ``flux_residue`` (a faint
    crystalline film) are the novel types.
    """
    shift = (dice.integer(-4, 4), dice.integer(-4, 4))
    moved = grid()
    at = Grid(moved.y - shift[0], moved.x - shift[1])
    layers, weight = _draw(dice, at, defect)
    board = _coloured(dice, at, layers)
    if defect == "mask_tint":
        weight = blob(dice, at, _place(dice), (dice.integer(13, 20), dice.integer(13, 20)), 140)
        tint = np.array([120, -60, 100], np.int64) * dice.sign() * dice.integer(64, 100)
        board = board * (65536 + weight[..., None] * tint // 256) // 65536
    if defect == "flux_residue":
        weight = blob(dice, at, _place(dice), (dice.integer(13, 20), dice.integer(13, 20)), 180)
        film = abs(lattice_noise(dice, at.y * 128, at.x * 128, 256)) - 60
        board = board + (film * weight // 256 * dice.integer(38, 60) * UNIT // 256)[..., None]
    blurred = box_blur(box_blur(board, 1, 0), 1, 1)
    shade = light(dice, moved, 24)
    return blurred * shade[..., None] // 256 + grain(dice, 3 * UNIT, (SIZE, SIZE, 3)), weight >= 64


def _draw(dice: Dice, at: Grid, defect: str | None) -> tuple[_Layers, Integers]:
    weight = np.zeros((SIZE, SIZE), np.int64)
    layers = _Layers(*(np.zeros((SIZE, SIZE), np.int64) for _ in range(5)))
    thickness = dice.integer(14, 22)
    for start, end in _SEGMENTS:
        layers.trace = np.maximum(layers.trace, near_segment(at, start, end, thickness))
    if defect == "open_trace":
        weight = _gap(dice, at)
        layers.trace = layers.trace * (256 - weight) // 256
    if defect == "bridge":
        weight = _bridge(dice, at)
        layers.trace = np.maximum(layers.trace, weight)
    wrong = dice.integer(0, len(_PADS) - 1) if defect == "pad_shift" else -1
    for index, (row, column) in enumerate(_PADS):
        placed = _rectangle(at, row, column, 7, 4)
        if index == wrong:
            sound = placed
            placed = _rectangle(at, row + dice.sign() * dice.integer(2, 3), column + dice.sign() * 2, 7, 4)
            weight = np.where(abs(placed - sound) > 0, 256, 0)
        layers.pad = np.maximum(layers.pad, placed)
    for via in _VIAS:
        layers.pad = np.maximum(layers.pad, near_segment(at, via, via, 64))
        layers.hole = np.maximum(layers.hole, near_segment(at, via, via, 24))
    layers.body = _rectangle(at, 77, 69, 17, 44)
    for row, column, half in ((66, 34, 2), (134, 150, 9), (184, 60, 14), (184, 96, 8), (184, 150, 18)):
        layers.silk = np.maximum(layers.silk, _rectangle(at, row, column, 2, half))
    return layers, weight


def _rectangle(at: Grid, row: int, column: int, half_height: int, half_width: int) -> Integers:
    return np.where((abs(at.y - row) <= half_height) & (abs(at.x - column) <= half_width), 256, 0)


def _gap(dice: Dice, at: Grid) -> Integers:
    row, column = dice.integer(24, 168), dice.pick(_BUS)
    return near_segment(at, (row, column - 3), (row, column + 3), dice.integer(90, 150))


def _bridge(dice: Dice, at: Grid) -> Integers:
    row, column = dice.integer(24, 168), dice.pick(_BUS[:-1])
    reach = dice.integer(7, 9)
    return near_segment(at, (row, column), (row + dice.integer(-2, 2), column + reach), dice.integer(40, 70))


def _place(dice: Dice) -> tuple[int, int]:
    """A point of the bare board: on the black chip body a tint would not show."""
    if dice.integer(0, 1):
        return dice.integer(128, SIZE - 25), dice.integer(24, SIZE - 25)
    return dice.integer(24, SIZE - 25), dice.integer(134, SIZE - 25)


def _coloured(dice: Dice, at: Grid, layers: _Layers) -> Integers:
    tone = 256 + dice.integer(-14, 14)
    pitted = 256 + lattice_noise(dice, at.y * 90, at.x * 90, 22)
    board = np.broadcast_to(_SOLDER_MASK * UNIT * tone // 256, (SIZE, SIZE, 3)) * pitted[..., None] // 256
    gloss = 256 + lattice_noise(dice, at.y * 20, at.x * 20, 40)
    pad = _PAD * UNIT * gloss[..., None] // 256
    for weight, colour in (
        (layers.trace, _TRACE * UNIT * tone // 256),
        (layers.pad, pad),
        (layers.hole, _BODY * UNIT // 2),
        (layers.body, _BODY * UNIT),
        (layers.silk, _SILK * UNIT),
    ):
        board = (board * (256 - weight[..., None]) + colour * weight[..., None]) // 256
    return board
