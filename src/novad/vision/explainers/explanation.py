"""What every explainer returns, and the interface they share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from novad.errors import ConfigError
from novad.vision.backbones import Backbone

__all__ = ["Explainer", "Explanation"]


@dataclass(frozen=True)
class Explanation:
    """Why a layer's features are as strong as they are, pixel by pixel.

    Attributes:
        contribution: (N, H, W) share of each pixel in the explained total.
        total: (N,) explained quantity: the summed length of the layer's feature vectors.
        encoded: (N, C, H, W) the network's input.
        weight: (N, C, H, W) the linear map's row W(x) for that total, where the explainer has one.
        features: the backbone's feature maps, where the explainer's own pass produced them.
    """

    contribution: Tensor
    total: Tensor
    encoded: Tensor
    weight: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)

    def completeness_error(self) -> Tensor:
        """(N,) relative gap between the summed contributions and what they should explain."""
        explained = self.contribution.double().sum(dim=(1, 2))
        return (explained - self.total.double()).abs() / self.total.double().abs().clamp_min(1e-12)


class Explainer(ABC):
    """Explains the features of one of its targets.

    Attributes:
        method: its name in the settings.
        backbone: the network that it explains.
        targets: what can be explained: layers, or sums of layers as ``layer2+layer3``.
        statistics: names of the per-pixel statistics that its explanations support.
        exact: whether completeness holds to float tolerance.
        reference: statistic and side that novelty is asked by until a line's own data say better.
        adds_up: whether explanations of parts of a layer sum to that of the layer, as tiles need.
    Raises:
        ConfigError: the backbone is cut into tiles, and the method's explanations do not add up.
    """

    method: str
    exact: bool = False
    statistics: tuple[str, ...] = ("contribution", "magnitude")
    reference: tuple[str, str] = ("magnitude", "both")
    adds_up: bool = True

    def __init__(self, backbone: Backbone) -> None:
        if backbone.tiling is not None and not self.adds_up:
            raise ConfigError(
                f"explainer.method: '{self.method}' explains tiles otherwise than whole images; "
                "set backbone.tile to 0 or choose another method"
            )
        self.backbone = backbone
        self.targets: tuple[str, ...] = backbone.layers

    def without(self, images: Sequence[int]) -> "Explainer":
        """The explainer for a batch of bank images, by number: a memory must not know them already."""
        return self

    @abstractmethod
    def explain(self, images: Tensor, target: str) -> Explanation:
        """Explain ``target`` on images (N, 3, H, W) in [0, 1]."""

    def explain_each(self, images: Tensor, targets: Sequence[str]) -> Iterator[Explanation]:
        """Explanations of several targets in turn; an explainer that can share work between them does."""
        for target in targets:
            yield self.explain(images, target)
