"""Images that are no squares: both sides of the network's input are told, and every map keeps to them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from novad.vision import Detector
from novad.vision.backbones import BcosBackbone
from novad.vision.explainers import BcosExplainer, build_explainer
from novad.vision.familiarity import familiarity_scores, feature_grids
from novad.vision.novelty import map_step, statistic_maps
from novad.vision.preprocess import to_batch
from small_bank import small_bank

HEIGHT, WIDTH = 48, 128


def strip(seed: int, blot: tuple[int, int] | None = None) -> np.ndarray:
    """A long piece of noisy metal, 96 x 256 pixels, with a dark blot of 16 pixels where it is asked for."""
    rng = np.random.default_rng(seed)
    image = rng.normal(128, 12, (2 * HEIGHT, 2 * WIDTH, 1)).repeat(3, axis=2)
    if blot is not None:
        row, column = blot
        image[row : row + 16, column : column + 16] -= 90
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT), 64])
def test_a_batch_has_the_sides_that_are_asked_for(size: int | tuple[int, int]) -> None:
    height, width = (size, size) if isinstance(size, int) else size
    assert to_batch([strip(0), strip(1)[:, :100]], size).shape == (2, 3, height, width)


@pytest.mark.parametrize("blot", [(0, 0), (8, 232), (72, 16), (80, 240)])
def test_a_defect_lies_where_it_is_in_a_long_image(
    blot: tuple[int, int], bundled_backbone: BcosBackbone
) -> None:
    with torch.inference_mode():
        normals = to_batch([strip(seed) for seed in range(6)], (HEIGHT, WIDTH))
        bank = small_bank(feature_grids(bundled_backbone(normals), "sensory"), share=0.5, least=50)
        asked = feature_grids(bundled_backbone(to_batch([strip(99, blot)], (HEIGHT, WIDTH))), "sensory")
        found = familiarity_scores(bank, asked, neighbours=1, top_share=0.01)
    distances = found.maps[0]
    rows, columns = distances.shape
    assert rows * WIDTH == columns * HEIGHT
    row, column = divmod(int(distances.argmax()), columns)
    step = 2 * WIDTH / columns  # pixels of the image, which is twice as large as the network's input
    assert abs((row + 0.5) * step - (blot[0] + 8)) <= 16
    assert abs((column + 0.5) * step - (blot[1] + 8)) <= 16


def test_explanations_of_long_images_are_complete_and_as_long(bundled_backbone: BcosBackbone) -> None:
    images = to_batch([strip(3, (20, 200))], (HEIGHT, WIDTH))
    explanation = BcosExplainer(bundled_backbone).explain(images, "layer2")
    assert explanation.contribution.shape == (1, HEIGHT, WIDTH)
    assert float(explanation.completeness_error()) < 1e-3
    step = map_step((HEIGHT, WIDTH))
    maps = statistic_maps(explanation, ["weight_norm"], step)
    assert maps.shape == (1, 1, HEIGHT // step, WIDTH // step)


@pytest.mark.parametrize("method", ["layer_grad_cam", "occlusion", "input_x_gradient"])
def test_methods_of_captum_explain_long_images(method: str, bundled_backbone: BcosBackbone) -> None:
    explainer = build_explainer(method, bundled_backbone)
    images = to_batch([strip(3, (20, 200))], (HEIGHT, WIDTH))
    assert explainer.explain(images, "layer2").contribution.shape == (1, HEIGHT, WIDTH)


def test_detectors_of_before_have_the_side_of_a_square(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "old")
    manifest = json.loads((folder / "detector.json").read_text())
    assert manifest["image_size"] == [64, 64]
    (folder / "detector.json").write_text(json.dumps({**manifest, "format": 6, "image_size": 64}))
    old, new = Detector.load(folder), Detector.load(saved)
    assert old.image_size == new.image_size == (64, 64)
    images = [strip(1), strip(2, (30, 30))]
    assert [each.hybrid for each in old.score(images)] == [each.hybrid for each in new.score(images)]
