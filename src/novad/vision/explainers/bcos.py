"""B-cos explanation: the network's own linear map, by one vector-Jacobian product."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from novad.errors import ConfigError
from novad.vision.backbones import Backbone, BcosBackbone
from novad.vision.explainers.explanation import Explainer, Explanation

__all__ = ["BcosExplainer"]

Features = dict[str, Tensor]


class BcosExplainer(Explainer):
    """Exact explanations of B-cos features (Böhle, Fritz, Schiele 2022; Sivaprasad and Fritz 2023).

    With z = W(x) x at every position p of a layer and the cotangent v_p = z_p / |z_p|, the row
    w = sum_p W_p(x)^T v_p gives contributions <w, x> that sum to sum_p |z_p|.

    Raises:
        ConfigError: the backbone is not a B-cos network.
    """

    method = "bcos"
    exact = True
    statistics = ("contribution", "weight_norm", "alignment", "colour_residual", "joint")
    reference = ("weight_norm", "high")

    def __init__(self, backbone: Backbone) -> None:
        if not isinstance(backbone, BcosBackbone):
            raise ConfigError(
                f"explainer.method: 'bcos' explains B-cos networks, not {backbone.architecture}; "
                "give it a B-cos backbone or choose a Captum method"
            )
        super().__init__(backbone)
        self.network = backbone
        stages = tuple(backbone.available)
        self.targets = (*stages, "+".join(stages))

    def explain(self, images: Tensor, target: str) -> Explanation:
        layers = target.split("+")
        encoded, features = self._forward(images, layers)
        return self._explanation(encoded, features, layers, _row(encoded, features, layers))

    def explain_each(self, images: Tensor, targets: Sequence[str]) -> Iterator[Explanation]:
        """One forward pass for all targets, one way back to the input per layer: joined rows are sums."""
        layers = list(dict.fromkeys(layer for target in targets for layer in target.split("+")))
        encoded, features = self._forward(images, layers)
        rows = {layer: _row(encoded, features, [layer], again=layer != layers[-1]) for layer in layers}
        for target in targets:
            joined = target.split("+")
            weight = torch.stack([rows[layer] for layer in joined]).sum(0)
            yield self._explanation(encoded, features, joined, weight)

    def _forward(self, images: Tensor, layers: list[str]) -> tuple[Tensor, Features]:
        with torch.enable_grad():
            encoded = self.network.encode(images).requires_grad_()
            return encoded, self.network.stage_features(encoded, {*layers, *self.network.layers}, layers)

    def _explanation(
        self, encoded: Tensor, features: Features, layers: list[str], weight: Tensor
    ) -> Explanation:
        encoded = encoded.detach()
        lengths = [_lengths(features[name].detach()).sum(dim=(1, 2, 3)) for name in layers]
        return Explanation(
            contribution=(weight * encoded).sum(1),
            total=torch.stack(lengths).sum(0),
            encoded=encoded,
            weight=weight,
            features={name: features[name].detach() for name in self.network.layers},
        )


def _row(encoded: Tensor, features: Features, layers: list[str], again: bool = False) -> Tensor:
    """(N, C, H, W) row of the linear map whose product with the input is the layers' summed length."""
    with torch.enable_grad():
        maps = [features[name] for name in layers]
        directions = [(each / _lengths(each).clamp_min(1e-12)).detach() for each in maps]
        (weight,) = torch.autograd.grad(maps, encoded, directions, retain_graph=again)
    return weight


def _lengths(features: Tensor) -> Tensor:
    return features.square().sum(dim=1, keepdim=True).sqrt()
