"""The recipe of the bundled network: same images from the same numbers, a checkpoint that novad loads."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from novad.pretraining.formulas import FIELDS
from novad.pretraining.textures import FormulaTextures, draw
from novad.pretraining.train import main
from novad.vision.backbones import describe_checkpoint, file_sha256, load_backbone

WEIGHTS = Path(__file__).parents[3] / "src/novad/vision/weights"


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_field_varies_between_samples_and_repeats_from_the_same_numbers(name: str) -> None:
    def field(sample: int) -> np.ndarray:
        return FIELDS[name](64, np.random.default_rng([1, 2]), np.random.default_rng([3, sample]))

    first = field(0)
    assert first.shape == (64, 64)
    assert np.isfinite(first).all()
    assert np.array_equal(first, field(0))
    assert not np.array_equal(first, field(1))


def test_images_of_one_class_are_more_alike_than_those_of_two() -> None:
    def spectrum(category: int, sample: int) -> np.ndarray:
        pixels = draw(category, 64, np.random.default_rng([5, category, sample])).astype(float)
        histogram = np.concatenate([np.histogram(pixels[..., c], 16, (0, 256))[0] for c in range(3)])
        return histogram / np.linalg.norm(histogram)

    looks = np.array([[spectrum(category, sample) for sample in range(6)] for category in range(10)])
    same = np.mean([np.mean(each @ each.T) for each in looks])
    mixed = looks.reshape(-1, looks.shape[-1])
    assert same > np.mean(mixed @ mixed.T) + 0.1


def test_number_i_of_a_data_set_is_always_the_same_image() -> None:
    first, second = FormulaTextures(8, 32, 48, seed=1), FormulaTextures(8, 32, 48, seed=1)
    other = FormulaTextures(8, 32, 48, seed=2)
    assert torch.equal(first[5][0], second[5][0])
    assert first[5][1] == second[5][1]
    assert not torch.equal(first[5][0], other[5][0])
    with pytest.raises(IndexError):
        first[8]


def test_the_recipe_leaves_a_checkpoint_that_loads_strictly(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "net.safetensors"
    small = {"steps": 2, "batch": 2, "size": 32, "categories": 4, "threads": 1, "workers": 0}
    options = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["pretraining", "--out", str(out), *options])
    main()
    architecture, sha256 = describe_checkpoint(out)
    assert json.loads(out.with_suffix(".json").read_text())["sha256"] == sha256
    features = load_backbone(architecture, out, sha256)(torch.rand(1, 3, 64, 64))
    assert all(torch.isfinite(each).all() for each in features.values())


def test_the_card_beside_the_shipped_network_tells_its_digest() -> None:
    card = json.loads((WEIGHTS / "novad-bcos.json").read_text())
    assert card["sha256"] == file_sha256(WEIGHTS / "novad-bcos.safetensors")
    weights = load_backbone("novad-bcos", WEIGHTS / "novad-bcos.safetensors", card["sha256"])
    assert sum(each.numel() for each in weights.parameters()) < card["parameters"] < 2_000_000
