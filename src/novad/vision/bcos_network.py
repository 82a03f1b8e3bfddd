"""The bundled network: a small B-cos ResNet, bias-free, so that its features are exactly W(x) x."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from novad.vision.torchvision_import import import_torchvision

__all__ = ["ARCHITECTURE", "SHIPPED", "Layout", "bcos_encoding", "build_bcos_network"]

ARCHITECTURE = "novad-bcos"
_STAGES = ("layer1", "layer2", "layer3")


@dataclass(frozen=True)
class Layout:
    """Sizes of a network.

    Attributes:
        width: channels of the first stage; every further one has twice as many.
        blocks: of each stage.
        fine_stem: two 3 x 3 convolutions come before the stages instead of one of 7 x 7 and an average.
    """

    width: int = 48
    blocks: tuple[int, int, int] = (2, 2, 2)
    fine_stem: bool = True

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Layout":
        """The layout of a network with these weights, which fit no other; the shipped one if none is."""
        named = [name.split(".") for name in weights]
        numbers = [{parts[1] for parts in named if parts[0] == stage and parts[1:]} for stage in _STAGES]
        first, second, third = (len(each) for each in numbers)
        inner = weights.get("layer1.0.conv1.linear.weight")
        if not (first and second and third) or inner is None or inner.ndim != 4 or inner.shape[1] < 2:
            return cls()
        fine = any(name.startswith("pool.") for name in weights)
        return cls(inner.shape[1], (first, second, third), fine)


SHIPPED = Layout()


def build_bcos_network(num_classes: int = 0, layout: Layout = SHIPPED) -> nn.Module:
    """A three-stage B-cos ResNet (Böhle, Fritz, Schiele 2022): strides 4, 8, 16; 48, 96, 192 channels.

    Normalisation only divides (uncentred batch norm), so nothing but the input contributes to a feature.

    Args:
        num_classes: outputs of the pretraining head; 0 drops the head.
        layout: its sizes.
    """
    # Imported here: with torchvision it takes seconds, which reading a layer's name need not cost.
    import_torchvision()
    from bcos.models.resnet import BasicBlock, BcosResNet
    from bcos.modules import BcosConv2d, norms

    normalised = norms.NoBias(norms.BatchNormUncentered2d)
    network: nn.Module = BcosResNet(
        BasicBlock,
        list(layout.blocks),
        num_classes=max(num_classes, 2),
        inplanes=layout.width,
        norm_layer=normalised,
    )
    if layout.fine_stem:
        half = layout.width // 2
        network.conv1 = BcosConv2d(6, half, kernel_size=3, stride=2, padding=1)
        network.bn1 = normalised(half)
        second = BcosConv2d(half, layout.width, kernel_size=3, stride=2, padding=1)
        network.pool = nn.Sequential(second, normalised(layout.width))
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
