"""The B-cos zoo: the convolutional networks that the ``bcos`` package has trained weights of."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from novad.errors import ConfigError
from novad.vision.torchvision_import import import_torchvision

__all__ = ["PREFIX", "ZooNetwork", "named_after", "zoo_network", "zoo_networks"]

PREFIX = "bcos:"
# The zoo's transformers have no feature maps, and what else it trained beside them is not B-cos.
_RECIPES = ("bcos_final", "bcos_final_long")


@dataclass(frozen=True)
class ZooNetwork:
    """One network of the zoo.

    Attributes:
        name: of its weight file, up to the digest: ``resnet_50_long``.
        recipe: by which the package trained it.
        experiment: its name there.
        url: of its weights.
    """

    name: str
    recipe: str
    experiment: str
    url: str

    def build(self) -> nn.Module:
        """The architecture as it was trained, with random weights."""
        import_torchvision()
        from bcos.experiments.utils import Experiment

        network: nn.Module = Experiment("ImageNet", self.recipe, self.experiment).get_model()
        return network


def zoo_networks() -> list[ZooNetwork]:
    """All that can be a backbone."""
    import_torchvision()
    from bcos.models.pretrained import URLS

    return [
        ZooNetwork(url.rsplit("/", 1)[1].split("-")[0], recipe, experiment, url)
        for recipe in _RECIPES
        for experiment, url in URLS[recipe].items()
    ]


def zoo_network(name: str) -> ZooNetwork:
    """The network ``resnet_50``; underscores may be left out.

    Raises:
        ConfigError: the zoo has none of this name.
    """
    known = zoo_networks()
    for network in known:
        if network.name.replace("_", "") == name.replace("_", ""):
            return network
    raise ConfigError(
        f"{PREFIX}{name}: the B-cos zoo has no such network; there are "
        f"{', '.join(network.name for network in known)}"
    )


def named_after(path: Path) -> str | None:
    """The network that a file is named after, as the zoo's own are: ``resnet_50-ead259efe4.pth``."""
    stem = re.split(r"[-.]", path.name)[0]
    return stem if stem in {network.name for network in zoo_networks()} else None
