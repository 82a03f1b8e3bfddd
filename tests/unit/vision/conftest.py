"""Small networks and images for the core's tests."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from novad.config.settings import BUNDLED_CHECKPOINT
from novad.vision.backbones import BcosBackbone, describe_checkpoint, load_backbone
from novad.vision.bcos_network import build_bcos_network
from novad.vision.detector_files import Calibration, save_detector, save_novelty
from novad.vision.explainers import BcosExplainer
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import save_bank
from novad.vision.novelty import Candidate, StatisticMoments, map_step, statistic_maps
from novad.vision.preprocess import to_batch
from small_bank import small_bank

ROOT = Path(__file__).parents[3]
SIZE = 64
NORM = Candidate("layer2", "weight_norm", 0.0, False, "both", 0.05)


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


@pytest.fixture(scope="session")
def saved(
    tmp_path_factory: pytest.TempPathFactory, random_backbone: BcosBackbone, pictures: list[np.ndarray]
) -> Path:
    """A detector whose familiarity and novelty ask the same untrained network, as it lies on disk."""
    folder = tmp_path_factory.mktemp("detector")
    checkpoint = folder / "network.safetensors"
    save_file({k: v.contiguous() for k, v in random_backbone.network.state_dict().items()}, checkpoint)
    batch = to_batch(pictures, SIZE)
    with torch.inference_mode():
        grids = feature_grids(random_backbone(batch), "sensory")
        bank = small_bank(grids, share=0.2, least=10)
    save_bank(bank, folder / "bank")
    explainer, moments = BcosExplainer(random_backbone), StatisticMoments()
    names = tuple(name for name in explainer.statistics if name != "joint")
    moments.add(statistic_maps(explainer.explain(batch, "layer2"), names, map_step(SIZE)))
    save_novelty(Calibration({0.0: moments.finish()}), folder / "calibration")
    network = {"architecture": "novad-bcos", "checkpoint": "net.safetensors", "layers": []}
    save_detector(
        folder / "saved",
        line="test",
        image_size=SIZE,
        backbone=network,
        explainer={**network, "method": "bcos"},
        familiarity={
            "anomaly_type": "sensory",
            "neighbours": 1,
            "top_share": 0.05,
            "smoothing": 1.0,
            "images": [[f"train/{number}.png", f"{number:064x}"] for number in range(len(pictures))],
        },
        novelty={"shown": asdict(NORM), "judged": [asdict(NORM)]},
        fusion={
            "weight": 0.25,
            "map_weight": 0.75,
            "scales": {
                "familiarity": {"median": 1.0, "spread": 2.0},
                "novelty": {"median": 0.5, "spread": 0.25},
                "familiarity_map": {"median": 1.0, "spread": 2.0},
                "novelty_map": {"median": 0.5, "spread": 0.25},
            },
            "thresholds": {
                "fail": 2.0,
                "review": 1.0,
                "alpha": 0.1,
                "map": {"familiarity": 1.0, "novelty": 1.0, "hybrid": 1.0},
            },
            "normal_scores": [0.0, 0.5, 1.0],
        },
        checkpoints={"net.safetensors": checkpoint},
        bank=folder / "bank",
        calibration=folder / "calibration",
    )
    return folder / "saved"
