"""Explanations: completeness of the exact ones, one contract for all."""

import pytest
import torch

from novad.errors import ConfigError
from novad.vision.backbones import BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.explainers import EXPLAINERS, BcosExplainer, Memory, build_explainer
from novad.vision.explainers.post_hoc import LayerwiseRelevanceExplainer
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import MemoryBank, fit_memory_bank

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
POST_HOC = sorted(set(EXPLAINERS) - {"bcos", "lrp"})


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
        distances, _ = memory.bank.search(feature_grids(backbone(IMAGES), "sensory"))
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


def bank_of(backbone: BcosBackbone) -> MemoryBank:
    """Every patch of the two images, and of others."""
    others = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        grids = feature_grids(backbone(torch.cat([IMAGES, others])), "sensory")
    return fit_memory_bank(
        iter(grids), 5, coreset_share=1.0, min_vectors=1, max_vectors=10_000, dimensions=16, whiten=True
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


@pytest.mark.parametrize("method", POST_HOC)
def test_every_post_hoc_method_keeps_the_contract(method: str, timm_checkpoint) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    explainer = build_explainer(method, load_backbone(architecture, timm_checkpoint, sha256))
    for target in explainer.targets:
        explanation = explainer.explain(IMAGES, target)
        assert explanation.contribution.shape == (2, 64, 64)
        assert torch.isfinite(explanation.contribution).all()
        assert explanation.contribution.abs().sum() > 0
        assert explanation.total.shape == (2,)
    assert not explainer.exact


def test_input_x_gradient_of_a_bcos_network_is_its_exact_explanation(random_backbone: BcosBackbone) -> None:
    exact = BcosExplainer(random_backbone).explain(IMAGES, "layer2").contribution
    post_hoc = build_explainer("input_x_gradient", random_backbone).explain(IMAGES, "layer2").contribution
    assert torch.allclose(exact, post_hoc, atol=1e-4 * float(exact.abs().max()))


def test_integrated_gradients_are_nearly_complete(timm_checkpoint) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    explainer = build_explainer("integrated_gradients", load_backbone(architecture, timm_checkpoint, sha256))
    explanation = explainer.explain(IMAGES, explainer.targets[0])
    assert float(explanation.completeness_error().max()) < 0.3


def test_what_a_method_cannot_explain_is_refused_by_name(random_backbone, timm_checkpoint) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    plain = load_backbone(architecture, timm_checkpoint, sha256)
    with pytest.raises(ConfigError, match="'bcos' explains B-cos networks"):
        build_explainer("bcos", plain)
    with pytest.raises(ConfigError, match="no 'guess'"):
        build_explainer("guess", plain)
    with pytest.raises(ConfigError, match="'lrp' cannot explain novad-bcos"):
        LayerwiseRelevanceExplainer(random_backbone).explain(IMAGES, "layer2")
