"""Exact explanations: completeness, targets, the memory's share."""

import pytest
import torch

from novad.errors import ConfigError
from novad.vision.backbones import BcosBackbone
from novad.vision.explainers import BcosExplainer, Memory
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import MemoryBank, fit_memory_bank

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weights", ["random_backbone", "bundled_backbone"])
@pytest.mark.parametrize("target", ["layer1", "layer2", "layer3", "layer2+layer3"])
def test_contributions_sum_to_the_explained_length(
    weights: str, target: str, request: pytest.FixtureRequest
) -> None:
    backbone = request.getfixturevalue(weights)
    explanation = BcosExplainer(backbone).explain(IMAGES, target)
    assert float(explanation.completeness_error().max()) < 1e-4
    with torch.no_grad():
        features = backbone.stage_features(backbone.encode(IMAGES), target.split("+"))
        expected = sum(each.norm(dim=1).sum(dim=(1, 2)) for each in features.values())
    assert torch.allclose(explanation.total, expected, rtol=1e-5)


@pytest.mark.parametrize("weights", ["random_backbone", "bundled_backbone"])
def test_what_the_memory_leaves_unexplained_is_divided_among_the_pixels(
    weights: str, request: pytest.FixtureRequest
) -> None:
    """Contributions sum to the gaps' own share of the patches, and the rest of the gap is the memory's."""
    backbone = request.getfixturevalue(weights)
    memory = Memory(bank_of(backbone), "sensory")
    explanation = BcosExplainer(backbone, memory).explain(IMAGES, "memory")
    assert float(explanation.completeness_error().max()) < 1e-4
    with torch.no_grad():
        patches, gaps = memory.gaps(backbone(IMAGES))
        normal = patches - memory.bank.whitening.mean @ memory.bank.whitening.matrix - gaps
        distances, _ = memory.bank.search(memory.bank.patches(feature_grids(backbone(IMAGES), "sensory")))
    assert torch.allclose(gaps.norm(dim=2).flatten(), distances.flatten(), atol=1e-2)
    brought = (gaps * (normal + memory.bank.whitening.mean @ memory.bank.whitening.matrix)).sum(dim=(1, 2))
    gap = gaps.square().sum(dim=(1, 2))
    assert torch.allclose(explanation.total - brought, gap, rtol=1e-3, atol=1e-3 * float(gap.max()))


def test_a_bank_image_is_not_explained_by_itself(random_backbone: BcosBackbone) -> None:
    explainer = BcosExplainer(random_backbone, Memory(bank_of(random_backbone), "sensory"))
    known = explainer.explain(IMAGES, "memory").total.abs()
    assert (explainer.without([0, 1]).explain(IMAGES, "memory").total.abs() > known).all()
    assert "memory" not in BcosExplainer(random_backbone).targets
    with pytest.raises(ConfigError, match="needs a memory bank"):
        BcosExplainer(random_backbone).explain(IMAGES, "memory")


def test_the_stem_is_there_to_compare_and_is_not_explained(bundled_backbone: BcosBackbone) -> None:
    """Three pixels at stride 2, then three positions at stride 2: three to either side of a position."""
    assert list(bundled_backbone.readable) == ["pool", *bundled_backbone.available]
    assert list(bundled_backbone.available) == ["layer1", "layer2", "layer3"]
    assert BcosExplainer(bundled_backbone).targets == ("layer1", "layer2", "layer3", "layer1+layer2+layer3")
    touched = IMAGES[:1].clone()
    touched[..., 32, 40] = 1 - touched[..., 32, 40]
    with torch.no_grad():
        before, after = (
            bundled_backbone.stage_features(bundled_backbone.encode(each), ["pool", "layer1"])
            for each in (IMAGES[:1], touched)
        )
    moved = {name: (before[name] != after[name]).any(dim=1)[0].nonzero() * 4 for name in before}
    away = {name: (at - torch.tensor([32, 40])).abs().max() for name, at in moved.items()}
    assert away["pool"] == 0
    assert away["layer1"] == 16


def bank_of(backbone: BcosBackbone) -> MemoryBank:
    """Every patch of the two images, and of others."""
    others = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        grids = feature_grids(backbone(torch.cat([IMAGES, others])), "sensory")
    return fit_memory_bank(
        iter(grids), 5, coreset_share=1.0, min_vectors=1, max_vectors=10_000, dimensions=16, whiten=1.0
    )


def test_several_targets_in_one_pass_are_explained_as_each_alone(random_backbone: BcosBackbone) -> None:
    explainer = BcosExplainer(random_backbone)
    targets = ["layer2+layer1", "layer1"]
    for target, together in zip(targets, explainer.explain_each(IMAGES, targets), strict=True):
        alone = explainer.explain(IMAGES, target)
        for name in ("contribution", "total", "weight"):
            expected = getattr(alone, name)
            assert torch.allclose(getattr(together, name), expected, atol=1e-5 * float(expected.abs().max()))
        assert set(together.features) == set(alone.features)


def test_the_weights_are_the_networks_own_linear_map(random_backbone: BcosBackbone) -> None:
    """W(x) is constant when its input is scaled inside explanation mode: its row times x is the total."""
    explanation = BcosExplainer(random_backbone).explain(IMAGES, "layer2")
    assert explanation.weight is not None
    products = (explanation.weight * explanation.encoded).sum(dim=(1, 2, 3))
    assert torch.allclose(products, explanation.total, rtol=1e-4)


def test_an_explanation_carries_the_features_of_a_plain_pass(random_backbone: BcosBackbone) -> None:
    explanation = BcosExplainer(random_backbone).explain(IMAGES, "layer1")
    with torch.no_grad():
        plain = random_backbone(IMAGES)
    assert set(explanation.features) == set(plain)
    for name, feature in plain.items():
        assert torch.allclose(explanation.features[name], feature, atol=1e-5)


def test_input_x_gradient_in_explanation_mode_is_the_exact_explanation(random_backbone: BcosBackbone) -> None:
    from captum.attr import InputXGradient

    exact = BcosExplainer(random_backbone).explain(IMAGES, "layer2").contribution
    encoded = random_backbone.encode(IMAGES).requires_grad_()
    captum = InputXGradient(lambda x: random_backbone.features(x)["layer2"].norm(dim=1).sum(dim=(1, 2)))
    assert torch.allclose(exact, captum.attribute(encoded).sum(1), atol=1e-4 * float(exact.abs().max()))
