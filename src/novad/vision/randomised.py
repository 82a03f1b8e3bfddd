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
    """Convolutions that the features hang on, as a black image meets them."""
    met: list[nn.Conv2d] = []
    convolutions = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [each.register_forward_hook(lambda module, *_: met.append(module)) for each in convolutions]
    weights = [each.weight.requires_grad_() for each in convolutions]
    with torch.enable_grad():
        # In one piece even where images are cut: gradients of tiles stop at the image.
        features = backbone.run(backbone.encode(torch.zeros(1, 3, 64, 64)), backbone.layers)
        total = torch.stack([each.sum() for each in features.values()]).sum()
    used = torch.autograd.grad(total, [each.weight for each in met], allow_unused=True)
    for hook in hooks:
        hook.remove()
    for weight in weights:
        weight.requires_grad_(False)
    return [each for each, gradient in zip(met, used, strict=True) if gradient is not None]
