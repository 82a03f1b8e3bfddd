"""Backbones: strict loading, digests, layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from novad.errors import ConfigError, ImageError, IntegrityError, ServiceError
from novad.vision.backbones import describe_checkpoint, file_sha256, load_backbone
from novad.vision.bcos_network import SHIPPED, Layout, build_bcos_network
from novad.vision.hub import download
from novad.vision.patch_features import global_features, patch_features
from novad.vision.preprocess import batches, images_at_once, to_batch


def test_a_local_timm_checkpoint_gives_the_layers_at_strides_8_and_16(timm_checkpoint: Path) -> None:
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    assert architecture == "mobilenetv3_small_050"
    backbone = load_backbone(architecture, timm_checkpoint, sha256)
    features = backbone(torch.rand(1, 3, 64, 64))
    assert [each.shape[-1] for each in features.values()] == [8, 4]


@pytest.mark.parametrize("architecture", ["mobilenetv3_small_050", "convnext_atto", "densenet121"])
def test_features_are_those_of_the_checkpoints_weights(architecture: str, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    whole, path = timm.create_model(architecture).eval(), tmp_path / f"{architecture}.safetensors"
    save_file({name: each.contiguous() for name, each in whole.state_dict().items()}, path)
    backbone, expected = load_backbone(*_with_path(path)), {}
    modules = dict(whole.named_modules())
    for layer in backbone.layers:
        modules[layer].register_forward_hook(lambda *told, layer=layer: expected.update({layer: told[2]}))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole(backbone.encode(images))
        found = backbone(images)
    assert set(found) == set(expected) == set(backbone.layers)
    for layer, feature in found.items():
        assert torch.allclose(feature, expected[layer], atol=1e-5)


@pytest.mark.parametrize(
    "layout",
    [SHIPPED, Layout(40, fine_stem=False), Layout(16, (1, 2, 3)), Layout(8, (3, 1, 1), fine_stem=False)],
)
def test_students_of_all_sizes_load_as_they_are(layout: Layout, tmp_path: Path) -> None:
    """The second is the network that novad shipped before: versions trained with it must go on judging."""
    torch.manual_seed(0)
    network: Any = build_bcos_network(layout=layout).eval()
    weights = {name: each for name, each in network.state_dict().items() if each.is_floating_point()}
    assert Layout.of(weights) == layout
    path = tmp_path / "student.safetensors"
    save_file(weights, path, metadata={"novad": "novad-bcos"})
    backbone = load_backbone("novad-bcos", path, file_sha256(path), ("layer1", "layer2", "layer3"))
    assert list(backbone.readable.items()) == [("pool", 4), ("layer1", 4), ("layer2", 8), ("layer3", 16)]
    encoded = backbone.encode(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        stem = network.pool(network.bn1(network.conv1(encoded)))
        expected = network.layer3(network.layer2(network.layer1(stem)))
        assert torch.allclose(backbone.features(encoded)["layer3"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "deeper"), [((), 1), ((4,), 1), ((4, 0, 3, 3), 1), ((4, 4, 3, 3), 1), ((4, 4, 3, 3), 0)]
)
def test_what_is_no_student_is_refused_as_weights_that_do_not_fit(
    shape: tuple[int, ...], deeper: int, tmp_path: Path
) -> None:
    path = tmp_path / "student.safetensors"
    others = {f"layer{stage}.0.odd": torch.ones(1) for stage in (2, 3)} if deeper else {}
    save_file({"layer1.0.conv1.linear.weight": torch.ones(shape), **others}, path)
    with pytest.raises(ConfigError, match=r"student\.safetensors: the weights do not fit"):
        load_backbone("novad-bcos", path, file_sha256(path))


def test_a_network_with_channels_last_is_refused(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "mambaout_femto.safetensors"
    save_file(timm.create_model("mambaout_femto").state_dict(), path)
    with pytest.raises(ConfigError, match=r"mambaout_femto gives feature maps as \S*NHWC, not as NCHW"):
        load_backbone(*_with_path(path))


def test_another_digest_is_refused(timm_checkpoint: Path) -> None:
    with pytest.raises(IntegrityError, match="sha256 is"):
        load_backbone("mobilenetv3_small_050", timm_checkpoint, "0" * 64)


def test_weights_that_do_not_fit_are_refused(timm_checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(timm_checkpoint)
    weights.pop("conv_stem.weight")
    path = tmp_path / "mobilenetv3_small_050.safetensors"
    save_file(weights, path, metadata={"num_classes": "7"})
    with pytest.raises(ConfigError, match="do not fit"):
        load_backbone(*_with_path(path))


def test_unknown_files_layers_and_architectures_are_named(timm_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such backbone checkpoint"):
        describe_checkpoint(tmp_path / "absent.safetensors")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not weights at all")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        describe_checkpoint(garbage)
    nameless = tmp_path / "mystery.safetensors"
    save_file({"x": torch.zeros(1)}, nameless)
    with pytest.raises(ConfigError, match="nothing says which architecture"):
        describe_checkpoint(nameless)
    architecture, sha256 = describe_checkpoint(timm_checkpoint)
    with pytest.raises(ConfigError, match=r"backbone\.layers: no layer nine"):
        load_backbone(architecture, timm_checkpoint, sha256, ("nine",))
    with pytest.raises(ConfigError, match="bcos:nonsense: the B-cos zoo has no such network"):
        load_backbone("bcos:nonsense", timm_checkpoint, sha256)


def test_the_hub_is_refused_offline_with_the_alternative(tmp_path: Path, monkeypatch) -> None:
    import timm

    def offline(*_: object, **__: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ServiceError, match=r"--backbone PATH\.safetensors"):
        download("resnet18.a1_in1k", tmp_path)
    with pytest.raises(ConfigError, match="timm knows no such network"):
        download("not-a-network", tmp_path)
    assert not list(tmp_path.iterdir())


def test_patch_features_average_neighbours_and_join_layers() -> None:
    fine, coarse = torch.randn(1, 2, 6, 6), torch.randn(1, 3, 3, 3)
    joined = patch_features({"a": fine, "b": coarse})
    assert joined.shape == (1, 5, 6, 6)
    assert torch.allclose(joined[0, :2, 2, 3], fine[0, :, 1:4, 2:5].mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(joined[0, :2, 0, 0], fine[0, :, :2, :2].mean(dim=(1, 2)), atol=1e-6)
    wide = patch_features({"a": fine, "b": coarse}, 5)
    assert torch.allclose(wide[0, :2, 2, 3], fine[0, :, 0:5, 1:6].mean(dim=(1, 2)), atol=1e-6)
    assert torch.equal(patch_features({"a": fine, "b": coarse}, 1)[:, :2], fine)
    pooled = global_features({"a": fine, "b": coarse})
    assert torch.allclose(pooled[0, 2:, 0, 0], coarse.mean(dim=(2, 3))[0], atol=1e-6)


def test_images_of_any_size_and_depth_become_one_batch() -> None:
    small = np.full((20, 30, 3), 51, np.uint8)
    deep = np.full((64, 64, 3), 51 * 257, np.uint16)
    batch = to_batch([small, deep], 32)
    assert batch.shape == (2, 3, 32, 32)
    assert torch.allclose(batch, torch.tensor(0.2), atol=1e-6)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_not_an_image_is_refused_by_position(image: np.ndarray) -> None:
    with pytest.raises(ImageError, match="image 1"):
        to_batch([np.zeros((4, 4, 3), np.uint8), image], 32)


def test_large_images_are_scaled_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision eight photographs of 64 megapixels would take six gigabytes."""
    rng, stacked = np.random.default_rng(0), np.stack
    images = [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(5)]
    images += [rng.integers(0, 256, (90, 90, 3), np.uint8) for _ in range(2)]
    alone = torch.cat([to_batch([image], 32) for image in images])
    counts: list[int] = []
    monkeypatch.setattr("novad.vision.preprocess.MOST_PIXELS", 2 * 40 * 30)
    monkeypatch.setattr(np, "stack", lambda part: (counts.append(len(part)), stacked(part))[1])
    assert torch.equal(to_batch(images, 32), alone)
    assert counts == [2, 2, 1, 1, 1]


def test_batches_do_not_read_ahead() -> None:
    seen: list[int] = []

    def stream():
        for number in range(5):
            seen.append(number)
            yield np.zeros((2, 2, 3), np.uint8)

    groups = batches(stream(), 2)
    assert len(next(groups)) == 2
    assert seen == [0, 1]
    assert [len(group) for group in groups] == [2, 1]


def test_fewer_large_images_go_through_together() -> None:
    assert [images_at_once(side) for side in (32, 224, 640, 648, 1024, 2048, 4096)] == [8, 8, 8, 7, 3, 1, 1]
    assert images_at_once(224, most=2) == 2
    assert [images_at_once(size) for size in ((256, 1600), (1024, 1600), (4096, 1024))] == [8, 2, 1]


def _with_path(path: Path) -> tuple[str, Path, str]:
    architecture, sha256 = describe_checkpoint(path)
    assert sha256 == file_sha256(path)
    return architecture, path, sha256
