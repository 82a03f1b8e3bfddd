"""Integer noise and shapes that come out the same on every machine.

No floating point reaches a pixel: libm, BLAS and vector units round differently from one machine to the
next, and a single differing pixel would break the digest in ``data.dvc``. Brightness is kept in sixteenths
of a grey level, weights in 1/256.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SIZE",
    "UNIT",
    "Dice",
    "Grid",
    "Integers",
    "Mask",
    "blob",
    "box_blur",
    "grain",
    "grid",
    "lattice_noise",
    "light",
    "near_segment",
    "to_pixels",
]

SIZE = 192
UNIT = 16

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Item = TypeVar("Item")

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def _scramble(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele et al. 2014); unsigned overflow wraps, as the formula wants."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class Dice:
    """Random integers by counter, seeded by a name."""

    def __init__(self, name: str) -> None:
        self._state = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")

    def word(self) -> int:
        """The next 64 random bits."""
        self._state = (self._state + _GOLDEN) & _WORD
        return int(_scramble(np.array([self._state], np.uint64))[0])

    def integer(self, low: int, high: int) -> int:
        """Uniform in ``low`` to ``high``, both included."""
        return low + (((self.word() >> 32) * (high - low + 1)) >> 32)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.integer(0, len(items) - 1)]

    def sign(self) -> int:
        return self.pick((-1, 1))


@dataclass(frozen=True)
class Grid:
    """Row and column of every pixel, (size, size) each."""

    y: Integers
    x: Integers


def grid(size: int = SIZE) -> Grid:
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    return Grid(y, x)


def grain(dice: Dice, level: int, shape: tuple[int, ...]) -> Integers:
    """Bell-shaped white noise with a standard deviation of ``level`` sixteenths."""
    count = int(np.prod(shape))
    counter = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(dice.word())
    # The sum of eight bytes has mean 1020 and standard deviation 209, whatever the byte order.
    total = _scramble(counter).view(np.uint8).reshape(count, 8).sum(axis=1, dtype=np.int64)
    noise: Integers = (((total - 1020) * level) // 209).reshape(shape)
    return noise


def lattice_noise(dice: Dice, y: Integers, x: Integers, amplitude: int) -> Integers:
    """Smooth noise within +-``amplitude`` at coordinates in 1/256 of a lattice cell (value noise)."""
    seed = np.uint64(dice.word())
    row, column = y >> 8, x >> 8
    v, u = _smooth(y & 255), _smooth(x & 255)

    def corner(dy: int, dx: int) -> Integers:
        key = (row + dy).astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        key += (column + dx).astype(np.uint64) * np.uint64(_GOLDEN)
        return (_scramble(key + seed) >> np.uint64(55)).astype(np.int64) - 256

    top: Integers = corner(0, 0) * (256 - u) + corner(0, 1) * u
    bottom: Integers = corner(1, 0) * (256 - u) + corner(1, 1) * u
    noise: Integers = ((top * (256 - v) + bottom * v) * amplitude) >> 24
    return noise


def _smooth(fraction: Integers) -> Integers:
    return (fraction * fraction * (768 - 2 * fraction)) >> 16


def box_blur(values: Integers, radius: int, axis: int) -> Integers:
    """Running mean over ``2 * radius + 1`` values along ``axis``, edges repeated."""
    width = 2 * radius + 1
    padding = [(radius + 1, radius) if a == axis else (0, 0) for a in range(values.ndim)]
    total = np.pad(values, padding, mode="edge").cumsum(axis=axis)
    length = values.shape[axis]
    sums: Integers = total.take(np.arange(width, width + length), axis) - total.take(np.arange(length), axis)
    return sums // width


def light(dice: Dice, at: Grid, swing: int) -> Integers:
    """Uneven lighting in 1/256: a tilted plane, a slow ripple and an overall level, each within ``swing``."""
    tilt_y, tilt_x = dice.integer(-swing, swing), dice.integer(-swing, swing)
    size = len(at.y)
    plane = ((at.y - size // 2) * tilt_y + (at.x - size // 2) * tilt_x) // size
    ripple = lattice_noise(dice, at.y * 3, at.x * 3, swing // 3)
    return 256 + dice.integer(-swing, swing) // 2 + plane + ripple


def blob(dice: Dice, at: Grid, centre: tuple[int, int], radii: tuple[int, int], edge: int) -> Integers:
    """Weight 0..256 of an irregular ellipse; ``edge`` 256 fades from the centre on, small is sharp."""
    squared = ((at.y - centre[0]) ** 2 * 256) // radii[0] ** 2 + ((at.x - centre[1]) ** 2 * 256) // radii[
        1
    ] ** 2
    ragged = lattice_noise(dice, at.y * 28, at.x * 28, 110)
    weight: Integers = np.clip((256 - squared + ragged) * 256 // edge, 0, 256)
    return weight


def near_segment(at: Grid, start: tuple[int, int], end: tuple[int, int], width: int) -> Integers:
    """Weight 0..256 within ``width`` sixteenths of a pixel of a segment, falling off over one pixel."""
    outer = width + 16
    weight = np.zeros(at.y.shape, np.int64)
    # Only pixels around the segment are computed: most of a board is far from any one of its traces.
    near = _around(at, start, end, outer // 16 + 1)
    y, x = at.y[near] - start[0], at.x[near] - start[1]
    vy, vx = end[0] - start[0], end[1] - start[1]
    length = max(1, vy * vy + vx * vx)
    along = np.clip(y * vy + x * vx, 0, length)
    dy = 16 * y - 16 * vy * along // length
    dx = 16 * x - 16 * vx * along // length
    # Linear in the squared distance: no root is needed, and the edge is soft enough to look optical.
    weight[near] = np.clip(
        (outer * outer - dy * dy - dx * dx) * 256 // (outer * outer - width * width), 0, 256
    )
    return weight


def _around(at: Grid, start: tuple[int, int], end: tuple[int, int], margin: int) -> tuple[slice, slice]:
    """Rows and columns of the grid within ``margin`` pixels of the box of a segment."""
    spans = []
    for axis, coordinates in enumerate((at.y[:, 0], at.x[0])):
        low, high = sorted((start[axis], end[axis]))
        first, last = np.searchsorted(coordinates, (low - margin, high + margin + 1))
        spans.append(slice(int(first), int(last)))
    return spans[0], spans[1]


def to_pixels(values: Integers) -> NDArray[np.uint8]:
    """Sixteenths to 8-bit grey levels, rounded and clipped."""
    return np.clip((values + UNIT // 2) // UNIT, 0, 255).astype(np.uint8)
