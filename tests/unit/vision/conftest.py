"""Small networks and images for the core's tests."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from novad.config.settings import BUNDLED_CHECKPOINT
from novad.vision.backbones import BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.bcos_network import build_bcos_network

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def random_backbone() -> BcosBackbone:
    """The bundled architecture with random weights and random, non-trivial norm statistics."""
    torch.manual_seed(0)
    network = build_bcos_network()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return BcosBackbone("novad-bcos", network)


@pytest.fixture(scope="session")
def bundled_backbone() -> BcosBackbone:
    """The network that novad ships."""
    checkpoint = ROOT / BUNDLED_CHECKPOINT
    architecture, sha256 = describe_checkpoint(checkpoint)
    backbone = load_backbone(architecture, checkpoint, sha256)
    assert isinstance(backbone, BcosBackbone)
    return backbone


@pytest.fixture(scope="session")
def timm_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small timm network with random weights, saved as a user's own checkpoint would be."""
    import timm

    torch.manual_seed(1)
    network = timm.create_model("mobilenetv3_small_050", num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "mobilenetv3_small_050.mine.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        path,
        metadata={"timm": "mobilenetv3_small_050", "num_classes": "7"},
    )
    return path


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Eight textured images of 72 x 64 pixels."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(60, 200, (8, 9, 8, 3)).astype(np.uint8)
    return [np.kron(each, np.ones((8, 8, 1), np.uint8)).astype(np.uint8) for each in coarse]
