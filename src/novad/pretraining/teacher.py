"""The teacher: an ImageNet network whose features a student learns to tell from formula images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Teacher"]

_SETTLED = 200


class Teacher(nn.Module):
    """MobileNetV2's features at strides 4, 8 and 16, standardised per channel, and decorrelated.

    Its convolutions pad both sides alike, as a student's do. As it was trained it pads one side more, and the
    same features lie 3, 7 and 15 pixels further on: a student then learns to look aside.

    Mean and covariance are running ones; the decorrelating map is kept after the first batches.

    Args:
        checkpoint: local safetensors file that loads strictly into ``mobilenetv2_100`` (see the model card).
    """

    channels = (24, 32, 96)

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        import timm
        from safetensors.torch import load_file

        weights = {name: tensor.float() for name, tensor in load_file(checkpoint).items()}
        whole = timm.create_model("mobilenetv2_100", num_classes=1001)
        whole.load_state_dict(weights, strict=True)
        self.network: Any = timm.create_model("mobilenetv2_100", features_only=True, out_indices=(1, 2, 3))
        self.network.load_state_dict(whole.state_dict(), strict=False)
        self.network.eval().requires_grad_(False)
        self.standardise = nn.ModuleList(nn.BatchNorm2d(count, affine=False) for count in self.channels)
        self.whiten = nn.ModuleList(_Whitening(count) for count in self.channels)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(N, 3, H, W) in [0, 1] to three standardised feature maps, and the same ones decorrelated."""
        features = self.network(images * 2 - 1)
        plain = [norm(feature) for norm, feature in zip(self.standardise, features, strict=True)]
        return plain, [whiten(feature) for whiten, feature in zip(self.whiten, plain, strict=True)]


class _Whitening(nn.Module):
    """Symmetric (ZCA) decorrelation, learned from the first batches and then fixed."""

    covariance: Tensor
    matrix: Tensor

    def __init__(self, channels: int, shrinkage: float = 0.05) -> None:
        super().__init__()
        self.shrinkage, self.seen = shrinkage, 0
        self.register_buffer("covariance", torch.zeros(channels, channels))
        self.register_buffer("matrix", torch.eye(channels))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) standardised to decorrelated."""
        if self.seen < _SETTLED:
            flat = features.transpose(0, 1).flatten(1)
            self.covariance += flat @ flat.T / flat.shape[1]
            self.seen += 1
            values, vectors = torch.linalg.eigh(self.covariance / self.seen)
            scale = (values.clamp_min(0) + self.shrinkage * values.mean()).rsqrt()
            self.matrix.copy_((vectors * scale) @ vectors.T)
        return torch.einsum("dc,nchw->ndhw", self.matrix, features)
