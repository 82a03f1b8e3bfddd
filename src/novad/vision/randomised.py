"""Networks that have forgotten, for the sanity check of explanations (Adebayo et al. 2018)."""

import copy

import torch
from torch import nn

from novad.vision.backbones import Backbone

__all__ = ["randomised"]


def randomised(backbone: Backbone, seed: int, share: float = 1.0) -> Backbone:
    """A copy of the network with weights drawn anew, each convolution's at its own scale.

    Args:
        backbone: stays as it is.
        seed: of the weights.
        share: of the convolutions that the layers hang on, from the deepest down.
    """
    other = copy.deepcopy(backbone)
    convolutions = _in_order(other)
    generator = torch.Generator().manual_seed(seed)
    for module in convolutions[round((1 - share) * len(convolutions)) :]:
        noise = torch.randn(module.weight.shape, generator=generator)
        module.weight.data = noise * module.weight.std() / noise.std()
    return other


def _in_order(backbone: Backbone) -> list[nn.Conv2d]:
    """Convolutions as a black image meets them."""
    met: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: met.append(module))
        for module in backbone.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        backbone(torch.zeros(1, 3, 64, 64))
    for hook in hooks:
        hook.remove()
    return met
