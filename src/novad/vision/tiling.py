"""Tiling: feature maps, and gradients through them, one part of the image at a time and without seams.

A convolutional feature depends on the pixels around it, its receptive field, and on nothing else. So a tile
with that much of the image around it gives the features of the whole image, and by the chain rule the
gradients of all tiles add up to the gradient of the whole. Tiles are cut out and never padded: only at the
image's own border does the network see its own padding.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from novad.errors import ConfigError

__all__ = ["Tiling", "measure_margins"]

Maps = dict[str, Tensor]
Run = Callable[[Tensor, Collection[str]], Maps]
Look = Callable[[Tensor], Maps]

# A feature that changes by less than this share of the layer's largest does not see the change.
NOTHING = 1e-12
# Sums of the same numbers over images of another size differ by less than this share.
ROUNDING = 1e-9
FIRST_STRIP, LONGEST_STRIP = 512, 4096


@dataclass(frozen=True)
class Span:
    """Pixels along one axis: those whose features are kept, and those that the network must see for them."""

    kept: slice
    seen: slice


@dataclass(frozen=True)
class Tile:
    """A part of one image of a batch."""

    image: int
    rows: Span
    columns: Span

    def seen(self, batch: Tensor) -> Tensor:
        """What the network must see of (N, C, H, W), as a view (1, C, h, w)."""
        return batch[self.image : self.image + 1, :, self.rows.seen, self.columns.seen]

    def kept(self, own: Tensor, stride: int) -> Tensor:
        """The kept positions of the tile's own feature map, as a view."""
        rows, columns = (
            slice(*((pixel - span.seen.start) // stride for pixel in (span.kept.start, span.kept.stop)))
            for span in (self.rows, self.columns)
        )
        return own[:, :, rows, columns]

    def of(self, whole: Tensor, stride: int) -> Tensor:
        """The same positions of the whole batch's feature map, as a view."""
        rows, columns = (
            slice(span.kept.start // stride, span.kept.stop // stride) for span in (self.rows, self.columns)
        )
        return whole[self.image : self.image + 1, :, rows, columns]


@dataclass(frozen=True)
class Tiling:
    """How a network's images are cut.

    Attributes:
        side: of the part whose features one pass keeps, in pixels.
        strides: pixels per position of each layer.
        margins: pixels around a part that a layer's features depend on, from ``measure_margins``.
    """

    side: int
    strides: Mapping[str, int]
    margins: Mapping[str, int]

    def __call__(self, run: Run, encoded: Tensor, layers: Collection[str]) -> Maps:
        """What ``run`` gives for a whole batch, from one tile of one image at a time.

        Args:
            run: feature maps of some layers of an encoded batch.
            encoded: (N, C, H, W).
            layers: names of the layers to return.
        Returns:
            (N, C_l, H_l, W_l) per layer; gradients flow back to ``encoded`` tile by tile too.
        Raises:
            ConfigError: images or tiles are not whole multiples of the network's stride.
        """
        names = tuple(layers)
        return dict(zip(names, _Tiled.apply(encoded, self, run, names), strict=True))

    def tiles(self, encoded: Tensor, layers: Collection[str]) -> Iterator[Tile]:
        """Every tile of a batch (N, C, H, W), each image's in turn."""
        rows, columns = (self._cut(length, layers) for length in encoded.shape[-2:])
        return (Tile(*each) for each in product(range(len(encoded)), rows, columns))

    def _cut(self, length: int, layers: Collection[str]) -> list[Span]:
        # Tiles begin where positions of the coarsest layer begin, so that every stride falls as in the whole.
        step = max(self.strides.values())
        if length % step or self.side % step:
            raise ConfigError(
                f"backbone.tile: images of {length} pixels and tiles of {self.side} must be whole multiples "
                f"of the network's stride of {step}"
            )
        margin = -(-max(self.margins[name] for name in layers) // step) * step
        return [
            Span(
                slice(start, min(start + self.side, length)),
                slice(max(0, start - margin), min(length, start + self.side + margin)),
            )
            for start in range(0, length, self.side)
        ]


class _Tiled(torch.autograd.Function):
    """Remembers no activations: the way back runs every tile once more."""

    @staticmethod
    def forward(
        ctx: Any, encoded: Tensor, tiling: Tiling, run: Run, names: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(encoded)
        ctx.tiling, ctx.run, ctx.names = tiling, run, names
        ctx.set_materialize_grads(False)
        maps: dict[str, Tensor] = {}
        for tile in tiling.tiles(encoded, names):
            found = run(tile.seen(encoded), names)
            for name in names:
                stride = tiling.strides[name]
                if name not in maps:
                    height, width = (length // stride for length in encoded.shape[-2:])
                    maps[name] = encoded.new_empty(len(encoded), found[name].shape[1], height, width)
                tile.of(maps[name], stride).copy_(tile.kept(found[name], stride))
        return tuple(maps.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        (encoded,) = ctx.saved_tensors
        asked = {name: each for name, each in zip(ctx.names, cotangents, strict=True) if each is not None}
        strides = {name: ctx.tiling.strides[name] for name in asked}
        gradient = torch.zeros_like(encoded)
        for tile in ctx.tiling.tiles(encoded, asked):
            with torch.enable_grad():
                seen = tile.seen(encoded).detach().requires_grad_()
                found = ctx.run(seen, tuple(asked))
                kept = [tile.kept(found[name], stride) for name, stride in strides.items()]
            aims = [tile.of(asked[name], stride) for name, stride in strides.items()]
            (share,) = torch.autograd.grad(kept, seen, aims)
            tile.seen(gradient).add_(share)
        return gradient, None, None, None


def measure_margins(look: Look, strides: Mapping[str, int], network: str) -> dict[str, int]:
    """How many pixels beyond a part its features depend on, per layer, found by changing pixels.

    Strips of noise that agree in one half are shown, lying and standing: as far from the change as features
    differ, so far they see. A strip that begins later must give the same features, moved.

    Args:
        look: feature maps of images (N, 3, H, W) in [0, 1], in double precision.
        strides: pixels per position of each layer.
        network: its name, for errors.
    Returns:
        Pixels per layer, whole positions.
    Raises:
        ConfigError: features depend on the whole image, or on where in it they are; names network and layer.
    """

    def look_standing(images: Tensor) -> Maps:
        return {name: each.transpose(2, 3) for name, each in look(images.transpose(2, 3)).items()}

    try:
        lying, standing = (_along(each, strides) for each in (look, look_standing))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"backbone.tile: {network} cannot be run tile by tile: {error}") from None
    return {name: max(lying[name], standing[name]) for name in strides}


def _along(look: Look, strides: Mapping[str, int]) -> dict[str, int]:
    """Margins along the width, on a strip as long as the layer that sees farthest needs."""
    length = FIRST_STRIP
    while True:
        margins = _on_strip(look, strides, length)
        endless = [name for name, margin in margins.items() if margin >= length // 2]
        if not endless:
            return margins
        if length == LONGEST_STRIP:
            raise ValueError(
                f"{endless[0]} depends on the whole image, or on more than {length // 2} pixels around"
            )
        length *= 2


def _on_strip(look: Look, strides: Mapping[str, int], length: int) -> dict[str, int]:
    """Margins along the width; half of the strip where no end is seen.

    Raises:
        ValueError: features are not on a grid of their stride, or depend on where they are.
    """
    step, middle = max(strides.values()), length // 2
    dice = torch.Generator().manual_seed(0)
    strip, other = torch.rand(2, 3, step, length, generator=dice, dtype=torch.float64)
    left = torch.cat([other[..., :middle], strip[..., middle:]], dim=-1)
    right = torch.cat([strip[..., :middle], other[..., middle:]], dim=-1)
    with torch.no_grad():
        found, later = look(torch.stack([strip, left, right])), look(strip[None, :, :, step:])
    margins = {}
    for name, maps in found.items():
        stride, largest = strides[name], float(maps.abs().max())
        if maps.shape[-1] * stride != length:
            raise ValueError(f"{name} has {maps.shape[-1]} positions for {length} pixels at stride {stride}")
        half = middle // stride
        changed = (maps[1:] - maps[0]).abs().amax(dim=(1, 2)) > NOTHING * largest
        beyond = torch.cat([changed[0, half:].nonzero(), changed[1, :half].flip(0).nonzero()])
        reach = int(beyond.max()) + 1 if len(beyond) else 0
        moved = (maps[0, ..., step // stride :] - later[name][0])[..., reach:].abs()
        if reach < half and float(moved.max()) > ROUNDING * largest:
            raise ValueError(f"what {name} says depends on where in the image it is")
        margins[name] = reach * stride
    return margins
