"""The script that runs beside anomalib: it sees the images and features that novad sees."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from novad.benchmarking import anomalib_methods
from novad.benchmarking.anomalib_methods import give_weights, read
from novad.benchmarking.anomalib_runs import METHODS
from novad.images import decode_image
from novad.vision.backbones import TimmBackbone
from novad.vision.preprocess import to_batch
from novad.vision.tensor_files import read_tensors

# timm itself needs torchvision, pillow and safetensors: an environment with anomalib has them.
ALLOWED = {"anomalib", "torch", "torchvision", "timm", "numpy", "PIL", "safetensors"}
ARCHITECTURE = "mobilenetv3_small_050"


def test_it_imports_nothing_of_novad() -> None:
    tree = ast.parse(Path(anomalib_methods.__file__).read_text())
    found = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert found <= ALLOWED | sys.stdlib_module_names


def test_it_has_every_method_that_can_be_asked_for() -> None:
    assert tuple(anomalib_methods.METHODS) == METHODS


def _drawn(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65_536, (40, 56), np.uint16))
    if mode == "P":
        return Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8)).quantize(16)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (40, 56, bands), np.uint8)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


@pytest.mark.parametrize("size", [(32, 32), (40, 56), (24, 64)])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_it_reads_images_as_novad_does(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    _drawn(mode).save(path)
    expected = to_batch([decode_image(path, 10**6)], size)[0]
    torch.testing.assert_close(read(str(path), size), expected, atol=1e-6, rtol=0)


def test_it_turns_rotated_images_upright(tmp_path: Path) -> None:
    path, exif = tmp_path / "image.jpg", Image.Exif()
    exif[0x0112] = 6
    _drawn("RGB").save(path, exif=exif, quality=95)
    torch.testing.assert_close(read(str(path), (32, 32)), to_batch([decode_image(path, 10**6)], 32)[0])


class _Extractor(nn.Module):
    feature_extractor: nn.Module


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = timm.create_model(ARCHITECTURE, num_classes=7, pad_type="same")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
    told = {"timm": ARCHITECTURE, "num_classes": "7", "pad_type": "same", "mean": "0.4", "std": "0.3"}
    save_file(network.state_dict(), tmp_path / "net.safetensors", told)
    return tmp_path / "net.safetensors"


def test_features_of_a_local_checkpoint_are_those_of_novads_backbone(checkpoint: Path) -> None:
    told = {"pad_type": "same", "num_classes": "7", "mean": "0.4", "std": "0.3"}
    ours = TimmBackbone(ARCHITECTURE, read_tensors(checkpoint), checkpoint, ["blocks.1", "blocks.3"], told)
    extractor = _Extractor()
    weights = {"architecture": ARCHITECTURE, "checkpoint": str(checkpoint), "layers": list(ours.layers)}
    encode = give_weights(extractor, weights)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = ours(images), extractor.feature_extractor(encode(images))
    assert len(found) == len(expected) == 2
    for mine, other in zip(expected.values(), found, strict=True):
        torch.testing.assert_close(mine, other)


def test_weights_that_do_not_fit_are_refused(checkpoint: Path) -> None:
    weights = {"architecture": "mobilenetv3_small_075", "checkpoint": str(checkpoint), "layers": ["blocks.2"]}
    with pytest.raises(RuntimeError, match="size mismatch"):
        give_weights(_Extractor(), weights)
