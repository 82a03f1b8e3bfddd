"""Updated banks against brute force: what they cover, what a rebuild covers, and what removal leaves."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.bank_updates import add_images, refit_usual, remove_images
from novad.vision.coreset import greedy_coreset
from novad.vision.memory_bank import MemoryBank, fit_memory_bank, load_bank, save_bank
from novad.vision.patch_store import Whitening
from novad.vision.usual_distances import fit_usual_distances

CHANNELS, HEIGHT, WIDTH = 4, 3, 5
SLACK = 1 + 1e-3


def grids(images: int, seed: int, spread: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(CHANNELS, HEIGHT, WIDTH, generator=generator) for _ in range(images)]


def built(source: list[Tensor], vectors: int) -> MemoryBank:
    return fit_memory_bank(
        iter(source),
        len(source),
        coreset_share=0.0,
        min_vectors=vectors,
        max_vectors=vectors,
        dimensions=0,
        whiten=1.0,
    )


def mapped(bank: MemoryBank, source: list[Tensor]) -> Tensor:
    """(n, D) patches in the bank's space, image after image."""
    return torch.cat([bank.whitening(grid.reshape(CHANNELS, -1).T.half()).half().float() for grid in source])


def reach(patches: Tensor, vectors: Tensor) -> float:
    """Covering radius by brute force."""
    return float(torch.cdist(patches, vectors).amin(1).max())


scenes = given(
    old=st.integers(2, 5),
    new=st.integers(1, 4),
    vectors=st.integers(2, 25),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.5, 1.0, 3.0]),
)


def test_a_built_bank_knows_how_far_its_patches_are() -> None:
    source = grids(6, seed=1)
    bank = built(source, 20)
    assert bank.radius == pytest.approx(reach(mapped(bank, source), bank.vectors), rel=1e-3)
    assert built(source, 6 * HEIGHT * WIDTH).radius == 0


@settings(max_examples=40, deadline=None)
@scenes
def test_old_and_new_patches_are_covered_and_no_vector_is_wasted(
    old: int, new: int, vectors: int, seed: int, spread: float
) -> None:
    source, added = grids(old, seed), grids(new, seed + 1, spread)
    bank = built(source, vectors)
    updated = add_images(bank, added, old)
    assert bank.radius is not None
    assert updated.radius == bank.radius
    assert reach(mapped(bank, source + added), updated.vectors) <= bank.radius * SLACK
    assert torch.equal(updated.vectors[: len(bank.vectors)], bank.vectors)
    between = torch.cdist(updated.vectors, updated.vectors) + torch.diag(
        torch.full((len(updated.vectors),), 1e9)
    )
    assert (
        between[len(bank.vectors) :].numel() == 0 or between[len(bank.vectors) :].min() * SLACK > bank.radius
    )


@settings(max_examples=40, deadline=None)
@scenes
def test_a_rebuild_of_fewer_vectors_covers_at_most_twice_as_closely(
    old: int, new: int, vectors: int, seed: int, spread: float
) -> None:
    source, added = grids(old, seed), grids(new, seed + 1, spread)
    updated = add_images(built(source, vectors), added, old)
    patches = mapped(updated, source + added)
    rebuilt = greedy_coreset(patches, len(updated.vectors) - 1, centres_per_pass=1)
    assert reach(patches, updated.vectors) <= 2 * rebuilt.radius * SLACK


@settings(max_examples=15, deadline=None)
@given(vectors=st.integers(2, 3), seed=st.integers(0, 1000))
def test_even_the_best_smaller_bank_covers_at_most_twice_as_closely(vectors: int, seed: int) -> None:
    """Every choice of one vector fewer, of all patches, is tried."""
    source, added = grids(2, seed), grids(1, seed + 1)
    bank = built(source, vectors)
    updated = add_images(bank, [grid[:, :1, :2] for grid in added], 2)
    patches = torch.cat([mapped(bank, source), mapped(bank, [grid[:, :1, :2] for grid in added])])
    smaller = torch.tensor(list(combinations(range(len(patches)), len(updated.vectors) - 1)))
    best = torch.cdist(patches, patches)[smaller].amin(1).amax(1).min()
    assert reach(patches, updated.vectors) <= 2 * float(best) * SLACK


@settings(max_examples=40, deadline=None)
@scenes
def test_nearest_distances_differ_from_a_rebuild_by_no_more_than_the_larger_radius(
    old: int, new: int, vectors: int, seed: int, spread: float
) -> None:
    source, added = grids(old, seed), grids(new, seed + 1, spread)
    updated = add_images(built(source, vectors), added, old)
    patches = mapped(updated, source + added)
    rebuilt = greedy_coreset(patches, vectors)
    queries = mapped(updated, grids(2, seed + 2, 2 * spread))
    ours, theirs = torch.cdist(queries, updated.vectors), torch.cdist(queries, patches[rebuilt.chosen])
    assert updated.radius is not None
    apart = ours.amin(1) - theirs.amin(1)
    assert float(apart.max()) <= updated.radius * SLACK
    assert float(-apart.min()) <= rebuilt.radius * SLACK


@settings(max_examples=40, deadline=None)
@scenes
def test_a_removed_image_leaves_no_vector_and_the_others_stay_covered(
    old: int, new: int, vectors: int, seed: int, spread: float
) -> None:
    source = grids(old, seed) + grids(new, seed + 1, spread)
    bank = built(source, vectors)
    out = int(bank.origins[-1, 0])
    stay = {number: grid for number, grid in enumerate(source) if number != out}
    assume((bank.origins[:, 0] != out).any())
    covered, bare = remove_images(bank, [out], stay), remove_images(bank, [out])
    patches = mapped(bank, list(stay.values()))
    assert out not in covered.origins[:, 0]
    assert covered.radius == bank.radius
    assert reach(patches, covered.vectors) <= covered.radius * SLACK
    assert torch.equal(bare.vectors, bank.vectors[torch.from_numpy(bank.origins[:, 0] != out)])
    assert reach(patches, bare.vectors) <= bare.radius * SLACK


def test_a_known_radius_saves_searching_and_changes_nothing() -> None:
    source = grids(6, seed=3)
    bank, stay = built(source, 25), {number: grid for number, grid in enumerate(source) if number != 2}
    unknown = MemoryBank(bank.whitening, bank.vectors, bank.origins, bank.usual)
    by_promise, by_search = remove_images(bank, [2], stay), remove_images(unknown, [2], stay, bank.radius)
    assert np.array_equal(by_promise.origins, by_search.origins)
    assert len(by_promise.vectors) > (bank.origins[:, 0] != 2).sum()


def test_removal_may_cover_what_stays_more_closely_than_before() -> None:
    source = grids(6, seed=3)
    bank, stay = built(source, 25), {number: grid for number, grid in enumerate(source) if number != 2}
    assert bank.radius is not None
    closer = remove_images(bank, [2], stay, radius=bank.radius / 2)
    assert reach(mapped(bank, list(stay.values())), closer.vectors) <= bank.radius / 2 * SLACK
    assert closer.radius == bank.radius / 2


def test_no_bound_is_lost_where_nothing_is_removed_or_new() -> None:
    source = grids(5, seed=3)
    bank = built(source, 20)
    for same in (
        remove_images(bank, [99]),
        remove_images(bank, [99], dict(enumerate(source))),
        add_images(bank, source, 5),
    ):
        assert torch.equal(same.vectors, bank.vectors)
        assert same.radius == bank.radius


def test_the_bound_of_a_bare_removal_is_reached() -> None:
    """The patch at 12 was 2 from the vector at 10; the vector left is at 0."""
    identity = Whitening(torch.zeros(1), torch.eye(1))
    vectors, origins = torch.tensor([[0.0], [10.0]]), np.array([[0, 0, 0], [1, 0, 0]], np.int32)
    bare = remove_images(MemoryBank(identity, vectors, origins, radius=2.0), [1])
    assert bare.radius == float(bare.search(torch.full((1, 1, 1, 1), 12.0))[0]) == 12.0


def test_new_vectors_carry_their_image_and_place() -> None:
    source, added = grids(4, seed=5), grids(3, seed=6, spread=3.0)
    updated = add_images(built(source, 15), added, 4)
    fresh = updated.origins[15:]
    assert set(fresh[:, 0].tolist()) == {4, 5, 6}
    for vector, (image, row, column) in zip(updated.vectors[15:], fresh, strict=True):
        patch = updated.whitening(added[image - 4][:, row, column].half())
        assert torch.allclose(vector, patch, atol=0.01)


def test_after_removal_usual_distances_are_those_of_the_images_that_stay() -> None:
    source = grids(5, seed=7)
    stay = dict(enumerate(source[:4]))
    updated = remove_images(built(source, 30), [4], stay)
    distances = torch.cdist(mapped(updated, source[:4]), updated.vectors)
    owners = np.repeat(np.arange(4), HEIGHT * WIDTH)
    distances[torch.from_numpy(updated.origins[:, 0] == owners[:, None])] = torch.inf
    rows = torch.arange(HEIGHT).repeat_interleave(WIDTH).repeat(4)
    columns = torch.arange(WIDTH).repeat(HEIGHT * 4)
    expected = fit_usual_distances(distances.amin(1), rows, columns, (HEIGHT, WIDTH))
    assert updated.usual is not None
    for name, moments in vars(expected).items():
        assert torch.allclose(getattr(updated.usual, name), moments, atol=1e-3)


def test_without_the_remaining_patches_and_on_adding_usual_distances_are_kept() -> None:
    bank = built(grids(5, seed=7), 30)
    assert remove_images(bank, [4]).usual is bank.usual
    assert add_images(bank, grids(1, seed=8), 5).usual is bank.usual
    unmeasured = MemoryBank(bank.whitening, bank.vectors, bank.origins, radius=bank.radius)
    assert remove_images(unmeasured, [4], dict(enumerate(grids(4, seed=7)))).usual is None


@pytest.mark.parametrize(
    "update",
    [
        lambda bank: add_images(bank, grids(3, seed=9, spread=2.0), 6),
        lambda bank: remove_images(bank, [1, 2], {n: grids(6, seed=2)[n] for n in (0, 3, 4, 5)}),
        lambda bank: remove_images(bank, [1]),
    ],
    ids=["added", "removed and covered", "removed"],
)
def test_the_same_update_is_the_same_bytes(
    update: Callable[[MemoryBank], MemoryBank], tmp_path: Path
) -> None:
    bank = built(grids(6, seed=2), 25)
    save_bank(bank, tmp_path / "before")
    for name in ("first", "second"):
        save_bank(update(load_bank(tmp_path / "before")), tmp_path / name)
    save_bank(update(bank), tmp_path / "unsaved")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert (tmp_path / "first").read_bytes() == (tmp_path / "unsaved").read_bytes()
    assert (tmp_path / "first").read_bytes() != (tmp_path / "before").read_bytes()


def test_a_bank_saved_before_radii_were_known_loads_and_asks_for_one(tmp_path: Path) -> None:
    source = grids(5, seed=1)
    save_bank(built(source, 20), tmp_path / "new")
    save_file({n: each for n, each in load_file(tmp_path / "new").items() if n != "radius"}, tmp_path / "old")
    old = load_bank(tmp_path / "old")
    assert old.radius is None
    assert remove_images(old, [0]).radius is None
    with pytest.raises(CalibrationError, match="covering radius"):
        add_images(old, grids(1, seed=2), 5)
    with pytest.raises(CalibrationError, match="covering radius"):
        remove_images(old, [0], {1: source[1]})
    updated = add_images(old, grids(2, seed=2, spread=3.0), 5, radius=1.0)
    assert updated.radius == 1.0
    assert reach(mapped(old, grids(2, seed=2, spread=3.0)), updated.vectors) <= SLACK


def test_a_smaller_radius_covers_the_new_more_closely_and_promises_no_more_of_the_old() -> None:
    bank, added = built(grids(5, seed=1), 10), grids(2, seed=4)
    updated = add_images(bank, added, 5, radius=0.5)
    assert reach(mapped(bank, added), updated.vectors) <= 0.5 * SLACK
    assert updated.radius == bank.radius


def test_what_does_not_fit_is_refused_by_name() -> None:
    source = grids(3, seed=1)
    bank = built(source, 20)
    with pytest.raises(CalibrationError, match="up to number 2"):
        add_images(bank, source, 2)
    with pytest.raises(CalibrationError, match=r"image 8.*not finite"):
        add_images(bank, [source[0], torch.full((CHANNELS, HEIGHT, WIDTH), torch.nan)], 7)
    with pytest.raises(CalibrationError, match="image 3: 2 features"):
        add_images(bank, [source[0][:2]], 3)
    with pytest.raises(CalibrationError, match="no vector is left"):
        remove_images(bank, [0, 1, 2])
    with pytest.raises(CalibrationError, match="image 1 is to be removed"):
        remove_images(bank, [1], dict(enumerate(source)))
    with pytest.raises(CalibrationError, match="no normal image"):
        refit_usual(bank, {})
