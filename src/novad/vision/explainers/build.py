"""Explainers by their name in the settings."""

from novad.errors import ConfigError
from novad.vision.backbones import Backbone
from novad.vision.explainers.bcos import BcosExplainer
from novad.vision.explainers.explanation import Explainer
from novad.vision.explainers.post_hoc import (
    GuidedBackpropExplainer,
    InputXGradientExplainer,
    IntegratedGradientsExplainer,
    LayerGradCamExplainer,
    LayerwiseRelevanceExplainer,
    OcclusionExplainer,
)

__all__ = ["EXPLAINERS", "build_explainer"]

EXPLAINERS: dict[str, type[Explainer]] = {
    explainer.method: explainer
    for explainer in (
        BcosExplainer,
        InputXGradientExplainer,
        IntegratedGradientsExplainer,
        GuidedBackpropExplainer,
        LayerwiseRelevanceExplainer,
        LayerGradCamExplainer,
        OcclusionExplainer,
    )
}


def build_explainer(method: str, backbone: Backbone) -> Explainer:
    """The explainer ``method`` of ``backbone``.

    Raises:
        ConfigError: no such method, or it cannot explain this network.
    """
    if method not in EXPLAINERS:
        raise ConfigError(f"explainer.method: no '{method}'; there are {', '.join(sorted(EXPLAINERS))}")
    return EXPLAINERS[method](backbone)
