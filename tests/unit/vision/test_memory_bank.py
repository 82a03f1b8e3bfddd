"""The memory bank against brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch

from novad.errors import CalibrationError
from novad.vision.memory_bank import (
    MemoryBank,
    estimate,
    fit_memory_bank,
    load_bank,
    save_bank,
)
from novad.vision.patch_store import PatchStore, Whitening

OPTIONS = {"coreset_share": 0.1, "min_vectors": 20, "max_vectors": 1000, "dimensions": 0, "whiten": 1.0}


def grids(images: int = 12, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(5, 5, generator=generator)
    return [
        torch.einsum("cd,dhw->chw", mixing, torch.randn(5, 6, 7, generator=generator)) + 3
        for _ in range(images)
    ]


def test_distances_and_neighbours_equal_brute_force() -> None:
    bank = fit_memory_bank(iter(grids()), 12, **OPTIONS)
    query = torch.stack(grids(3, seed=9))
    distances, nearest = bank.search(bank.patches(query))
    mapped = bank.whitening(query.permute(0, 2, 3, 1).reshape(-1, 5))
    brute = torch.cdist(mapped, bank.vectors)
    assert torch.allclose(distances.reshape(-1), brute.amin(1), atol=1e-3)
    assert nearest.reshape(-1).tolist() == brute.argmin(1).tolist()


def test_several_neighbours_are_averaged() -> None:
    bank = fit_memory_bank(iter(grids()), 12, **OPTIONS)
    query = torch.stack(grids(1, seed=9))
    brute = torch.cdist(bank.whitening(query.permute(0, 2, 3, 1).reshape(-1, 5)), bank.vectors)
    expected = brute.topk(3, largest=False).values.mean(1)
    assert torch.allclose(bank.search(bank.patches(query), 3)[0].reshape(-1), expected, atol=1e-3)


def test_the_nearest_foreign_vector_is_of_another_image() -> None:
    source = grids()
    bank = fit_memory_bank(iter(source), 12, **OPTIONS)
    patches = bank.whitening(torch.cat([grid.reshape(5, -1).T for grid in source]))
    images = np.repeat(np.arange(12, dtype=np.int32), 42)
    images[:42] = -1
    brute = torch.cdist(patches, bank.vectors)
    brute[torch.from_numpy(bank.origins[:, 0] == images[:, None])] = torch.inf
    distances, places = bank.nearest_foreign(patches, images)
    assert np.allclose(distances, brute.amin(1).numpy(), atol=1e-3)
    assert places.tolist() == brute.argmin(1).tolist()


@pytest.mark.parametrize("images", [1, 2, 3])
def test_a_patch_amid_many_vectors_of_its_own_image_finds_the_nearest_foreign_one(images: int) -> None:
    """With few images all vectors that are searched may be of one."""
    vectors = torch.cat(
        [torch.randn(100, 4, generator=torch.Generator().manual_seed(at)) for at in range(images)]
    )
    vectors += torch.arange(images).repeat_interleave(100)[:, None] * 5.0
    origins = np.zeros((len(vectors), 3), np.int32)
    origins[:, 0] = np.arange(images).repeat(100)
    bank = MemoryBank(Whitening(torch.zeros(4), torch.eye(4)), vectors, origins)
    distances, places = bank.nearest_foreign(vectors, origins[:, 0])
    between = torch.cdist(vectors, vectors)
    if images == 1:
        np.testing.assert_allclose(distances, 0, atol=1e-3)
        return
    between[torch.from_numpy(origins[:, 0, None] == origins[:, 0])] = torch.inf
    np.testing.assert_allclose(distances, between.amin(1), rtol=1e-4)
    np.testing.assert_array_equal(places, between.argmin(1))


def test_a_bank_knows_what_distance_is_usual_at_each_place() -> None:
    """Only the middle column varies: there any distance is usual, elsewhere it is not."""
    generator = torch.Generator().manual_seed(2)
    source = [torch.ones(3, 4, 5) for _ in range(64)]
    for grid in source:
        grid[:, :, 2] += 3 * torch.randn(3, 4, generator=generator)
    bank = fit_memory_bank(iter(source), 64, **OPTIONS | {"whiten": 0.0})
    assert bank.usual is not None
    assert bank.usual.mean[:, 2].min() > 2 * bank.usual.mean[:, [0, 4]].max()
    placed = bank.usual(torch.ones(1, 4, 5))
    assert placed[0, :, 2].max() < placed[0, :, [0, 4]].min()


def test_every_vector_knows_the_patch_it_came_from() -> None:
    source = grids()
    bank = fit_memory_bank(iter(source), 12, **OPTIONS)
    for vector, (image, row, column) in zip(bank.vectors, bank.origins, strict=True):
        patch = bank.whitening(source[image][:, row, column][None].half())[0]
        assert torch.allclose(vector, patch, atol=0.05)


@pytest.mark.parametrize("whiten", [0.0, 0.5, 0.8, 1.0])
def test_whitening_brings_the_variances_of_principal_directions_to_a_power(whiten: float) -> None:
    """1 gives unit variance along every direction."""
    store = PatchStore(12, (6, 7), 10_000)
    source = grids()
    for number, grid in enumerate(source):
        store.add(number, grid)
    patches = torch.cat([grid.reshape(5, -1).T for grid in source])
    variances = torch.linalg.eigvalsh(torch.cov(patches.T, correction=0)).flip(0)
    assert variances[0] > 2 * variances[-1]
    mapped = store.whitening(0, whiten, shrinkage=0.0)(patches)
    expected = torch.diag(variances.pow(1 - whiten))
    assert torch.allclose(torch.cov(mapped.T, correction=0), expected, rtol=1e-3, atol=1e-3)
    assert mapped.mean(0).abs().max() < 1e-3


def test_without_whitening_distances_are_those_of_the_features() -> None:
    store = PatchStore(12, (6, 7), 10_000)
    source = grids()
    for number, grid in enumerate(source):
        store.add(number, grid)
    patches = torch.cat([grid.reshape(5, -1).T for grid in source])[:50]
    mapped = store.whitening(0, whiten=0.0)(patches)
    assert torch.allclose(torch.pdist(mapped), torch.pdist(patches), atol=1e-3)


def test_a_store_keeps_no_more_patches_than_allowed() -> None:
    store = PatchStore(40, (6, 7), 100)
    for number, grid in enumerate(grids(40)):
        store.add(number, grid)
    kept = len(store.origins())
    assert 80 <= kept <= 100 + 40
    assert len(set(store.origins()[:, 0].tolist())) > 30


def test_of_more_images_than_patches_are_kept_some_give_none() -> None:
    bank = fit_memory_bank(iter(grids(300)), 300, **OPTIONS, max_patches=100)
    # Every 126th position, shifted by one from image to image; an image has 42.
    expected = [(image, image % 126) for image in range(300) if image % 126 < 42]
    images, rows, columns = bank.origins.T
    assert sorted(zip(images.tolist(), (rows * 7 + columns).tolist(), strict=True)) == expected
    assert bank.radius == 0


def test_two_builds_are_byte_identical(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_bank(fit_memory_bank(iter(grids()), 12, **OPTIONS), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_saved_bank_answers_alike(tmp_path: Path) -> None:
    bank = fit_memory_bank(iter(grids()), 12, **OPTIONS)
    save_bank(bank, tmp_path / "bank.safetensors")
    again = load_bank(tmp_path / "bank.safetensors")
    query = torch.stack(grids(2, seed=4))
    assert torch.equal(bank.search(bank.patches(query))[0], again.search(again.patches(query))[0])
    assert np.array_equal(bank.origins, again.origins)


def test_no_image_and_broken_features_are_refused() -> None:
    with pytest.raises(CalibrationError, match="no normal image"):
        fit_memory_bank(iter([]), 0, **OPTIONS)
    with pytest.raises(CalibrationError, match=r"image 1.*not finite"):
        fit_memory_bank(iter([grids()[0], torch.full((5, 6, 7), float("nan"))]), 2, **OPTIONS)


def test_the_estimate_counts_what_will_be_kept() -> None:
    told = estimate(1000, (28, 28), 240, 64, 7840, 400_000)
    assert told.patches == 400_000
    assert told.vectors == 7840
    assert 400_000 * (240 + 64) * 2 / 2**20 < told.megabytes < 400_000 * 240 * 4 / 2**20
    larger = estimate(1000, (28, 28), 240, 64, 107_840, 400_000)
    assert larger.megabytes - told.megabytes == pytest.approx(100_000 * 64 * 4 * 2 / 2**20, abs=0.2)
    assert estimate(1000, (28, 28), 240, 0, 7840, 400_000).megabytes > 1.5 * told.megabytes


def test_the_kept_patches_are_those_of_every_step_and_more_than_told_are_refused() -> None:
    source = grids(9)
    store = PatchStore(9, (6, 7), 50)
    for number, grid in enumerate(source):
        store.add(number, grid)
    assert store.step == 8
    images, rows, columns = store.origins().T
    expected = [(n, at) for n in range(9) for at in range(n % 8, 42, 8)]
    assert list(zip(images.tolist(), (rows * 7 + columns).tolist(), strict=True)) == expected
    assert torch.equal(
        torch.cat([patches for patches, _ in store]),
        torch.stack([source[n].reshape(5, -1).T[at].half() for n, at in expected]),
    )
    store = PatchStore(2, (6, 7), 100)
    store.add(0, source[0])
    assert len(store.origins()) == len(next(iter(store))[0]) == 42
    store = PatchStore(1, (6, 7), 100)
    store.add(0, source[0])
    with pytest.raises(CalibrationError, match=r"image 1.*told of fewer"):
        store.add(1, source[1])


def test_a_vector_of_the_bank_is_perfectly_familiar() -> None:
    whitening = Whitening(torch.zeros(3), torch.eye(3))
    bank = MemoryBank(whitening, torch.tensor([[1.0, 2, 3], [4, 5, 6]]), np.zeros((2, 3), np.int32))
    distances, nearest = bank.search(bank.patches(torch.tensor([4.0, 5, 6]).reshape(1, 3, 1, 1)))
    assert float(distances) == 0
    assert nearest.tolist() == [[[1]]]
