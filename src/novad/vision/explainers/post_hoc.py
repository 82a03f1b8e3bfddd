"""Post hoc explanations of any backbone, by Captum: approximate, and reported as such."""

import copy
import warnings
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from novad.errors import ConfigError
from novad.vision.backbones import Backbone
from novad.vision.explainers.explanation import Explainer, Explanation
from novad.vision.pooling import resize_maps

__all__ = [
    "GuidedBackpropExplainer",
    "InputXGradientExplainer",
    "IntegratedGradientsExplainer",
    "LayerGradCamExplainer",
    "OcclusionExplainer",
]


def _captum() -> Any:
    """Captum's methods, imported when one is used: a line with B-cos explanations needs none."""
    from captum import attr

    return attr


class PatchLengths(nn.Module):
    """Sum over positions of the length of a feature vector: (N, C, H, W) to (N,)."""

    def forward(self, features: Tensor) -> Tensor:
        return (features.square().sum(1) + 1e-12).sqrt().sum(dim=(1, 2))


class FeatureLength(nn.Module):
    """The scalar that post hoc methods explain: sum over positions of a layer's feature length.

    Its gradient is the vector-Jacobian product with z_p / |z_p|, the cotangent of the B-cos explanation.
    """

    def __init__(self, backbone: Backbone, layer: str) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer
        self.lengths = PatchLengths()

    def forward(self, encoded: Tensor) -> Tensor:
        """(N, C, H, W) to (N,)."""
        length: Tensor = self.lengths(self.backbone.features(encoded)[self.layer])
        return length


class PostHocExplainer(Explainer):
    """Shared frame: one attribution per input channel, summed over channels.

    A B-cos network is explained by the gradient of its features, not by its dynamic weights.

    Raises:
        ConfigError: the method cannot take this network.
    """

    statistics = ("contribution", "magnitude", "joint")

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._prepared = self.prepare(backbone.ordinary())

    def prepare(self, backbone: Backbone) -> Backbone:
        """The network in the form that the method needs; ``backbone`` itself stays as it is."""
        return backbone

    def explain(self, images: Tensor, target: str) -> Explanation:
        """Explain ``target`` on images (N, 3, H, W) in [0, 1].

        Raises:
            ConfigError: the method cannot take this network.
        """
        length = FeatureLength(self._prepared, target).eval()
        encoded = self.backbone.encode(images).detach()
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                attribution = self.attribute(length, encoded.clone().requires_grad_())
            except (AssertionError, KeyError, RuntimeError, TypeError) as error:
                raise ConfigError(
                    f"explainer.method: '{self.method}' cannot explain {self.backbone.architecture}: "
                    f"{str(error).partition(chr(10))[0]}"
                ) from error
        with torch.no_grad():
            total = length(encoded) - self.baseline(length, encoded)
        return Explanation(attribution.detach().sum(1), total.detach(), encoded)

    def baseline(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        """(N,) length that the method takes as unexplained."""
        return encoded.new_zeros(len(encoded))

    @abstractmethod
    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        """(N, C, H, W) attribution of the length to the encoded input."""


class InputXGradientExplainer(PostHocExplainer):
    """Gradient times input (Shrikumar et al. 2016)."""

    method = "input_x_gradient"

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        attribution: Tensor = _captum().InputXGradient(length).attribute(encoded)
        return attribution


class IntegratedGradientsExplainer(PostHocExplainer):
    """Gradients along the way from a black image (Sundararajan et al. 2017)."""

    method = "integrated_gradients"
    steps = 16

    def _black(self, encoded: Tensor) -> Tensor:
        return self.backbone.encode(encoded.new_zeros(len(encoded), 3, *encoded.shape[-2:]))

    def baseline(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        value: Tensor = length(self._black(encoded))
        return value

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        method = _captum().IntegratedGradients(length)
        attribution: Tensor = method.attribute(
            encoded, self._black(encoded), n_steps=self.steps, internal_batch_size=len(encoded)
        )
        return attribution


class GuidedBackpropExplainer(PostHocExplainer):
    """Backpropagation that lets only positive evidence through each ReLU (Springenberg et al. 2015).

    What is positive in a sum need not be in its parts.

    Raises:
        ConfigError: the network has no ReLU, so that nothing would be guided.
    """

    method = "guided_backprop"
    adds_up = False

    def prepare(self, backbone: Backbone) -> Backbone:
        guided = copy.deepcopy(backbone)
        for name, layer in list(guided.named_modules()):
            if isinstance(layer, nn.ReLU6):
                guided.set_submodule(name, ClippedReLU())
        if not any(isinstance(layer, nn.ReLU) for layer in guided.modules()):
            raise ConfigError(
                f"explainer.method: 'guided_backprop' cannot explain {backbone.architecture}: it has no ReLU"
            )
        return guided

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        attribution: Tensor = _captum().GuidedBackprop(length).attribute(encoded)
        return attribution * encoded


class ClippedReLU(nn.ReLU):
    """ReLU6 as a kind of ReLU: Captum guides no other."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        return input.clamp(0, 6)


class LayerGradCamExplainer(PostHocExplainer):
    """Gradient-weighted class activation at the explained layer (Selvaraju et al. 2017)."""

    method = "layer_grad_cam"

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        coarse: Tensor = (
            _captum().LayerGradCam(length, length.lengths).attribute(encoded, attribute_to_layer_input=True)
        )
        size = (encoded.shape[-2], encoded.shape[-1])
        step = size[0] * size[1] / (coarse.shape[-2] * coarse.shape[-1])
        return resize_maps(coarse.detach()[:, 0], size)[:, None] / step


class OcclusionExplainer(PostHocExplainer):
    """Change of the length when a square, an eighth of the shorter side, is grey (Zeiler and Fergus 2014)."""

    method = "occlusion"
    divisions = 8

    def attribute(self, length: FeatureLength, encoded: Tensor) -> Tensor:
        side = max(1, min(encoded.shape[-2:]) // self.divisions)
        window = (encoded.shape[1], side, side)
        grey = self.backbone.encode(encoded.new_full((1, 3, *encoded.shape[-2:]), 0.5))
        with torch.no_grad():
            attribution: Tensor = (
                _captum()
                .Occlusion(length)
                .attribute(encoded, window, strides=(encoded.shape[1], side, side), baselines=grey)
            )
        return attribution / (encoded.shape[1] * side * side)
