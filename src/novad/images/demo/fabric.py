"""Woven fabric: blue warp and grey weft in plain weave."""

import numpy as np

from novad.images.demo.texture import (
    SIZE,
    UNIT,
    Dice,
    Grid,
    Integers,
    Mask,
    blob,
    grain,
    grid,
    lattice_noise,
    light,
)

__all__ = ["DEFECTS", "paint"]

DEFECTS = ("broken_thread", "dye_shift", "misweave", "oil_stain", "slub")

_PERIOD = 8
_WARP = np.array([84, 104, 158], np.int64)
_WEFT = np.array([158, 158, 152], np.int64)
# Adds red what it takes from green and blue, at about equal luminance (0.30, 0.59, 0.11 in 1/256 sum to 0).
_HUE = np.array([118, -76, 88], np.int64)


def paint(dice: Dice, defect: str | None, size: int = SIZE) -> tuple[Integers, Mask]:
    """A piece of cloth in sixteenths of a grey level, (size, size, 3), and where its defect is.

    A larger piece has threads and defects of the same size.

    ``dye_shift`` (right structure, slightly wrong hue at equal luminance) and ``misweave`` (right threads,
    wrong order) are the novel types.
    """
    at = grid(size)
    y, x = _wander(dice, at)
    thread_y, thread_x = y // (_PERIOD * 256), x // (_PERIOD * 256)
    weight = _where(dice, at, y, x, defect)
    over = _warp_on_top(thread_y, thread_x)
    if defect == "misweave":
        over = np.where(weight >= 200, (thread_y + thread_x) // 2 % 2 == 0, over)
    warp = _thread(dice, thread_x, _profile(x), over)
    weft = _thread(dice, thread_y, _profile(y), ~over)
    if defect == "broken_thread":
        warp = warp - weight * 170 // 256
        over = over & (weight < 128)
    if defect == "slub":
        weft = weft + weight * dice.integer(18, 32) // 256
        over = over & (weight < 200)
    cloth = np.where(over[..., None], _WARP * warp[..., None], _WEFT * weft[..., None]) * UNIT // 256
    cloth = _stained(dice, cloth, weight, defect)
    shade = light(dice, at, 30)
    return cloth * shade[..., None] // 256 + grain(dice, 4 * UNIT, (size, size, 3)), weight >= 64


def _wander(dice: Dice, at: Grid) -> tuple[Integers, Integers]:
    """Thread coordinates in 1/256 pixel: the cloth lies a little shifted, stretched and wavy."""
    stretch = 256 + dice.integer(-6, 6)
    y = at.y * stretch + lattice_noise(dice, at.y * 5, at.x * 5, 700) + dice.integer(0, 4095)
    x = at.x * stretch + lattice_noise(dice, at.y * 5, at.x * 5, 700) + dice.integer(0, 4095)
    return y + 8192, x + 8192


def _warp_on_top(thread_y: Integers, thread_x: Integers) -> Mask:
    over: Mask = (thread_y + thread_x) % 2 == 0
    return over


def _profile(coordinate: Integers) -> Integers:
    """Rounded cross-section of a thread: 256 on its ridge, 120 at its edge."""
    offset = coordinate % (_PERIOD * 256) - _PERIOD * 128
    return 256 - offset * offset * 136 // (_PERIOD * 128) ** 2


def _thread(dice: Dice, index: Integers, profile: Integers, top: Mask) -> Integers:
    shade = 256 + lattice_noise(dice, index * 256, index * 0, 26)
    return profile * shade // 256 * np.where(top, 256, 190) // 256


def _where(dice: Dice, at: Grid, y: Integers, x: Integers, defect: str | None) -> Integers:
    """Weight 0..256 of the damaged region."""
    size = len(at.y)
    centre = (dice.integer(34, size - 35), dice.integer(34, size - 35))
    if defect is None:
        return np.zeros_like(at.y)
    if defect == "broken_thread":
        same_thread = x // (_PERIOD * 256) == x[centre] // (_PERIOD * 256)
        return np.where(same_thread & (abs(at.y - centre[0]) <= dice.integer(4, 9)), 256, 0)
    if defect == "slub":
        same_thread = y // (_PERIOD * 256) == y[centre] // (_PERIOD * 256)
        half = dice.integer(4, 12)
        return np.where(same_thread, np.clip((half - abs(at.x - centre[1])) * 64, 0, 256), 0)
    radii = (dice.integer(10, 17), dice.integer(10, 17))
    return blob(dice, at, centre, radii, {"misweave": 200, "dye_shift": 150, "oil_stain": 256}[defect])


def _stained(dice: Dice, cloth: Integers, weight: Integers, defect: str | None) -> Integers:
    if defect == "oil_stain":
        return cloth * (256 - weight[..., None] * dice.integer(40, 68) // 256) // 256
    if defect == "dye_shift":
        strength = dice.sign() * dice.integer(26, 48)
        return cloth * (65536 + weight[..., None] * strength * _HUE // 256) // 65536
    return cloth
