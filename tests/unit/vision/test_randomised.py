"""Networks that have forgotten from their deepest convolution down."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from novad.vision.backbones import Backbone, BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.randomised import randomised


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: module.weight for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)}


@pytest.mark.parametrize(("share", "first"), [(0.0, None), (0.2, "layer2.1"), (1.0, "conv1")])
def test_the_deepest_share_is_drawn_anew_at_its_own_scale(
    random_backbone: BcosBackbone, share: float, first: str | None
) -> None:
    """Of what leads to the layers that are read, here layer2: eleven convolutions."""
    before = {name: weight.clone() for name, weight in weights(random_backbone).items()}
    after = weights(randomised(random_backbone, 3, share))
    changed = [name for name, weight in after.items() if not torch.equal(weight, before[name])]
    assert len(changed) == round(share * 11)
    assert not changed or first is None or changed[0].startswith(f"network.{first}")
    assert not any("layer3" in name for name in changed)
    for name in changed:
        assert torch.isclose(after[name].std(), before[name].std(), rtol=1e-4)
    again = weights(randomised(random_backbone, 3, share))
    assert all(torch.equal(weight, again[name]) for name, weight in after.items())
    assert all(torch.equal(weight, before[name]) for name, weight in weights(random_backbone).items())


def test_a_network_that_takes_tiles_forgets_the_same(random_backbone: BcosBackbone) -> None:
    cut = copy.deepcopy(random_backbone)
    cut.cut(32)
    whole, tiled = (weights(randomised(each, 3, 0.5)) for each in (random_backbone, cut))
    assert all(torch.equal(weight, tiled[name]) for name, weight in whole.items())


def test_what_timm_computes_beyond_the_layer_is_no_part_of_the_share(timm_checkpoint: Path) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    backbone = load_backbone(architecture, timm_checkpoint, sha256, ("blocks.1",))
    before, after = weights(backbone), weights(randomised(backbone, 3))
    changed = {name.split("network.")[1][:8] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"conv_ste", "blocks.0", "blocks.1"}
    assert any("blocks.4" in name for name in before)
    assert not any(weight.requires_grad for weight in after.values())
