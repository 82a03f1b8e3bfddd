"""Suspicion: laws of the ranking of bank images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from novad.vision.memory_bank import MemoryBank, build_bank, save_bank
from novad.vision.patch_store import PatchStore, store_patches
from novad.vision.pooling import smooth, top_means
from novad.vision.suspicion import Suspicions, guarded, suspicions


def _grids(images: int = 12, odd: int | None = None) -> list[torch.Tensor]:
    drawn = torch.randn(images, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    if odd is not None:
        drawn[odd, :, 2, 3] += 30.0
    return list(drawn)


OPTIONS = {"coreset_share": 0.01, "dimensions": 0, "whiten": 1.0, "seed": 0}


def _store(grids: list[torch.Tensor], most: int = 10_000) -> PatchStore:
    return store_patches(grids, len(grids), most)


def _build(store: PatchStore, vectors: int = 60) -> MemoryBank:
    return build_bank(store, min_vectors=vectors, max_vectors=vectors, **OPTIONS)


def _suspicions(grids: list[torch.Tensor], smoothing: float = 0.0, most: int = 10_000) -> Suspicions:
    store = _store(grids, most)
    return suspicions(_build(store), store, 0.01, smoothing)


@pytest.mark.parametrize("odd", [0, 5, 11])
def test_image_with_an_odd_spot_ranks_first_and_its_spot_is_named(odd: int) -> None:
    found = _suspicions(_grids(odd=odd))
    assert found.ranking()[0] == odd
    assert found.places[odd].tolist() == [2, 3]
    assert found.nearest[odd] != odd


def test_an_image_never_vouches_for_itself() -> None:
    grids = _grids(4, odd=2)
    store = _store(grids)
    bank = _build(store, 1000)
    bank.usual = None
    found = suspicions(bank, store, 0.01, 0.0)
    flat = [bank.whitening(grid.reshape(6, -1).T) for grid in grids]
    for image, patches in enumerate(flat):
        others = torch.cat([each for at, each in enumerate(flat) if at != image])
        expected = torch.cdist(patches, others).amin(1).max()
        assert found.distances[image] == pytest.approx(float(expected), rel=0.01)


def test_an_image_of_which_no_patch_was_kept_is_not_suspected() -> None:
    grids = _grids(60, odd=20)
    store = _store(grids, most=30)
    kept = set(store.origins()[:, 0].tolist())
    assert 0 < len(kept) < 60
    found = guarded(store, _build, 0.0, 0.01, 0.0).suspicions
    unseen = [image for image in range(60) if image not in kept]
    assert found.distances[unseen].tolist() == [0.0] * len(unseen)
    assert found.nearest[unseen].tolist() == unseen
    assert found.ranking()[0] in kept


def test_a_single_image_has_nothing_to_be_suspected_against() -> None:
    found = _suspicions(_grids(1))
    assert found.scores.tolist() == [0.0]
    assert found.nearest.tolist() == [0]


def test_share_of_the_most_suspicious_rounds_down() -> None:
    found = _suspicions(_grids(12, odd=7))
    assert found.most(0.0).tolist() == []
    assert found.most(0.05).tolist() == []
    assert found.most(0.1).tolist() == [7]
    assert len(found.most(0.2)) == 2


def test_equal_banks_give_equal_suspicions() -> None:
    first, second = _suspicions(_grids(), smoothing=1.0), _suspicions(_grids(), smoothing=1.0)
    np.testing.assert_array_equal(first.distances, second.distances)


def test_scores_are_robust_z_which_an_odd_image_hardly_moves() -> None:
    found = _suspicions(_grids(odd=7))
    spread = median_abs_deviation(found.distances, scale="normal")
    np.testing.assert_allclose(
        found.scores, (found.distances - np.median(found.distances)) / spread, rtol=1e-4
    )


def test_where_every_patch_was_kept_the_score_is_familiarity_to_the_others() -> None:
    """Brute force with the bank's own usual distances and the smoothing of familiarity."""
    grids = _grids(6, odd=1)
    store = _store(grids)
    bank = _build(store)
    found = suspicions(bank, store, 0.05, 1.0)
    for image, grid in enumerate(grids):
        others = bank.vectors[torch.from_numpy(bank.origins[:, 0] != image)]
        raw = torch.cdist(bank.whitening(grid.reshape(6, -1).T), others).amin(1).reshape(1, 5, 7)
        assert bank.usual is not None
        expected = top_means(smooth(bank.usual(raw)[:, None], 1.0)[:, 0], [0.05])
        assert found.distances[image] == pytest.approx(float(expected), rel=0.02)


def test_patches_are_compared_by_blocks_to_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    grids = _grids(6, odd=1)
    whole = _suspicions(grids, 1.0)
    monkeypatch.setattr("novad.vision.memory_bank.SEARCH_BLOCK", 8)
    parted = _suspicions(grids, 1.0)
    np.testing.assert_allclose(parted.distances, whole.distances, rtol=1e-5)
    np.testing.assert_array_equal(parted.nearest, whole.nearest)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_a_share_of_the_patches_is_enough_to_find_an_odd_image(smoothing: float) -> None:
    grids = _grids(12)
    grids[4][:, 1:4, 2:6] += 30.0
    found = _suspicions(grids, smoothing, most=140)
    assert found.ranking()[0] == 4
    row, column = found.places[4]
    assert 1 <= row < 4
    assert 2 <= column < 6
    assert np.isfinite(found.distances).all()


def test_places_that_were_not_kept_are_left_out_of_the_blur() -> None:
    """Equal distances everywhere stay equal, however few places have one."""
    store = _store([torch.full((6, 5, 7), float(image)) for image in range(4)], 70)
    assert store.step == 2
    bank = _build(store, 1000)
    bank.usual = None
    plain, blurred = (suspicions(bank, store, 0.05, sigma).distances for sigma in (0.0, 2.0))
    np.testing.assert_allclose(blurred, plain, rtol=1e-5)


def test_without_a_share_nothing_is_left_out_and_the_bank_is_the_plain_one(tmp_path: Path) -> None:
    store = _store(_grids(odd=7))
    found = guarded(store, _build, 0.0, 0.01, 0.0)
    assert found.excluded.tolist() == []
    save_bank(found.bank, tmp_path / "guarded")
    save_bank(_build(_store(_grids(odd=7))), tmp_path / "plain")
    assert (tmp_path / "guarded").read_bytes() == (tmp_path / "plain").read_bytes()


def test_a_bank_that_leaves_images_out_is_the_bank_of_the_others() -> None:
    grids = _grids(odd=7)
    found = guarded(_store(grids), _build, 0.1, 0.01, 0.0)
    others = _build(_store([*grids[:7], *grids[8:]]))
    assert found.excluded.tolist() == [7]
    assert len(found.suspicions.scores) == 12
    # Sums run over patches that were rounded to half precision: equal but for that.
    torch.testing.assert_close(found.bank.whitening.mean, others.whitening.mean, rtol=0, atol=1e-3)
    covered = (each.whitening.matrix @ each.whitening.matrix.T for each in (found.bank, others))
    torch.testing.assert_close(*covered, rtol=1e-2, atol=1e-2)
    query = torch.stack(_grids(3)) + 0.5
    torch.testing.assert_close(
        found.bank.search(found.bank.patches(query))[0],
        others.search(others.patches(query))[0],
        rtol=0.2,
        atol=0.2,
    )
    assert found.bank.origins[:, 0].max() == 10
    for vector, (image, row, column) in zip(found.bank.vectors, found.bank.origins, strict=True):
        patch = [*grids[:7], *grids[8:]][image][:, row, column]
        torch.testing.assert_close(vector, found.bank.whitening(patch[None])[0], rtol=0, atol=0.02)


def test_a_store_without_images_leaves_the_store_itself_as_it_was() -> None:
    store = _store(_grids())
    before = store.whitening(0, whiten=1.0).matrix
    assert len(store.without([0, 5])) == 10
    assert len(store) == 12
    assert torch.equal(store.whitening(0, whiten=1.0).matrix, before)
