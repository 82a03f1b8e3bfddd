"""Formula fields: each draws one (size, size) float32 field in about [-1, 1] from the numbers of its class.

A field function takes the class's own generator (its constant traits) and the sample's generator (position,
phase, small changes), so that two samples of a class look alike without sharing a pixel.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree

__all__ = ["FIELDS", "Field", "silhouettes", "smooth_noise"]

Field = NDArray[np.float32]


def _grid(size: int) -> tuple[Field, Field]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return x, y


def _normalise(field: NDArray[np.floating]) -> Field:
    field = field - field.mean()
    return np.asarray(np.clip(field / (2.0 * field.std() + 1e-6), -1.5, 1.5), np.float32)


def _filtered_noise(gain: NDArray[np.floating], sample: Generator) -> Field:
    size = gain.shape[0]
    noise = np.fft.rfft2(sample.standard_normal((size, size), dtype=np.float32))
    return _normalise(np.fft.irfft2(noise * gain, s=(size, size)))


def _frequencies(size: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    fy = np.fft.fftfreq(size)[:, None]
    fx = np.fft.rfftfreq(size)[None, :]
    return fx, fy


def smooth_noise(size: int, wavelength: float, sample: Generator) -> Field:
    """Gaussian noise without detail below ``wavelength`` pixels."""
    fx, fy = _frequencies(size)
    return _filtered_noise(np.exp(-(fx**2 + fy**2) * wavelength**2 * 2), sample)


def spectrum(size: int, traits: Generator, sample: Generator) -> Field:
    """Noise with a power-law spectrum stretched along one direction, as in brushed or woven surfaces."""
    exponent = traits.uniform(0.4, 2.2)
    stretch = np.exp(traits.uniform(0, 2.8))
    angle = traits.uniform(0, np.pi) + sample.normal(0, 0.05)
    fx, fy = _frequencies(size)
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = -fx * np.sin(angle) + fy * np.cos(angle)
    radius = np.sqrt((along * stretch) ** 2 + across**2) + 1.0 / size
    field = _filtered_noise(radius**-exponent, sample)
    return _bend(field, traits)


def band(size: int, traits: Generator, sample: Generator) -> Field:
    """Band-passed noise pushed through a threshold: labyrinths and spots like Turing patterns."""
    wavelength = np.exp(traits.uniform(np.log(4), np.log(40))) * np.exp(sample.normal(0, 0.08))
    width = traits.uniform(0.1, 0.5)
    angle, anisotropy = traits.uniform(0, np.pi), traits.uniform(0, 1) ** 2
    sharpness, offset = np.exp(traits.uniform(0, 2.5)), traits.normal(0, 0.4)
    fx, fy = _frequencies(size)
    radius = np.sqrt(fx**2 + fy**2) + 1e-9
    facing = np.cos(np.arctan2(fy, fx) - angle) ** 2
    gain = np.exp(-((np.log(radius * wavelength) / width) ** 2) / 2) * (1 - anisotropy * facing)
    return np.asarray(np.tanh(sharpness * (_filtered_noise(gain, sample) + offset)), np.float32)


def lattice(size: int, traits: Generator, sample: Generator) -> Field:
    """One to three gratings, added or multiplied, on a slightly warped sheet: weaves, grids, meshes."""
    x, y = _grid(size)
    warp = sample.uniform(0, 3) * traits.uniform(0, 1.5)
    x = x + warp * smooth_noise(size, 40, sample)
    y = y + warp * smooth_noise(size, 40, sample)
    turn, scale = sample.normal(0, 0.05), np.exp(sample.normal(0, 0.08))
    multiply, gratings = traits.random() < 0.5, []
    for _ in range(traits.integers(1, 4)):
        wavelength = np.exp(traits.uniform(np.log(4), np.log(48))) * scale
        angle = traits.uniform(0, np.pi) + turn
        phase = sample.uniform(0, 2 * np.pi)
        gratings.append(np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / wavelength) + phase))
    field = np.prod(gratings, axis=0) if multiply else np.mean(gratings, axis=0)
    return _bend(_normalise(field), traits)


def cells(size: int, traits: Generator, sample: Generator) -> Field:
    """Worley noise: distances to scattered points, as in grains, pores and scales."""
    side = int(traits.integers(3, 10))
    jitter = traits.uniform(0.1, 1.0)
    mode = int(traits.integers(0, 4))
    stretch = np.exp(traits.normal(0, 0.5))
    x, y = _grid(size)
    step = size / side
    at = np.stack(np.meshgrid(np.arange(-1, side + 1), np.arange(-1, side + 1)), -1).reshape(-1, 2)
    points = (at + 0.5 + jitter * (sample.random((len(at), 2)) - 0.5) + sample.random(2)) * step
    weight = np.array([stretch, 1.0], np.float32)
    distances, owner = cKDTree(points * weight).query(
        np.stack([x.ravel(), y.ravel()], -1) * weight, k=2, workers=1
    )
    first, second = distances[:, 0].reshape(size, size), distances[:, 1].reshape(size, size)
    if mode == 0:
        return _normalise(first)
    if mode == 1:
        return _normalise(np.minimum(second - first, step * 0.3))
    tone = sample.random(len(points))[owner[:, 0]].reshape(size, size)
    return _normalise(tone + (0.8 * (second - first < step * 0.12) if mode == 3 else 0.0))


def strokes(size: int, traits: Generator, sample: Generator) -> Field:
    """Curved pen strokes with the class's direction, spread, length and width: scratches, fibres, hair."""
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    count = int(np.exp(traits.uniform(np.log(4), np.log(90))))
    direction, spread = traits.uniform(0, np.pi), traits.uniform(0, 1) ** 2 * np.pi
    length, curl = np.exp(traits.uniform(np.log(8), np.log(120))), traits.normal(0, 0.5)
    width = int(traits.integers(1, 6))
    for _ in range(count):
        angle = direction + spread * (sample.random() - 0.5)
        place = sample.random(2) * size
        points = [(place[0], place[1])]
        for _ in range(8):
            angle += curl * sample.random() / 2
            place = place + length / 8 * np.array([np.cos(angle), np.sin(angle)])
            points.append((place[0], place[1]))
        pen.line(points, fill=int(sample.integers(120, 256)), width=width, joint="curve")
    return np.asarray(canvas, np.float32) / 127.5 - 1


def shapes(size: int, traits: Generator, sample: Generator) -> Field:
    """Polygons, stars and ellipses, scattered or in rows: parts on a board, prints, perforations."""
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    corners = int(traits.integers(2, 9))
    star = traits.uniform(0.35, 1.0)
    radius = np.exp(traits.uniform(np.log(4), np.log(36)))
    ordered, aspect, outline = traits.random() < 0.5, traits.uniform(0.3, 1.0), traits.random() < 0.3
    pitch = radius * traits.uniform(2.1, 4)
    turn = traits.uniform(0, np.pi)
    tones = traits.integers(90, 256, 3)
    for centre in _places(size, pitch, ordered, sample):
        angle = turn if ordered else sample.uniform(0, 2 * np.pi)
        reach = radius * np.exp(sample.normal(0, 0.03 if ordered else 0.25))
        tone = int(tones[sample.integers(0, 3)])
        outer = _outline(centre, reach, corners, star, aspect, angle)
        if outline:
            pen.line([*outer, outer[0]], fill=tone, width=max(1, int(reach / 6)))
        else:
            pen.polygon(outer, fill=tone)
    return np.asarray(canvas, np.float32) / 127.5 - 1


def _places(size: int, pitch: float, ordered: bool, sample: Generator) -> NDArray[np.float64]:
    if not ordered:
        count = int(min(60, max(2, 0.7 * (size / pitch) ** 2)))
        return sample.random((count, 2)) * size
    steps = np.arange(-pitch, size + pitch, pitch)[:20]
    lattice_points = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    return np.asarray(lattice_points + sample.random(2) * pitch)


def _outline(
    centre: NDArray[np.float64], reach: float, corners: int, star: float, aspect: float, angle: float
) -> list[tuple[float, float]]:
    count = 24 if corners == 2 else 2 * corners
    turns = np.arange(count) * 2 * np.pi / count
    radii = np.where(np.arange(count) % 2 == 0, reach, reach * (1.0 if corners == 2 else star))
    px, py = radii * np.cos(turns), radii * np.sin(turns) * aspect
    x = centre[0] + px * np.cos(angle) - py * np.sin(angle)
    y = centre[1] + px * np.sin(angle) + py * np.cos(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def silhouettes(size: int, traits: Generator, sample: Generator) -> Field:
    """Mask in [0, 1] of a few large outlines of one kind: objects to lay over a ground."""
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    corners, star, aspect = int(traits.integers(2, 8)), traits.uniform(0.3, 1.0), traits.uniform(0.35, 1.0)
    radius = np.exp(traits.uniform(np.log(0.1), np.log(0.45))) * size
    for _ in range(int(np.clip(0.35 * (size / radius) ** 2, 1, 10))):
        reach = radius * np.exp(sample.normal(0, 0.2))
        turn = sample.uniform(0, 2 * np.pi)
        pen.polygon(_outline(sample.random(2) * size, reach, corners, star, aspect, turn), fill=255)
    return np.asarray(np.asarray(canvas, np.float32) / 255, np.float32)


def fractal(size: int, traits: Generator, sample: Generator) -> Field:
    """Attractor of a random iterated function system, as in FractalDB (Kataoka et al. 2020)."""
    maps = int(traits.integers(2, 6))
    matrices = traits.uniform(-1, 1, (maps, 2, 2))
    matrices *= (traits.uniform(0.5, 0.85, maps) / np.linalg.norm(matrices, 2, axis=(1, 2)))[:, None, None]
    shifts = traits.uniform(-1, 1, (maps, 2))
    shifts = shifts + sample.normal(0, 0.03, shifts.shape)
    points = sample.uniform(-1, 1, (1500, 2))
    counts = np.zeros((size, size), np.float32)
    for step in range(26):
        choice = sample.integers(0, maps, len(points))
        points = np.einsum("nij,nj->ni", matrices[choice], points) + shifts[choice]
        if step == 8:
            low, high = points.min(0), points.max(0)
            scale = sample.uniform(0.8, 1.3) * size / (np.max(high - low) + 1e-6)
            origin = sample.uniform(-0.1, 0.2, 2) * size
        if step > 8:
            at = ((points - low) * scale + origin).astype(np.int64)
            inside = ((at >= 0) & (at < size)).all(1)
            np.add.at(counts, (at[inside, 1], at[inside, 0]), 1.0)
    return np.asarray(np.tanh(counts / traits.uniform(0.8, 4)) * 2 - 1, np.float32)


def glyphs(size: int, traits: Generator, sample: Generator) -> Field:
    """A few small bit patterns set like type, in rows: markings, labels, pads and pins."""
    pixel = int(traits.integers(1, 5))
    side = int(traits.integers(4, 9))
    alphabet = traits.random((int(traits.integers(1, 6)), side, side)) < traits.uniform(0.25, 0.65)
    gap = int(traits.integers(1, 4))
    pitch = (side + gap) * pixel
    rows = size // pitch + 2
    text = sample.integers(0, len(alphabet), (rows, rows))
    sheet = np.zeros((rows, side + gap, rows, side + gap), np.float32)
    sheet[:, :side, :, :side] = alphabet[text].transpose(0, 2, 1, 3)
    sheet = np.kron(sheet.reshape(rows * (side + gap), -1), np.ones((pixel, pixel), np.float32))
    top, left = sample.integers(0, pitch, 2)
    return sheet[top : top + size, left : left + size] * 2 - 1


def turing(size: int, traits: Generator, sample: Generator) -> Field:
    """Reaction and diffusion: noise that a local activator and a wider inhibitor sharpen step by step."""
    side = size // 2
    wavelength = np.exp(traits.uniform(np.log(3), np.log(14))) * np.exp(sample.normal(0, 0.06))
    ratio, gain, bias = traits.uniform(1.4, 2.4), traits.uniform(2, 8), traits.normal(0, 0.25)
    angle, stretch = traits.uniform(0, np.pi), np.exp(abs(traits.normal(0, 0.5)))
    fx, fy = _frequencies(side)
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    squared = ((along * stretch) ** 2 + across**2) * wavelength**2 * 2
    kernel = np.exp(-squared) - np.exp(-squared * ratio**2)
    field = sample.standard_normal((side, side), dtype=np.float32)
    for _ in range(int(traits.integers(3, 12))):
        reaction = np.fft.irfft2(np.fft.rfft2(field) * kernel, s=(side, side))
        drive = gain * (reaction / (reaction.std() + 1e-6) * 0.5 + bias * 0.2)
        field = np.asarray(np.tanh(drive), np.float32)
    return _enlarged(field, size)


def automaton(size: int, traits: Generator, sample: Generator) -> Field:
    """Cyclic cellular automaton (Griffeath): a cell takes the next state when enough neighbours hold it."""
    side = max(8, size // int(traits.integers(2, 6)))
    states, wanted = int(traits.integers(3, 9)), int(traits.integers(1, 4))
    offsets = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    offsets = offsets[: 8 if traits.random() < 0.5 else 4]
    cells_ = sample.integers(0, states, (side, side))
    for _ in range(int(traits.integers(4, 25))):
        following = (cells_ + 1) % states
        holding = sum((np.roll(cells_, offset, (0, 1)) == following).astype(np.int8) for offset in offsets)
        cells_ = np.where(holding >= wanted, following, cells_)
    tones = traits.uniform(-1, 1, states).astype(np.float32)
    return _enlarged(tones[cells_], size, smooth=bool(traits.random() < 0.3))


def rings(size: int, traits: Generator, sample: Generator) -> Field:
    """Waves around one or two centres, with spokes: turned parts, growth rings, wheels, ripples."""
    x, y = _grid(size)
    wavelength = np.exp(traits.uniform(np.log(5), np.log(50))) * np.exp(sample.normal(0, 0.06))
    spokes, twist = int(traits.integers(0, 12)), traits.normal(0, 1.5)
    warp = traits.uniform(0, 6)
    field = np.zeros((size, size), np.float32)
    for _ in range(int(traits.integers(1, 3))):
        cx, cy = (sample.uniform(-0.1, 1.1, 2) * size).tolist()
        dx, dy = x - cx, y - cy
        radius = np.hypot(dx, dy) + warp * smooth_noise(size, 30, sample)
        turn = np.arctan2(dy, dx)
        field = field + np.sin(radius * (2 * np.pi / wavelength) + spokes * (turn + twist * radius / size))
    return _bend(_normalise(field), traits)


def cracks(size: int, traits: Generator, sample: Generator) -> Field:
    """Branching, jittering lines that split as they run: fissures, veins, roots, tracks."""
    canvas = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(canvas)
    step, jitter = traits.uniform(3, 10), traits.uniform(0.05, 0.9)
    split, square = traits.uniform(0.02, 0.2), traits.random() < 0.3
    width = int(traits.integers(1, 5))
    tips = [(*(sample.random(2) * size), sample.uniform(0, 2 * np.pi)) for _ in range(traits.integers(1, 9))]
    for _ in range(260):
        if not tips:
            break
        x, y, angle = tips.pop(int(sample.integers(0, len(tips))))
        angle += sample.normal(0, jitter)
        heading = np.round(angle / (np.pi / 4)) * (np.pi / 4) if square else angle
        to = (x + step * np.cos(heading), y + step * np.sin(heading))
        pen.line([(x, y), to], fill=int(sample.integers(170, 256)), width=width)
        if 0 <= to[0] < size and 0 <= to[1] < size:
            tips.append((*to, angle))
            if sample.random() < split:
                tips.append((*to, angle + sample.choice([-1, 1]) * sample.uniform(0.4, 1.4)))
    return np.asarray(canvas, np.float32) / 127.5 - 1


def _enlarged(field: NDArray[np.floating], size: int, smooth: bool = True) -> Field:
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    image = Image.fromarray(np.asarray(field, np.float32)).resize((size, size), how)
    return np.asarray(np.clip(np.asarray(image), -1.5, 1.5), np.float32)


def _bend(field: Field, traits: Generator) -> Field:
    """One of five point non-linearities, by the class."""
    choice, strength = int(traits.integers(0, 5)), traits.uniform(1, 6)
    if choice == 1:
        field = _normalise(np.abs(field))
    elif choice == 2:
        field = np.tanh(strength * field)
    elif choice == 3:
        field = np.sin(strength * field)
    elif choice == 4:
        field = np.asarray(np.round(field * strength) / strength, np.float32)
    return field.astype(np.float32)


FIELDS: dict[str, Callable[[int, Generator, Generator], Field]] = {
    "spectrum": spectrum,
    "band": band,
    "lattice": lattice,
    "cells": cells,
    "strokes": strokes,
    "shapes": shapes,
    "fractal": fractal,
    "glyphs": glyphs,
    "turing": turing,
    "automaton": automaton,
    "rings": rings,
    "cracks": cracks,
}
