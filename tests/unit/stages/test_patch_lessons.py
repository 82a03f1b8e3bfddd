"""What masks teach about maps: defects not learned from are shown, and too little teaches nothing."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge
from torch import Tensor

from novad.stages import localisation, patch_lessons
from novad.stages.localisation import ShownMap, best_map
from novad.stages.map_weight import map_weight, pixel_auroc
from novad.stages.masked_images import MaskedImages
from novad.stages.patch_lessons import RIDGES, LearnedMap
from novad.vision.appearance import appearance_candidate
from novad.vision.patch_evidence import blurred, patch_candidate, patch_signs

SIDE, GRID, COUNT = 32, 8, 10


def look(images: Tensor) -> Tensor:
    """Familiarity and looks, which are noise here, and a channel in which every defect shows."""
    return F.avg_pool2d(images, SIDE // GRID)


def learn_maps(masked: MaskedImages, sound: tuple[Tensor, ...], fewest: int) -> list[LearnedMap]:
    """By what is seen of their patches, in half precision."""
    seen = list(look(masked.images).half())
    return patch_lessons.learn_maps(
        seen, masked, [each for some in sound for each in look(some).half()], fewest
    )


def drawn(kinds: tuple[str, ...] = ("a", "b") * (COUNT // 2), defect: int = 6) -> MaskedImages:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(len(kinds), 3, SIDE, SIDE, generator=random)
    masks = torch.zeros(len(kinds), SIDE, SIDE, dtype=torch.bool)
    for at, kind in enumerate(kinds):
        top = 2 + 2 * at
        masks[at, top : top + defect, 4 : 4 + defect] = True
        images[at, 2][masks[at]] += 0.5 if kind == "a" else 0.4
    return MaskedImages(images, masks, kinds, tuple(map(str, range(len(kinds)))))


def covered(everywhere: bool) -> MaskedImages:
    return replace(drawn(), masks=torch.full((COUNT, SIDE, SIDE), everywhere))


def normal(count: int = 4) -> tuple[Tensor, ...]:
    images = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return images.split(3) if count else ()


def shows(maps: Tensor, masked: MaskedImages) -> float:
    size = (SIDE, SIDE)
    return pixel_auroc(F.interpolate(maps[:, None], size)[:, 0], masked.masks)


def test_masks_teach_to_show_defects_of_images_and_of_types_not_learned_from() -> None:
    masked = drawn()
    learned = learn_maps(masked, normal(), COUNT)
    assert [each.ridge for each in learned] == list(RIDGES)
    assert shows(look(masked.images)[:, 1], masked) < 0.6
    for each in learned:
        assert each.maps.shape == (2 * COUNT, GRID, GRID)
        by_fold, by_kind = each.maps[:COUNT], each.maps[COUNT:]
        assert min(shows(by_fold, masked), shows(by_kind, masked)) > 0.95
        assert not torch.equal(by_fold, by_kind)
        assert shows(each.evidence(look(masked.images)), masked) > 0.95


@pytest.mark.parametrize("sound", [normal(), ()], ids=["with normals", "without"])
def test_it_is_the_discriminant_of_all_defective_and_all_sound_places(sound: tuple[Tensor, ...]) -> None:
    """By brute force; places that a mask covers a little belong to no side."""
    masked = drawn()
    masked.masks[:, 1::9, 3] = True
    seen = [look(masked.images), *map(look, sound)]
    cover = F.adaptive_avg_pool2d(masked.masks.float()[:, None], GRID)[:, 0]
    assert ((cover > 0) & (cover < 0.25)).any()
    nowhere = torch.zeros(sum(map(len, sound)), GRID, GRID, dtype=torch.bool)
    bad, good = torch.cat([cover >= 0.25, nowhere]), torch.cat([cover == 0, ~nowhere])
    deviations = torch.cat(seen).half().float()
    of_sound = deviations.permute(1, 0, 2, 3)[:, good]
    centre, scale = of_sound.mean(1), of_sound.std(1, correction=0)
    signs = blurred(patch_signs(deviations, centre, scale)).permute(0, 2, 3, 1)
    images = torch.cat([signs[bad], signs[good]]).numpy()
    labels = np.r_[np.ones(int(bad.sum())), -np.ones(int(good.sum()))]
    shares = np.where(labels > 0, 1 / bad.sum(), 1 / good.sum())
    for each in learn_maps(masked, sound, COUNT):
        model = Ridge(alpha=each.ridge).fit(images, labels, sample_weight=shares)
        assert torch.allclose(each.evidence.centre, centre, atol=1e-4)
        assert torch.allclose(each.evidence.scale, scale, rtol=1e-3)
        assert np.allclose(each.evidence.discriminant.weight, model.coef_, rtol=1e-2, atol=1e-4)


def first(learned: list[LearnedMap]) -> LearnedMap:
    return learned[0]


def test_the_map_of_an_image_is_learned_without_it() -> None:
    """Another mask on it changes what all images teach, and its own map by no more than the scales."""
    masked = drawn()
    other = drawn()
    other.masks[0] = False
    other.masks[0, 20:30, 18:30] = True
    before, after = (first(learn_maps(each, normal(), COUNT)) for each in (masked, other))
    moved = (before.maps[0] - after.maps[0]).abs().max() / before.maps[0].abs().max()
    everything = before.evidence(look(masked.images[:1])) - after.evidence(look(masked.images[:1]))
    assert moved < 0.02 < everything.abs().max() / before.maps[0].abs().max()


def test_pictures_of_one_part_are_held_out_together() -> None:
    masked = replace(drawn(), parts=tuple(str(at // 2) for at in range(COUNT)))
    lessons = patch_lessons._Lessons(
        list(look(masked.images)), masked.masks.float(), masked.kinds, masked.parts, list(normal())
    )
    fifths, _ = lessons._partitions()
    for out, rest in fifths.items():
        assert not {masked.parts[at] for at in out} & {masked.parts[at] for at in rest}
    assert sorted(at for out in fifths for at in out) == list(range(COUNT))


def test_of_one_type_every_map_comes_once() -> None:
    learned = learn_maps(drawn(("a",) * COUNT), normal(), COUNT)
    assert {len(each.maps) for each in learned} == {COUNT}


def test_a_type_that_alone_covers_patches_is_not_left_out() -> None:
    masked = drawn(("a",) * 5 + ("b",) * 5)
    masked.masks[5:] = False
    assert {len(each.maps) for each in learn_maps(masked, normal(), 5)} == {COUNT}


@pytest.mark.parametrize(
    ("masked", "sound", "fewest"),
    [
        (drawn(), normal(), 0),
        (drawn(), normal(), COUNT + 1),
        (drawn(("a",)), normal(), 1),
        (covered(False), normal(), 1),
        (covered(True), normal(0), 1),
    ],
    ids=["switched off", "too few", "nothing left to learn from", "no patch covered", "no patch sound"],
)
def test_too_little_teaches_nothing(masked: MaskedImages, sound: tuple[Tensor, ...], fewest: int) -> None:
    assert learn_maps(masked, sound, fewest) == []


def test_without_normals_sound_places_of_masked_images_teach() -> None:
    masked = drawn()
    assert shows(first(learn_maps(masked, normal(0), COUNT)).maps[:COUNT], masked) > 0.95


@pytest.mark.parametrize("sound", [normal(), ()], ids=["with normals", "without"])
def test_fine_grids_teach_by_evenly_spread_sound_places(
    sound: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = drawn()
    many = first(learn_maps(masked, sound, COUNT)).evidence
    monkeypatch.setattr(patch_lessons, "MOST_SOUND", GRID * GRID // 4)
    few = first(learn_maps(masked, sound, COUNT))
    assert torch.equal(few.evidence.centre, many.centre)
    assert not torch.equal(few.evidence.discriminant.weight, many.discriminant.weight)
    assert shows(few.maps[:COUNT], masked) > 0.9


@pytest.mark.parametrize(("unseen", "chosen"), [(0.8, "patches"), (0.0, "appearance")])
def test_a_learned_map_is_shown_only_if_it_shows_types_not_learned_from_too(
    unseen: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked, random = drawn(), torch.Generator().manual_seed(2)
    noise = torch.rand(4, COUNT, SIDE, SIDE, generator=random)
    appearance = ShownMap(appearance_candidate(0.1), noise[0] + 0.5 * masked.masks)
    by_image, by_type = noise[1] + 0.8 * masked.masks, noise[2] + unseen * masked.masks
    [taught, *_] = learn_maps(masked, normal(), COUNT)
    learned = ShownMap(patch_candidate(0.1), torch.cat([by_image, by_type]), taught)
    monkeypatch.setattr(localisation, "statistic_maps", lambda *_: torch.zeros(1))
    explainer: Any = SimpleNamespace(explain=lambda *_: None)
    grid: Any = SimpleNamespace(smoothing=(), computed=())
    shown = best_map(explainer, grid, {}, "layer1", masked, [appearance, learned])
    assert shown.candidate.target == chosen


def test_the_share_of_novelty_in_the_hybrid_map_counts_every_way_to_learn() -> None:
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2:4, 2:4] = True
    noise = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    known = masks * 0.6 + noise[0]
    seen, unseen = masks * 2 + noise[1], noise[1]
    assert map_weight(known, seen, masks) == map_weight(known, torch.cat([seen, seen]), masks)
    assert map_weight(known, torch.cat([seen, unseen]), masks) < map_weight(known, seen, masks)
