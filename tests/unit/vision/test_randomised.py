"""Networks that have forgotten from their deepest convolution down."""

import pytest
import torch
from torch import nn

from novad.vision.backbones import BcosBackbone
from novad.vision.randomised import randomised


def weights(backbone: BcosBackbone) -> dict[str, torch.Tensor]:
    return {name: module.weight for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)}


@pytest.mark.parametrize(("share", "first"), [(0.0, None), (0.25, "layer2.1"), (1.0, "conv1")])
def test_the_deepest_share_is_drawn_anew_at_its_own_scale(
    random_backbone: BcosBackbone, share: float, first: str | None
) -> None:
    """Of what leads to the layers that are read, here layer2: eleven convolutions."""
    before = {name: weight.clone() for name, weight in weights(random_backbone).items()}
    after = weights(randomised(random_backbone, 3, share))
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert len(changed) == round(share * 10)
    assert not changed or first is None or changed[0].startswith(f"network.{first}")
    assert not any("layer3" in name for name in changed)
    for name in changed:
        assert torch.isclose(after[name].std(), before[name].std(), rtol=1e-4)
    again = weights(randomised(random_backbone, 3, share))
    assert all(torch.equal(weight, again[name]) for name, weight in after.items())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(random_backbone).items())
