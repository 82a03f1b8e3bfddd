"""B-cos explanation: the network's own linear map, by one vector-Jacobian product."""

import torch
from torch import Tensor

from novad.errors import ConfigError
from novad.vision.backbones import Backbone, BcosBackbone
from novad.vision.explainers.explanation import Explainer, Explanation

__all__ = ["BcosExplainer"]


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
        stages = backbone.available[:3] if len(backbone.available) == 3 else backbone.available
        self.targets = (*stages, "+".join(stages))

    def explain(self, images: Tensor, target: str) -> Explanation:
        layers = target.split("+")
        with torch.enable_grad():
            encoded = self.network.encode(images).requires_grad_()
            features = self.network.stage_features(encoded, {*layers, *self.network.layers}, layers)
            lengths = {name: features[name].norm(dim=1, keepdim=True) for name in layers}
            directions = [(features[name] / lengths[name].clamp_min(1e-12)).detach() for name in layers]
            (weight,) = torch.autograd.grad([features[name] for name in layers], encoded, directions)
        encoded = encoded.detach()
        return Explanation(
            contribution=(weight * encoded).sum(1),
            total=torch.stack([lengths[name].detach().sum(dim=(1, 2, 3)) for name in layers]).sum(0),
            encoded=encoded,
            weight=weight,
            features={name: features[name].detach() for name in self.network.layers},
        )
