"""Views of formula images, made on the device: each drawn image is seen several times, never the same."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["views"]


def views(images: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Random crops at random scales, turned, lit and composed with one another.

    Args:
        images: (N, 3, S, S) in [0, 1].
        count: views per image.
        size: side of a view in pixels.
        generator: on the images' device.
    Returns:
        (N * count, 3, size, size) in [0, 1]; views k of all images lie together.
    """
    return torch.cat([_view(images, size, generator) for _ in range(count)])


def _view(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    number, device = len(images), images.device

    def draw(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(number, generator=generator, device=device)

    crop = _crop(images, size, draw(0.45, 1.0), draw(-1, 1), draw(-1, 1), draw(0, 1))
    crop = _composed(crop, draw(0.2, 0.6), draw(-0.6, 0.6), draw(-0.6, 0.6), draw(0, 1) < 0.3)
    contrast, shift = torch.exp(0.25 * draw(-1, 1)), 0.1 * draw(-1, 1)
    lit = (crop - 0.5) * contrast[:, None, None, None] + 0.5 + shift[:, None, None, None]
    grey = torch.where((draw(0, 1) < 0.2)[:, None, None, None], lit.mean(1, keepdim=True), lit)
    noise = torch.randn(grey.shape, generator=generator, device=device)
    loud = draw(-0.04, 0.04).clamp_min(0)[:, None, None, None]
    return (grey + loud * noise).clamp(0, 1)


def _crop(images: Tensor, size: int, scale: Tensor, x: Tensor, y: Tensor, turn: Tensor) -> Tensor:
    """Crops of ``scale`` of the side around (x, y), in one of the eight orientations of a square."""
    eighth = (turn * 8).long().clamp(max=7)
    flip = torch.where(eighth >= 4, -1.0, 1.0)
    cosine = torch.tensor([1.0, 0.0, -1.0, 0.0], device=images.device)[eighth % 4]
    sine = torch.tensor([0.0, 1.0, 0.0, -1.0], device=images.device)[eighth % 4]
    room = 1 - scale
    rows = torch.stack([cosine * scale * flip, -sine * scale, x * room], 1)
    columns = torch.stack([sine * scale * flip, cosine * scale, y * room], 1)
    grid = F.affine_grid(torch.stack([rows, columns], 1), [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _composed(images: Tensor, radius: Tensor, x: Tensor, y: Tensor, chosen: Tensor) -> Tensor:
    """Chosen images get a soft-edged disc of the image before them."""
    size = images.shape[-1]
    axis = torch.linspace(-1, 1, size, device=images.device)
    away = torch.hypot(axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None])
    inside = torch.sigmoid((radius[:, None, None] - away) * size / 4) * chosen[:, None, None]
    share = inside[:, None]
    return images * (1 - share) + images.roll(1, 0) * share
