"""The bundled network: a small B-cos ResNet, bias-free, so that its features are exactly W(x) x."""

import torch
from torch import Tensor, nn

from novad.vision.torchvision_import import import_torchvision

__all__ = ["ARCHITECTURE", "BLOCKS", "WIDTH", "bcos_encoding", "build_bcos_network"]

ARCHITECTURE = "novad-bcos"
WIDTH = 40
BLOCKS = (2, 2, 2)


def build_bcos_network(num_classes: int = 0, width: int = WIDTH) -> nn.Module:
    """A three-stage B-cos ResNet (Böhle, Fritz, Schiele 2022): strides 4, 8, 16; 40, 80, 160 channels.

    Normalisation only divides (uncentred batch norm), so nothing but the input contributes to a feature.

    Args:
        num_classes: outputs of the pretraining head; 0 drops the head.
        width: channels of the first stage; the shipped network has ``WIDTH``.
    """
    # Imported here: with torchvision it takes seconds, which reading a layer's name need not cost.
    import_torchvision()
    from bcos.models.resnet import BasicBlock, BcosResNet
    from bcos.modules import norms

    network: nn.Module = BcosResNet(
        BasicBlock,
        list(BLOCKS),
        num_classes=max(num_classes, 2),
        inplanes=width,
        norm_layer=norms.NoBias(norms.BatchNormUncentered2d),
    )
    if num_classes == 0:
        network.fc = nn.Identity()
    return network


def bcos_encoding(images: Tensor) -> Tensor:
    """Six-channel encoding [r, g, b, 1-r, 1-g, 1-b]: every pixel has the same total, so black is not nothing.

    Args:
        images: (N, 3, H, W) in [0, 1].
    Returns:
        (N, 6, H, W) in [0, 1].
    """
    return torch.cat([images, 1 - images], dim=1)
