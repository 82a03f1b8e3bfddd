"""The recipe of the bundled network: same images from the same numbers, a checkpoint that novad loads."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from novad.pretraining.formulas import FIELDS
from novad.pretraining.teacher import Teacher
from novad.pretraining.textures import FormulaTextures, draw
from novad.pretraining.train import main
from novad.pretraining.views import views
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


def run_recipe(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    small = {"steps": 2, "batch": 2, "size": 32, "drawn": 48, "categories": 4, "threads": 1, "workers": 0}
    options = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["pretraining", "--out", str(out), *options, *more])
    main()


def test_the_recipe_leaves_a_checkpoint_that_loads_strictly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_recipe(monkeypatch, tmp_path, "--recipes", "labels")
    out = tmp_path / "novad-bcos-labels.safetensors"
    architecture, sha256 = describe_checkpoint(out)
    assert json.loads(out.with_suffix(".json").read_text())["sha256"] == sha256
    features = load_backbone(architecture, out, sha256)(torch.rand(1, 3, 64, 64))
    assert all(torch.isfinite(each).all() for each in features.values())


def test_a_run_goes_on_from_an_earlier_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_recipe(monkeypatch, tmp_path / "one", "--recipes", "labels")
    first = tmp_path / "one/novad-bcos-labels.safetensors"
    still = ("--recipes", "labels", "--learning-rate", "1e-12")
    run_recipe(monkeypatch, tmp_path / "two", *still, "--start", str(first))
    run_recipe(monkeypatch, tmp_path / "three", *still, "--seed", "5")
    before, after, other = (
        load_file(tmp_path / folder / "novad-bcos-labels.safetensors") for folder in ("one", "two", "three")
    )
    assert torch.allclose(before["conv1.linear.weight"], after["conv1.linear.weight"], atol=1e-3)
    assert not torch.allclose(before["conv1.linear.weight"], other["conv1.linear.weight"], atol=1e-3)
    card = json.loads((tmp_path / "two/novad-bcos-labels.json").read_text())
    assert card["start_sha256"] == file_sha256(first)


def test_distillation_without_a_teacher_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="needs --teacher"):
        run_recipe(monkeypatch, tmp_path, "--recipes", "distillation")


def test_the_teacher_looks_where_a_student_looks(tmp_path: Path) -> None:
    """What a feature depends on lies around its place; padded on one side more it lies 3 to 15 pixels on."""
    torch.manual_seed(0)
    weights = timm.create_model("mobilenetv2_100", num_classes=1001).state_dict()
    save_file(weights, tmp_path / "teacher.safetensors")
    network = Teacher(tmp_path / "teacher.safetensors").network
    images = torch.rand(1, 3, 512, 512, requires_grad=True)
    for stride, features in zip((4, 8, 16), network(images), strict=True):
        at = 256 // stride
        (gradient,) = torch.autograd.grad(features[..., at, at].sum(), images, retain_graph=True)
        for axis in (1, 2):
            seen = gradient[0].abs().sum(0).sum(2 - axis).nonzero().flatten()
            assert (int(seen.min()) + int(seen.max())) / 2 == 256


def test_views_are_images_of_their_own_that_repeat_from_the_same_seed() -> None:
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    first, again = (views(images, 2, 32, torch.Generator().manual_seed(4)) for _ in range(2))
    assert first.shape == (6, 3, 32, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first[:3], first[3:])
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_the_card_beside_the_shipped_network_tells_its_digest() -> None:
    card = json.loads((WEIGHTS / "novad-bcos.json").read_text())
    assert card["sha256"] == file_sha256(WEIGHTS / "novad-bcos.safetensors")
    weights = load_backbone("novad-bcos", WEIGHTS / "novad-bcos.safetensors", card["sha256"])
    assert sum(each.numel() for each in weights.parameters()) < card["parameters"] < 2_000_000
