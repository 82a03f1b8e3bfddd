"""Memories of other layers beside the first: how they are joined, saved and asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.backbones import BcosBackbone
from novad.vision.explainers import BcosExplainer, Memory
from novad.vision.familiarity import FamiliarityScores, familiarity_scores, joined
from novad.vision.memory_bank import MemoryBank, load_bank, save_bank
from novad.vision.models import FamiliarityModel
from novad.vision.places import moved_back
from novad.vision.pooling import resize_maps
from small_bank import small_bank

SHAPES = ((4, 6), (8, 12), (2, 3))


def bank_of(grids: Tensor) -> MemoryBank:
    made = small_bank(grids, share=0.5, least=5, dimensions=0, whiten=0.0)
    made.scale = torch.tensor([2.0, 0.5])
    return made


def drawn(images: int, seed: int) -> list[Tensor]:
    """(N, 4, h, w) features of three layers."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 4, *shape, generator=generator) for shape in SHAPES]


@pytest.fixture(scope="module")
def banks() -> list[MemoryBank]:
    return [bank_of(grids) for grids in drawn(12, 0)]


def ask(banks: list[MemoryBank], layers: list[Tensor], share: float = 0.05) -> list[FamiliarityScores]:
    return [familiarity_scores(bank, grids, 1, share) for bank, grids in zip(banks, layers, strict=True)]


def test_scores_and_maps_are_means_each_on_the_scale_of_its_bank(banks: list[MemoryBank]) -> None:
    found = ask(banks, drawn(3, 1))
    both = joined(banks, found)
    torch.testing.assert_close(both.scores, sum((each.scores - 2) / 0.5 for each in found) / 3)
    maps = []
    for bank, each in zip(banks, found, strict=True):
        assert bank.usual is not None
        deviations = (each.distances - bank.usual.overall[0]) / bank.usual.overall[1]
        maps.append(resize_maps(deviations, SHAPES[0]))
    torch.testing.assert_close(both.distances, sum(maps) / 3)
    assert torch.equal(both.nearest, found[0].nearest)
    assert torch.equal(both.patches, found[0].patches)


def test_on_the_scale_of_its_bank_a_distance_is_in_standard_deviations_of_its_place(
    banks: list[MemoryBank],
) -> None:
    grids = drawn(3, 1)[0]
    usual = banks[0].usual
    assert usual is not None
    raw, _ = banks[0].search(banks[0].patches(grids))
    torch.testing.assert_close(usual.deviations(usual(raw)), (raw - usual.mean) / usual.spread)


def test_each_bank_draws_its_map_where_its_own_features_look(banks: list[MemoryBank]) -> None:
    layers = drawn(3, 1)
    before = joined(banks, ask(banks, layers))
    by = [torch.tensor(each) for each in ([0.1, 0.0], [0.0, 0.2], [-0.1, 0.1])]
    moved = []
    for bank, each in zip(banks, by, strict=True):
        other = MemoryBank(bank.whitening, bank.vectors, bank.origins, bank.usual)
        other.scale, other.displacement = bank.scale, each
        moved.append(other)
    found = ask(moved, layers)
    after = joined(moved, found)
    maps = []
    for bank, each, shift in zip(moved, found, by, strict=True):
        assert bank.usual is not None
        drawn_there = moved_back(each.distances, shift)
        maps.append(resize_maps(bank.usual.deviations(drawn_there), SHAPES[0]))
    torch.testing.assert_close(after.maps, sum(maps) / 3)
    assert torch.equal(after.distances, before.distances)
    assert torch.equal(after.scores, before.scores)


@pytest.mark.parametrize("layer", range(len(SHAPES)))
def test_either_layer_can_tell_a_defect(banks: list[MemoryBank], layer: int) -> None:
    layers = drawn(6, 2)
    before = joined(banks, ask(banks, layers))
    layers[layer] = layers[layer].clone()
    layers[layer][0, :, -1, -1] += 20
    after = joined(banks, ask(banks, layers))
    assert after.scores[0] > before.scores[0] + 1
    assert torch.equal(after.scores[1:], before.scores[1:])
    row, column = divmod(int(after.distances[0].argmax()), SHAPES[0][1])
    assert row >= SHAPES[0][0] // 2
    assert column >= SHAPES[0][1] // 2


def test_banks_that_do_not_know_their_scale_are_not_joined(banks: list[MemoryBank]) -> None:
    made = bank_of(drawn(3, 0)[0])
    made.scale = None
    with pytest.raises(CalibrationError, match="how its images score"):
        joined([made, banks[1]], ask([made, banks[1]], drawn(2, 1)[:2]))


def test_saved_companions_come_back_and_equal_banks_are_equal_bytes(
    banks: list[MemoryBank], tmp_path: Path
) -> None:
    first, alone = bank_of(drawn(12, 0)[0]), bank_of(drawn(3, 7)[0])
    first.companions = tuple(banks[1:])
    for name in ("one", "other"):
        save_bank(first, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    loaded = load_bank(tmp_path / "one")
    assert [each.companions for each in loaded.companions] == [(), ()]
    layers = drawn(4, 5)
    before = joined(banks, ask(banks, layers))
    back = [loaded, *loaded.companions]
    after = joined(back, ask(back, layers))
    assert torch.equal(before.scores, after.scores)
    assert torch.equal(before.distances, after.distances)
    save_bank(alone, tmp_path / "alone")
    assert load_bank(tmp_path / "alone").companions == ()


def test_a_model_shows_each_bank_and_the_explanation_their_own_layers(random_backbone: BcosBackbone) -> None:
    backbone = BcosBackbone("novad-bcos", random_backbone.network, ["layer1", "layer2", "layer3"])
    images = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = backbone(images)
        names = ("layer2", "layer1", "layer3")
        banks = [bank_of(features[name]) for name in names]
        banks[0].companions = tuple(banks[1:])
        model = FamiliarityModel(
            backbone, banks[0], "sensory", 1, 0.1, neighbourhood=1, layers=names[:1], companions=names[1:]
        )
        asked = images.flip(0, 3)
        features = backbone(asked)
        found, own = model.score(features), model.score(backbone(images), np.arange(3, dtype=np.int32))
        expected = joined(banks, ask(banks, [features[name] for name in names], 0.1))
        met = model.score(backbone(images))
    assert torch.equal(found.distances, expected.distances)
    assert torch.equal(found.scores, expected.scores)
    # A bank image meets its own vectors in no bank.
    assert (met.scores < own.scores).all()
    explained = BcosExplainer(backbone, Memory(banks[0], "sensory", 1, names[:1])).explain(asked, "memory")
    assert float(explained.completeness_error().max()) < 1e-3
