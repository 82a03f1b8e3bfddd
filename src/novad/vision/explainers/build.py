"""Explainers by their name in the settings."""

from novad.errors import ConfigError
from novad.vision.backbones import Backbone
from novad.vision.explainers.bcos import BcosExplainer
from novad.vision.explainers.explanation import Explainer
from novad.vision.explainers.layerwise_relevance import LayerwiseRelevanceExplainer
from novad.vision.explainers.memory import Memory
from novad.vision.explainers.post_hoc import (
    GuidedBackpropExplainer,
    InputXGradientExplainer,
    IntegratedGradientsExplainer,
    LayerGradCamExplainer,
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


def build_explainer(method: str, backbone: Backbone, memory: Memory | None = None) -> Explainer:
    """The explainer ``method`` of ``backbone``.

    Args:
        method: its name in the settings.
        backbone: the network that it explains.
        memory: of the features of the same network, where there is one; B-cos explanations can aim at it.
    Raises:
        ConfigError: no such method, or it cannot explain this network.
    """
    if method not in EXPLAINERS:
        raise ConfigError(f"explainer.method: no '{method}'; there are {', '.join(sorted(EXPLAINERS))}")
    if method == BcosExplainer.method:
        return BcosExplainer(backbone, memory)
    return EXPLAINERS[method](backbone)
