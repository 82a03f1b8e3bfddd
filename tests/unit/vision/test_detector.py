"""The detector: same verdict saved and loaded, alone and in company, and refusal of changed files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from novad.benchmarking.scoring_cost import _scorer
from novad.errors import CalibrationError, ImageError, IntegrityError
from novad.vision import Detector, detector_files
from novad.vision.appearance import (
    AppearanceNovelty,
    appearance,
    appearance_candidate,
    fit_appearance_novelty,
)
from novad.vision.backbones import file_sha256
from novad.vision.detector_files import Calibration, load_novelty, save_novelty
from novad.vision.evidence import Evidence
from novad.vision.explainers import Memory
from novad.vision.familiarity import feature_grids
from novad.vision.maps import fit_map_scale, fuse_maps
from novad.vision.memory_bank import load_bank
from novad.vision.models import raw_scores
from novad.vision.novelty import Candidate
from novad.vision.patch_evidence import (
    Discriminant,
    PatchEvidence,
    patch_candidate,
    patch_deviations,
)
from novad.vision.places import moved_back
from novad.vision.pooling import top_means
from novad.vision.preprocess import to_batch
from novad.vision.residuals import FIGURES, residual_deviations
from novad.vision.synthetic import SYNTHETIC_TYPES, synthetic_anomaly

SIZE = 64  # of `saved`


def test_scores_do_not_depend_on_the_batch(saved: Path, pictures: Any) -> None:
    detector = Detector.load(saved)
    whole = list(detector.score(pictures, 8))
    single = list(detector.score(pictures, 1))
    for first, second in zip(whole, single, strict=True):
        assert first.hybrid == pytest.approx(second.hybrid, abs=1e-3)
        assert first.nearest.image == second.nearest.image


def test_what_is_no_image_is_named_by_its_place_among_all(saved: Path, pictures: Any) -> None:
    stream = [*pictures, *pictures, pictures[0][..., 0]]
    judged = Detector.load(saved).score(stream, 4)
    with pytest.raises(ImageError, match=rf"^image {2 * len(pictures)}: expected"):
        list(judged)


def test_a_displaced_network_changes_where_familiarity_is_drawn_and_nothing_else(
    saved: Path, pictures: Any
) -> None:
    plain, displaced = Detector.load(saved), Detector.load(saved)
    by = torch.tensor([0.1, -0.2])
    displaced.familiarity.bank.displacement = by
    for before, after in zip(plain.score(pictures), displaced.score(pictures), strict=True):
        assert (before.hybrid, before.nearest) == (after.hybrid, after.nearest)
        old, new = (each.coarse_maps["familiarity"] for each in (before, after))
        expected = moved_back(torch.from_numpy(old)[None], by)[0].numpy()
        # Moved on its own grid and then laid on the finer one of both maps: nearly the same.
        assert np.abs(new - expected).mean() < 0.2 * np.abs(new - old).mean()
        np.testing.assert_array_equal(after.coarse_maps["novelty"], before.coarse_maps["novelty"])


def test_hybrid_is_the_weighted_sum_and_decides(saved: Path, pictures: Any) -> None:
    detector = Detector.load(saved)
    for result in detector.score(pictures):
        assert result.hybrid == pytest.approx(0.75 * result.familiarity + 0.25 * result.novelty)
        expected = "FAIL" if result.hybrid > 2 else "REVIEW" if result.hybrid > 1 else "PASS"
        assert result.decision == expected
        at_least = sum(each >= result.hybrid for each in (0.0, 0.5, 1.0))
        assert result.p_value == pytest.approx((1 + at_least) / 4)


def test_maps_have_the_size_of_the_image_and_fuse_by_their_own_weight(saved: Path, pictures: Any) -> None:
    detector = Detector.load(saved)
    wide = np.repeat(pictures[0], 2, axis=1)
    result = next(detector.score([wide]))
    assert result.familiarity_map.shape == result.novelty_map.shape == wide.shape[:2]
    fused = 0.25 * result.familiarity_map + 0.75 * result.novelty_map
    assert np.allclose(result.hybrid_map, fused, atol=1e-4)


def test_the_nearest_normal_image_of_a_training_image_is_itself(saved: Path, pictures: Any) -> None:
    detector = Detector.load(saved)
    vectors = detector.familiarity.bank.origins[:, 0]
    for number, result in enumerate(detector.score(pictures)):
        assert result.nearest.sha256 == f"{int(result.nearest.image[6:-4]):064x}"
        if (vectors == number).any():
            grids = detector.familiarity.backbone(to_batch([pictures[number]], SIZE))
            raw = replace(detector.familiarity, smoothing=0.0).score(grids).distances
            assert float(raw.min()) < 0.1


def test_a_detector_with_a_tile_scores_as_one_without(saved: Path, tmp_path: Path, pictures: Any) -> None:
    copy = _copy(saved, tmp_path)
    manifest = json.loads((copy / "detector.json").read_text("utf-8"))
    for network in ("backbone", "explainer"):
        manifest[network]["tile"] = 32
    (copy / "detector.json").write_text(json.dumps(manifest), "utf-8")
    tiled, whole = Detector.load(copy), Detector.load(saved)
    assert whole.familiarity.backbone.tiling is None
    assert tiled.familiarity.backbone.tiling.side == 32
    assert tiled.novelty.explainer.backbone is tiled.familiarity.backbone
    for mine, theirs in zip(tiled.score(pictures), whole.score(pictures), strict=True):
        assert mine.hybrid == pytest.approx(theirs.hybrid, abs=1e-3)
        assert np.allclose(mine.hybrid_map, theirs.hybrid_map, atol=1e-3)
    manifest["explainer"]["tile"] = 64
    (copy / "detector.json").write_text(json.dumps(manifest), "utf-8")
    parted = Detector.load(copy)
    assert parted.novelty.explainer.backbone.tiling.side == 64
    assert parted.familiarity.backbone.tiling.side == 32


def test_a_detector_averages_features_as_it_was_told(saved: Path, tmp_path: Path, pictures: Any) -> None:
    """Those of before say nothing of it and average over 3 x 3; its memory does as it does."""
    assert Detector.load(saved).familiarity.neighbourhood == 3
    copy = _copy(saved, tmp_path)
    manifest = json.loads((copy / "detector.json").read_text("utf-8"))
    manifest["familiarity"] |= {"neighbourhood": 1, "smoothing": 0.0}
    (copy / "detector.json").write_text(json.dumps(manifest), "utf-8")
    sharp = Detector.load(copy)
    memory = sharp.novelty.explainer.memory
    assert isinstance(memory, Memory)
    assert (sharp.familiarity.neighbourhood, memory.neighbourhood) == (1, 1)
    images = to_batch(pictures, SIZE)
    with torch.inference_mode():
        features = sharp.familiarity.backbone(images)
        (name,) = features
        raw = features[name].permute(0, 2, 3, 1).flatten(0, 2)
        bank = sharp.familiarity.bank
        by_hand = (
            torch.cdist(bank.whitening(raw), bank.vectors).amin(1).reshape(len(images), *raw_shape(features))
        )
        found = sharp.familiarity.score(features)
        gaps = memory.gaps(features)[1].square().sum(2).sqrt().reshape(by_hand.shape)
    assert torch.allclose(found.distances, bank.usual(by_hand), atol=1e-3)
    assert torch.allclose(gaps, by_hand, atol=1e-3)


@pytest.mark.parametrize(("told", "side"), [({}, 1), ({"appearance_neighbourhood": 3}, 3)])
def test_a_detector_averages_appearance_as_it_was_told(
    saved: Path, tmp_path: Path, pictures: Any, told: dict[str, int], side: int
) -> None:
    """Up to format 7 they average it as they average features; up to format 8 they know eight figures."""
    copy = _copy(saved, tmp_path)
    manifest = json.loads((copy / "detector.json").read_text("utf-8"))
    manifest["familiarity"] |= {"neighbourhood": 1, **told}
    (copy / "detector.json").write_text(json.dumps(manifest), "utf-8")
    familiarity, images = Detector.load(copy).familiarity, to_batch(pictures, SIZE)
    with torch.inference_mode():
        features = familiarity.backbone(images)
        found = familiarity.score(features)
        familiarity.bank.appearance = torch.zeros(len(familiarity.bank.vectors), 8)
        looks = familiarity.differences(images, found)
    assert looks is not None
    assert torch.equal(looks, appearance(images, raw_shape(features), side)[:, :8])


def raw_shape(features: dict[str, torch.Tensor]) -> tuple[int, int]:
    _, _, height, width = next(iter(features.values())).shape
    return height, width


def test_large_images_are_judged_fewer_at_once(
    saved: Path, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr("novad.vision.preprocess.MOST_PIXELS", 3 * SIZE**2)
    monkeypatch.setattr(
        "novad.vision.detector.to_batch",
        lambda group, *rest: (sizes.append(len(group)), to_batch(group, *rest))[1],
    )
    assert len(list(Detector.load(saved).score(pictures))) == len(pictures)
    assert sizes == [3, 3, 2]


@pytest.mark.parametrize(("device", "expected"), [("cpu", [3, 3, 2]), ("cuda", [5, 3])])
def test_a_gpu_is_given_more_images_at_once(
    device: str, expected: list[int], saved: Path, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr("novad.vision.detector.CPU_BATCH", 3)
    monkeypatch.setattr("novad.vision.detector.GPU_BATCH", 5)
    detector = Detector.load(saved)
    monkeypatch.setattr(
        "novad.vision.detector.to_batch",
        lambda group, size, *_: (sizes.append(len(group)), to_batch(group, size))[1],
    )
    monkeypatch.setattr(Detector, "device", torch.device(device))
    assert len(list(detector.score(pictures))) == len(pictures)
    assert sizes == expected


def test_the_nearest_patch_answers_the_least_familiar_one(saved: Path, pictures: Any) -> None:
    familiarity = Detector.load(saved).familiarity
    for picture, result in zip(pictures, Detector.load(saved).score(pictures), strict=True):
        found = familiarity.score(familiarity.backbone(to_batch([picture], SIZE)))
        distances = found.distances[0].numpy()
        place = np.unravel_index(distances.argmax(), distances.shape)
        nearest = result.nearest
        assert (nearest.grid, nearest.place) == (distances.shape, place)
        origin = familiarity.bank.origins[found.nearest[0][place]]
        assert (nearest.row, nearest.column) == tuple(origin[1:])
        assert nearest.distance == pytest.approx(distances.max(), rel=1e-4)


@pytest.mark.parametrize("name", ["bank.safetensors", "calibration.safetensors", "net.safetensors"])
def test_one_changed_byte_is_refused(saved: Path, tmp_path: Path, name: str) -> None:
    copy = _copy(saved, tmp_path)
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=name):
        Detector.load(copy)


def test_files_that_change_under_a_loaded_detector_change_nothing(
    saved: Path, tmp_path: Path, pictures: Any
) -> None:
    copy = _copy(saved, tmp_path)
    detector = Detector.load(copy)
    for path in copy.iterdir():
        size = path.stat().st_size
        with path.open("r+b") as stream:
            stream.write(b"\0" * size)
    for one, other in zip(detector.score(pictures), Detector.load(saved).score(pictures), strict=True):
        assert (one.familiarity, one.novelty) == (other.familiarity, other.novelty)
        assert one.nearest == other.nearest


def test_what_changes_between_check_and_loading_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = _copy(saved, tmp_path)
    checked = detector_files._verified

    def checked_then_exchanged(folder: Path) -> Any:
        found = checked(folder)
        content = (folder / exchanged).read_bytes()
        (folder / exchanged).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return found

    monkeypatch.setattr(detector_files, "_verified", checked_then_exchanged)
    for exchanged in ("bank.safetensors", "calibration.safetensors", "net.safetensors"):
        whole = (copy / exchanged).read_bytes()
        with pytest.raises(IntegrityError, match=exchanged):
            Detector.load(copy)
        (copy / exchanged).write_bytes(whole)


def test_missing_extra_and_broken_files_are_refused(saved: Path, tmp_path: Path) -> None:
    extra = _copy(saved, tmp_path / "extra")
    (extra / "model.pkl").write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"model\.pkl"):
        Detector.load(extra)
    missing = _copy(saved, tmp_path / "missing")
    (missing / "bank.safetensors").unlink()
    with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
        Detector.load(missing)
    (missing / "detector.json").write_text("{")
    with pytest.raises(IntegrityError, match="not a detector"):
        Detector.load(missing)


def test_the_digest_covers_settings_as_well_as_files(saved: Path, tmp_path: Path) -> None:
    copy = _copy(saved, tmp_path)
    document = json.loads((copy / "detector.json").read_text())
    document["fusion"]["weight"] = 0.5
    (copy / "detector.json").write_text(json.dumps(document))
    assert Detector.load(copy).digest != Detector.load(saved).digest
    assert Detector.load(saved).digest == file_sha256(saved / "detector.json")


def test_map_scale_puts_the_typical_peak_of_a_normal_image_at_one() -> None:
    maps = torch.rand(21, 10, 10, generator=torch.Generator().manual_seed(0))
    scaled = fit_map_scale(maps)(maps)
    assert float(scaled.amax(dim=(1, 2)).median()) == pytest.approx(1.0, abs=1e-5)
    assert float(scaled.median()) == pytest.approx(0.0, abs=1e-5)
    with pytest.raises(CalibrationError):
        fit_map_scale(torch.zeros(0, 2, 2))


def test_fused_maps_lie_on_the_finer_grid() -> None:
    fused = fuse_maps(torch.ones(1, 4, 4), torch.zeros(1, 16, 16), 0.25)
    assert {each.shape for each in fused.values()} == {(1, 16, 16)}
    assert torch.allclose(fused["hybrid"], torch.tensor(0.75))


@pytest.mark.parametrize("number", range(len(SYNTHETIC_TYPES)))
def test_a_synthetic_anomaly_changes_a_small_part_of_a_copy(number: int) -> None:
    image = np.random.default_rng(0).integers(80, 170, (64, 80, 3)).astype(np.uint8)
    before = image.copy()
    changed, kind = synthetic_anomaly(image, number, 0)
    assert np.array_equal(image, before)
    assert changed.dtype == np.uint8
    assert 0 < (changed != image).any(axis=2).mean() < 0.25
    assert kind == list(SYNTHETIC_TYPES)[number]
    assert np.array_equal(changed, synthetic_anomaly(image, number, 0)[0])


def _copy(saved: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(saved, target / "detector"))


def test_weighed_evidence_survives_saving_and_reads_every_deviation(
    saved: Path, pictures: Any, tmp_path: Path
) -> None:
    plain = Detector.load(saved).novelty
    judged = tuple(
        Candidate("layer2", statistic, 0.0, located, side, 0.05)
        for statistic in ("contribution", "alignment")
        for located in (True, False)
        for side in ("high", "low")
    )
    numbers = torch.rand(3, len(judged), generator=torch.Generator().manual_seed(1)) + 0.5
    evidence = Evidence(numbers[0], numbers[1], numbers[2], 0.25, 2.0)
    save_novelty(Calibration(plain.normal, evidence), tmp_path / "calibration")
    learned = load_novelty(tmp_path / "calibration")
    normal, loaded = learned.normal, learned.evidence
    images = to_batch(pictures, SIZE)
    weighed = replace(plain, judged=judged, evidence=loaded, normal=normal)
    found = weighed.explain(images)
    scores = weighed.score(found.deviations)
    by_hand = torch.zeros(len(images), dtype=torch.float64)
    for at, candidate in enumerate(judged):
        alone = replace(plain, shown=candidate, judged=(candidate,)).explain(images).deviations[:, 0]
        by_hand += numbers[2][at] * 4 * torch.tanh((alone - numbers[0][at]) / (4 * numbers[1][at]))
    assert torch.allclose(scores.double(), (by_hand - 0.25) / 2, atol=1e-4)
    assert torch.equal(found.maps, plain.explain(images).maps)


def test_evidence_weighs_what_the_memory_leaves_unexplained_after_the_explanation(
    saved: Path, pictures: Any
) -> None:
    detector, images = Detector.load(saved), to_batch(pictures, SIZE)
    plain, familiarity = detector.novelty, detector.familiarity
    assert not plain.residuals  # detectors of before say nothing of it
    width = 1 + FIGURES * familiarity.bank.vectors.shape[1]
    numbers = torch.rand(3, width, generator=torch.Generator().manual_seed(2)) + 0.5
    weighed = replace(plain, evidence=Evidence(*numbers, 0.25, 2.0), residuals=True)
    found = raw_scores(familiarity, weighed, images)
    assert familiarity.bank.appearance is None
    with torch.inference_mode():
        grids = feature_grids(familiarity.backbone(images), "sensory")
        nearest = found.familiarity.nearest
        left = residual_deviations(
            familiarity.bank.residuals(familiarity.bank.patches(grids), nearest), found.familiarity.distances
        )
    alone = raw_scores(familiarity, plain, images).novelty[:, None]
    seen = torch.cat([alone, left], dim=1).double()
    by_hand = (4 * torch.tanh((seen - numbers[0]) / (4 * numbers[1]))) @ numbers[2].double()
    assert torch.allclose(found.novelty.double(), (by_hand - 0.25) / 2, rtol=1e-4, atol=1e-3)


def test_a_detector_shows_and_weighs_appearance(saved: Path, pictures: Any, tmp_path: Path) -> None:
    detector, images = Detector.load(saved), to_batch(pictures, SIZE)
    plain, familiarity = detector.novelty, detector.familiarity
    bank = familiarity.bank
    looked = load_bank(saved / "bank.safetensors")
    looked.appearance = torch.rand(len(bank.vectors), 8, generator=torch.Generator().manual_seed(5))
    familiarity = replace(familiarity, bank=looked)
    with torch.inference_mode():
        found = familiarity.score(familiarity.backbone(images))
        differences = familiarity.differences(images, found)
    assert differences is not None
    usual, look = fit_appearance_novelty(differences), appearance_candidate(0.1)
    save_novelty(Calibration(plain.normal, appearance=usual), tmp_path / "calibration")
    loaded = load_novelty(tmp_path / "calibration").appearance
    assert isinstance(loaded, AppearanceNovelty)
    alone = replace(plain, shown=look, judged=(look,), appearance=loaded)
    raw = raw_scores(familiarity, alone, images)
    assert torch.allclose(raw.novelty_maps, usual(differences), atol=1e-4)
    assert torch.allclose(raw.novelty, top_means(usual(differences), [0.1])[:, 0], atol=1e-4)
    assert alone.target == alone.explainer.targets[0]

    evidence = Evidence(torch.zeros(2), torch.ones(2), torch.tensor([0.5, 2.0]), 0.25, 2.0)
    both = replace(alone, shown=plain.shown, judged=(*plain.judged, look), evidence=evidence)
    together = raw_scores(familiarity, both, images)
    explained = raw_scores(familiarity, plain, images)
    assert torch.equal(together.novelty_maps, explained.novelty_maps)
    read = torch.stack([explained.novelty, raw.novelty], dim=1).double()
    by_hand = (4 * torch.tanh(read / 4) @ torch.tensor([0.5, 2.0]).double() - 0.25) / 2
    assert torch.allclose(together.novelty.double(), by_hand, atol=1e-4)
    left = familiarity.residuals(found, None)
    deviations = patch_deviations(found.distances, usual(differences), differences, left)
    count = deviations.shape[1]
    numbers = torch.rand(6 * count, generator=torch.Generator().manual_seed(6))
    learned = PatchEvidence(numbers[:count], 0.5 + numbers[-count:], Discriminant(numbers - 0.5, 0.5, 1.5))
    save_novelty(Calibration(plain.normal, evidence, usual, learned), tmp_path / "learned")
    known = load_novelty(tmp_path / "learned")
    assert known.patches is not None
    assert known.evidence is not None
    taught = raw_scores(familiarity, replace(both, shown=patch_candidate(0.1), patches=known.patches), images)
    assert torch.equal(taught.novelty, together.novelty)
    assert torch.allclose(taught.novelty_maps, learned(deviations), atol=1e-4)
    judge = Detector("metal", SIZE, familiarity, alone, detector.fusion)
    maps = _scorer(judge, "novelty")(pictures)
    assert isinstance(maps, list)
    assert [each.shape[1:] for each in maps] == [picture.shape[:2] for picture in pictures]
    with pytest.raises(CalibrationError, match="knows nothing"):
        raw_scores(detector.familiarity, alone, images)
