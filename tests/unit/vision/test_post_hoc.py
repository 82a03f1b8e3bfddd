"""Captum's methods on timm networks: one contract for all, and the rules of each by hand."""

from collections.abc import Callable

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from novad.errors import ConfigError
from novad.vision.backbones import Backbone, BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.explainers import EXPLAINERS, Explanation, build_explainer

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
POST_HOC = sorted(set(EXPLAINERS) - {"bcos"})


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """A timm network with random weights, and norms that saturate some of its activations."""
    known: dict[str, Backbone] = {}

    def call(architecture: str) -> Backbone:
        if architecture not in known:
            torch.manual_seed(0)
            options = {"pad_type": "same"} if architecture.startswith("mobilenet") else {}
            network = timm.create_model(architecture, **options)
            for name, tensor in network.state_dict().items():
                if name.endswith(("running_var", "bn1.weight")):
                    tensor.uniform_(0.5, 3.0)
            path = tmp_path_factory.mktemp("weights") / f"{architecture}.safetensors"
            save_file({key: each.contiguous() for key, each in network.state_dict().items()}, path, options)
            told, sha256 = describe_checkpoint(path)
            known[architecture] = load_backbone(told, path, sha256)
        return known[architecture]

    return call


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenetv2_100"])
@pytest.mark.parametrize("method", POST_HOC)
def test_every_method_explains_every_layer_and_leaves_the_network_as_it_is(
    method: str, architecture: str, load: Callable[[str], Backbone]
) -> None:
    backbone = load(architecture)
    with torch.no_grad():
        before = backbone(IMAGES)
    explainer = build_explainer(method, backbone)
    assert not explainer.exact
    for target in explainer.targets:
        explanation = explainer.explain(IMAGES, target)
        assert explanation.contribution.shape == (2, 64, 64)
        assert torch.isfinite(explanation.contribution).all()
        assert explanation.contribution.abs().sum() > 0
        lengths = before[target].norm(dim=1).sum(dim=(1, 2))
        black = backbone(torch.zeros_like(IMAGES))[target].norm(dim=1).sum(dim=(1, 2))
        unexplained = black if method == "integrated_gradients" else 0
        assert torch.allclose(explanation.total, lengths - unexplained, rtol=1e-3, atol=1e-2)
    with torch.no_grad():
        assert all(torch.equal(before[name], each) for name, each in backbone(IMAGES).items())


def by_hand(backbone: Backbone, layer: str, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Input times gradient of the layer's length, with another function in place of every ReLU."""

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return activation(x.clone())

    encoded = backbone.encode(IMAGES).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.ReLU, "forward", forward)
        patch.setattr(nn.ReLU6, "forward", forward)
        length = backbone.features(encoded)[layer].norm(dim=1).sum()
    (gradient,) = torch.autograd.grad(length, encoded)
    return (gradient * encoded).sum(1).detach()


class Guided(torch.autograd.Function):
    """Springenberg et al. 2015: a gradient passes where both it and the activation's input are positive."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, most: float) -> Tensor:
        ctx.open = (x > 0) & (x < most)  # type: ignore[attr-defined]
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp_min(0) * ctx.open, None  # type: ignore[attr-defined]


CLIPPED = [("resnet18", float("inf")), ("mobilenetv2_100", 6.0)]


@pytest.mark.parametrize(("architecture", "most"), CLIPPED)
def test_guided_backpropagation_guides_every_activation(
    architecture: str, most: float, load: Callable[[str], Backbone]
) -> None:
    backbone = load(architecture)
    layer = backbone.layers[-1]
    expected = by_hand(backbone, layer, lambda x: Guided.apply(x, most))
    assert_close(build_explainer("guided_backprop", backbone).explain(IMAGES, layer), expected)
    plain = build_explainer("input_x_gradient", backbone).explain(IMAGES, layer).contribution
    assert not torch.allclose(plain, expected, rtol=0.1)


@pytest.mark.parametrize(("architecture", "most"), CLIPPED)
def test_relevance_passes_every_activation_whole(
    architecture: str, most: float, load: Callable[[str], Backbone]
) -> None:
    """Epsilon rule with activations as constant factors, sums of branches included (Ancona et al. 2018)."""
    backbone = load(architecture)
    layer = backbone.layers[-1]
    expected = by_hand(backbone, layer, lambda x: x * (x.clamp(0, most) / (x + (x == 0))).detach())
    explanation = build_explainer("lrp", backbone).explain(IMAGES, layer)
    assert_close(explanation, expected)
    assert float(explanation.completeness_error().max()) < 1e-3  # these norms have no bias
    plain = build_explainer("input_x_gradient", backbone).explain(IMAGES, layer).contribution
    assert torch.allclose(plain, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())) == (
        architecture == "resnet18"
    )


def assert_close(explanation: Explanation, expected: Tensor) -> None:
    assert torch.allclose(explanation.contribution, expected, atol=2e-3 * float(expected.abs().max()))


def test_class_activation_is_spread_over_the_pixels_of_each_position(load: Callable[[str], Backbone]) -> None:
    backbone = load("resnet18")
    features = backbone(IMAGES)["layer3"].requires_grad_()
    (gradient,) = torch.autograd.grad(features.norm(dim=1).sum(), features)
    coarse = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(1).detach()
    found = build_explainer("layer_grad_cam", backbone).explain(IMAGES, "layer3").contribution
    assert torch.allclose(found.sum(dim=(1, 2)), coarse.sum(dim=(1, 2)), rtol=0.05)


def test_integrated_gradients_are_nearly_complete(
    load: Callable[[str], Backbone], bundled_backbone: BcosBackbone
) -> None:
    """Of a B-cos network too: by the gradients of its features, for its dynamic weights are none."""
    for backbone, most in ((load("resnet18"), 0.1), (bundled_backbone, 0.06)):
        explainer = build_explainer("integrated_gradients", backbone)
        explanation = explainer.explain(IMAGES, explainer.targets[0])
        assert float(explanation.completeness_error().max()) < most


def test_a_bcos_network_keeps_its_dynamic_weights_beside_post_hoc_methods(
    random_backbone: BcosBackbone,
) -> None:
    """Both explanations are complete, for the network is homogeneous, but they are not the same."""
    exact = build_explainer("bcos", random_backbone)
    before = exact.explain(IMAGES, "layer2").contribution
    post_hoc = build_explainer("input_x_gradient", random_backbone).explain(IMAGES, "layer2")
    assert float(post_hoc.completeness_error().max()) < 1e-3
    assert torch.equal(exact.explain(IMAGES, "layer2").contribution, before)
    assert not torch.allclose(before, post_hoc.contribution, rtol=0.1)


class Doubling(Backbone):
    """A network that does something outside of any layer."""

    architecture, layers = "doubling", ("last",)

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 1), Step(step), nn.ReLU())


class Step(nn.Module):
    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.step = nn.Identity(), step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(self.inner(x))


def test_what_a_method_cannot_explain_is_refused_by_name_at_once(
    random_backbone: BcosBackbone, load: Callable[[str], Backbone]
) -> None:
    squeezing = load("mobilenetv3_small_050")
    for method, backbone, words in (
        ("bcos", squeezing, "'bcos' explains B-cos networks, not mobilenetv3_small_050"),
        ("guess", squeezing, "no 'guess'; there are bcos, guided_backprop"),
        ("lrp", squeezing, r"mobilenetv3_small_050: there is no rule for layer act1 \(Hardswish\)"),
        ("lrp", random_backbone, r"novad-bcos: there is no rule for layer conv1\.linear \(NormedConv2d\)"),
        ("lrp", Doubling(lambda x: x * 2), r"doubling: there is no rule for operation mul in 1$"),
        ("lrp", Doubling(lambda x: x if x.sum() > 0 else -x), "doubling: .* depends on its input"),
        ("guided_backprop", random_backbone, "novad-bcos: it has no ReLU"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_explainer(method, backbone)
