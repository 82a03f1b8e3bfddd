"""Tiling: the whole image's features and explanations, tile by tile, and networks that cannot be cut."""

import copy
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from novad.errors import ConfigError
from novad.vision.backbones import Backbone, BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.explainers import EXPLAINERS, BcosExplainer, Explainer, Memory, build_explainer
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import fit_memory_bank
from novad.vision.tiling import Tiling, measure_margins

POST_HOC = sorted(name for name, each in EXPLAINERS.items() if each.adds_up and name != "bcos")
# Wide enough for a tile of 64 that sees no border of the image, and no multiple of the tile.
IMAGES = torch.rand(2, 3, 96, 352, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random timm network without global operations, as a user's own checkpoint."""
    return saved("mobilenetv2_035", tmp_path_factory)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with max pooling and plain ReLU."""
    return saved("resnet10t", tmp_path_factory)


def saved(name: str, folders: pytest.TempPathFactory, pad_type: str = "") -> Path:
    import timm

    torch.manual_seed(2)
    network = timm.create_model(name, num_classes=3)
    for key, buffer in network.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    path = folders.mktemp("weights") / f"{name}.safetensors"
    weights = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    metadata = {"timm": name, "num_classes": "3"} | ({"pad_type": pad_type} if pad_type else {})
    save_file(weights, path, metadata=metadata)
    return path


def loaded(path: Path, tile: int = 0) -> Backbone:
    architecture, sha256 = describe_checkpoint(path)
    return load_backbone(architecture, path, sha256, tile=tile)


def cut(backbone: Backbone, side: int) -> Backbone:
    """The same network with its images cut."""
    other = copy.copy(backbone)
    other.cut(side)
    return other


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def assert_explained_alike(mine: Explainer, theirs: Explainer, target: str, images: Tensor = IMAGES) -> None:
    found, expected = mine.explain(images, target), theirs.explain(images, target)
    assert_same(found.contribution, expected.contribution)
    assert torch.allclose(found.total, expected.total, rtol=1e-5)
    assert set(found.features) == set(expected.features)
    for name, each in expected.features.items():
        assert_same(found.features[name], each)
    if expected.weight is not None:
        assert found.weight is not None
        assert_same(found.weight, expected.weight)


@pytest.mark.parametrize("side", [64, 352])
@pytest.mark.parametrize("weights", ["random_backbone", "bundled_backbone"])
def test_stitched_features_are_those_of_the_whole_image(
    weights: str, side: int, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue(weights)
    tiled = cut(whole, side)
    with torch.inference_mode():
        encoded = whole.encode(IMAGES)
        expected, found = (each.stage_features(encoded, each.available) for each in (whole, tiled))
        assert set(found) == {"layer1", "layer2", "layer3"}
        for name, each in expected.items():
            assert_same(found[name], each)
        assert set(tiled(IMAGES)) == {"layer2"}
        for anomaly_type in ("sensory", "semantic_far"):
            assert_same(feature_grids(found, anomaly_type), feature_grids(expected, anomaly_type))


@pytest.mark.parametrize("network", ["mobilenet", "resnet"])
def test_a_convolutional_timm_network_is_cut_without_seams(
    network: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(network)
    whole, tiled = loaded(path), loaded(path, tile=64)
    with torch.inference_mode():
        for (name, found), expected in zip(tiled(IMAGES).items(), whole(IMAGES).values(), strict=True):
            assert name in whole.layers
            assert_same(found, expected)


def test_padding_that_hangs_on_the_size_of_the_image_falls_as_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = saved("mobilenetv2_035", tmp_path_factory, pad_type="same")
    with torch.inference_mode():
        found, expected = loaded(path, tile=64)(IMAGES), loaded(path)(IMAGES)
    for name, each in expected.items():
        assert_same(found[name], each)


@pytest.mark.parametrize("weights", ["random_backbone", "bundled_backbone"])
@pytest.mark.parametrize("target", ["layer1", "layer2", "layer3", "layer1+layer2+layer3"])
def test_tiles_add_up_to_the_explanation_of_the_whole_image(
    weights: str, target: str, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue(weights)
    assert_explained_alike(BcosExplainer(cut(whole, 64)), BcosExplainer(whole), target)


def test_several_targets_of_tiles_are_explained_as_of_the_whole_image(random_backbone: BcosBackbone) -> None:
    targets = ["layer2+layer1", "layer3", "layer1"]
    mine, theirs = (
        BcosExplainer(each).explain_each(IMAGES, targets)
        for each in (cut(random_backbone, 96), random_backbone)
    )
    for found, expected in zip(mine, theirs, strict=True):
        assert_same(found.contribution, expected.contribution)
        assert float(found.completeness_error().max()) < 1e-4


def test_what_the_memory_leaves_unexplained_has_no_seams(random_backbone: BcosBackbone) -> None:
    with torch.no_grad():
        grids = feature_grids(random_backbone(IMAGES.flip(3)[..., :64, :64]), "sensory")
    bank = fit_memory_bank(
        iter(grids), 2, coreset_share=1.0, min_vectors=1, max_vectors=1000, dimensions=16, whiten=1.0
    )
    mine, theirs = (
        BcosExplainer(each, Memory(bank, "sensory")) for each in (cut(random_backbone, 64), random_backbone)
    )
    assert_explained_alike(mine, theirs, "memory", IMAGES[:1, :, :, :192])


@pytest.mark.parametrize("method", POST_HOC)
def test_post_hoc_methods_explain_tiles_as_the_whole_image(method: str, resnet: Path) -> None:
    """In double precision: in single, a ReLU at its kink lets through what the last bit says."""
    mine, theirs = (build_explainer(method, loaded(resnet, tile).double()) for tile in (64, 0))
    assert_explained_alike(mine, theirs, mine.targets[0], IMAGES[:1, :, :, :128].double())


@pytest.mark.parametrize("method", ["guided_backprop", "lrp"])
def test_methods_whose_parts_do_not_add_up_are_refused(method: str, resnet: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{method}' explains tiles otherwise"):
        build_explainer(method, loaded(resnet, tile=64))
    assert build_explainer(method, loaded(resnet))


STRIDES = (("layer1", 4), ("layer2", 8), ("layer3", 16))


def closed_form(steps: list[tuple[int, int]]) -> int:
    """Pixels that a position sees beyond its own, in whole positions (Araujo et al. 2019)."""
    before, jump = 0, 1
    for kernel, stride in steps:
        before += (kernel - 1) // 2 * jump
        jump *= stride
    return -(-before // jump) * jump


def test_margins_are_the_receptive_field_in_closed_form(
    bundled_backbone: BcosBackbone, random_backbone: BcosBackbone
) -> None:
    stem, block = [(3, 2), (3, 2)], [(3, 1)] * 4
    layer2, layer3 = ([(3, 2)] + [(3, 1)] * 3 for _ in range(2))
    expected = {
        "pool": closed_form(stem),
        "layer1": closed_form(stem + block),
        "layer2": closed_form(stem + block + layer2),
        "layer3": closed_form(stem + block + layer2 + layer3),
    }
    assert expected == {"pool": 4, "layer1": 20, "layer2": 48, "layer3": 112}
    trained, random = (cut(each, 64).tiling for each in (bundled_backbone, random_backbone))
    assert trained is not None
    assert random is not None
    assert trained.margins == expected
    # Random weights pass less than a trillionth on from the outermost pixels.
    assert all(expected[name] - stride <= random.margins[name] <= expected[name] for name, stride in STRIDES)


@pytest.mark.parametrize(("kernel", "expected"), [((1, 9), 4), ((9, 1), 4), ((3, 3), 1), ((1, 1), 0)])
def test_the_longer_axis_of_a_field_counts(kernel: tuple[int, int], expected: int) -> None:
    padding = kernel[0] // 2, kernel[1] // 2
    convolution = nn.Conv2d(3, 4, kernel, padding=padding).double()
    assert measure_margins(lambda images: {"a": convolution(images)}, {"a": 1}, "net") == {"a": expected}


def test_with_less_margin_there_are_seams(random_backbone: BcosBackbone) -> None:
    tiled = cut(random_backbone, 64)
    assert tiled.tiling is not None
    tiled.tiling = Tiling(64, {"layer1": 4}, {"layer1": 8})
    with torch.inference_mode():
        encoded = tiled.encode(IMAGES)
        found = tiled.stage_features(encoded, ["layer1"])["layer1"]
        expected = random_backbone.stage_features(encoded, ["layer1"])["layer1"]
    apart = (found - expected).abs().amax(dim=(0, 1))
    assert apart[:, 15].max() > 1e-4 * expected.abs().max()
    assert apart[5:11, 5:11].max() <= 1e-5 * expected.abs().max()


def test_the_network_sees_one_tile_of_one_image_at_a_time(
    random_backbone: BcosBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled, shapes, asked = cut(random_backbone, 64), [], []
    run = tiled.run

    def spy(encoded: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        shapes.append(tuple(encoded.shape))
        asked.append(set(layers))
        return run(encoded, layers)

    monkeypatch.setattr(tiled, "run", spy)
    BcosExplainer(tiled).explain(IMAGES, "layer1")
    tiles = 2 * 6 * len(IMAGES)
    # Forward for the read and the explained layer, margin 48; back for the explained one alone, margin 32.
    assert asked == [{"layer1", "layer2"}] * tiles + [{"layer1"}] * tiles
    assert {count for count, *_ in shapes} == {1}
    assert max(shape[-1] for shape in shapes[:tiles]) == 64 + 2 * 48
    assert max(shape[-1] for shape in shapes[tiles:]) == 64 + 2 * 32


@given(
    tiles=st.integers(1, 8), length=st.integers(1, 24), strides=st.sets(st.sampled_from([4, 8, 16, 32])),
    field=st.integers(0, 200),
)  # fmt: skip
def test_tiles_keep_every_pixel_once_and_see_what_it_depends_on(
    tiles: int, length: int, strides: set[int], field: int
) -> None:
    named = {f"at {stride}": stride for stride in strides | {4}}
    tiling = Tiling(32 * tiles, named, dict.fromkeys(named, field))
    image = torch.zeros(1, 1, 32, 32 * length)
    spans = [tile.columns for tile in tiling.tiles(image, named) if tile.rows.kept.start == 0]
    assert [pixel for span in spans for pixel in range(span.kept.start, span.kept.stop)] == list(
        range(32 * length)
    )
    for span in spans:
        assert span.seen.start % max(named.values()) == 0
        assert span.seen.start == 0 or span.seen.start <= span.kept.start - field
        assert span.seen.stop == 32 * length or span.seen.stop >= span.kept.stop + field


def test_a_network_with_a_global_operation_is_refused_by_name(timm_checkpoint: Path) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    whole = load_backbone(architecture, timm_checkpoint, sha256)
    with pytest.raises(
        ConfigError, match=rf"backbone\.tile: {architecture}.*{whole.layers[0]} depends on the whole"
    ):
        load_backbone(architecture, timm_checkpoint, sha256, tile=64)


def test_what_depends_on_its_place_or_has_no_grid_or_fixed_sizes_is_refused() -> None:
    def placed(images: Tensor) -> dict[str, Tensor]:
        return {"deep": images[:, :, ::8, ::8] * torch.arange(1, images.shape[-1] // 8 + 1)}

    def unpadded(images: Tensor) -> dict[str, Tensor]:
        return {"deep": images[:, :, :, 8::8]}

    def fixed(images: Tensor) -> dict[str, Tensor]:
        raise AssertionError("input height does not match")

    for look, words in (
        (placed, "deep says depends on where"),
        (unpadded, "deep has 63 positions for 512 pixels at stride 8"),
        (fixed, "input height does not match"),
    ):
        with pytest.raises(ConfigError, match=rf"backbone\.tile: odd-net cannot be run .*{words}"):
            measure_margins(look, {"deep": 8}, "odd-net")


def test_images_that_no_whole_number_of_positions_fills_are_refused(random_backbone: BcosBackbone) -> None:
    with pytest.raises(ConfigError, match=r"72 pixels and tiles of 64 .* stride of 16"):
        cut(random_backbone, 64)(torch.rand(1, 3, 72, 64))
