"""Laws of the splits, for any folder that hypothesis can think of."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from novad.images import SPLITS, assign_sources, assign_splits, near_duplicate_pairs
from novad.images.fingerprint import perceptual_hash, thumbnail
from novad.images.layouts import accepted_stem

SHARES = {"calibration_share": 0.2, "tuning_share": 0.3}


def _manifest(rows: list[tuple[str, str, int]]) -> pd.DataFrame:
    """Rows of (source, defect type, content); equal content is the same picture."""
    table = []
    for index, (source, kind, content) in enumerate(rows):
        grey = np.random.default_rng(content).integers(0, 256, (32, 32)).astype(np.int32)
        table.append(
            {
                "path": f"{source}/{kind}/{index:04d}.png",
                "source": source,
                "label": int(kind != "good"),
                "defect_type": kind,
                "sha256": hashlib.sha256(str(content).encode()).hexdigest(),
                "phash": perceptual_hash(grey),
                "thumbnail": thumbnail(grey),
                "error": None,
            }
        )
    return pd.DataFrame(table, dtype=object)


def _split(manifest: pd.DataFrame, seed: int = 0, bits: int = 2) -> pd.Series:
    return assign_splits(manifest, **SHARES, seed=seed, near_duplicate_bits=bits)


row = st.one_of(
    st.tuples(st.just("train"), st.just("good"), st.integers(0, 60)),
    st.tuples(st.just("test"), st.sampled_from(["good", "crack", "stain"]), st.integers(0, 60)),
)
distinct = st.lists(row, min_size=1, max_size=60, unique_by=lambda r: r[2])


@given(rows=st.lists(row, min_size=1, max_size=60), seed=st.integers(0, 3), shuffle=st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_image_has_one_split_whatever_the_order_and_equals_stay_together(rows, seed, shuffle) -> None:
    manifest = _manifest(rows)
    split = _split(manifest, seed)
    assert set(split) <= set(SPLITS)
    train = manifest["source"] == "train"
    assert set(split[train]) <= {"bank", "calibration"}
    assert set(split[~train]) <= {"tuning", "test"}
    order = list(range(len(rows)))
    shuffle.shuffle(order)
    shuffled = _split(manifest.iloc[order], seed)
    assert shuffled.sort_index().tolist() == split.tolist()
    sides = split.groupby([manifest["source"], manifest["sha256"]]).nunique()
    assert (sides == 1).all()


@given(rows=distinct)
@settings(max_examples=60, deadline=None)
def test_each_defect_type_gives_its_share_and_both_sides_have_some(rows) -> None:
    manifest = _manifest(rows)
    split = _split(manifest)
    test = manifest["source"] == "test"
    for kind in set(manifest["defect_type"][test]):
        own = split[test & (manifest["defect_type"] == kind)]
        tuning = int((own == "tuning").sum())
        assert abs(tuning - 0.3 * len(own)) <= 0.7
        assert 0 < tuning < len(own) if len(own) > 1 else tuning == 0


@given(contents=st.sets(st.integers(0, 1000), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_a_share_of_the_normals_calibrates_but_two_of_four_at_least(contents) -> None:
    split = _split(_manifest([("train", "good", content) for content in contents]))
    calibrating = int((split == "calibration").sum())
    assert calibrating == max(int(0.2 * len(split) + 0.5), min(2, len(split) // 2))
    assert len(split) < 2 or 0 < calibrating < len(split)


@given(rows=distinct, added=st.sampled_from(["good", "crack", "new"]))
@settings(max_examples=60, deadline=None)
def test_one_more_image_moves_at_most_one_other(rows, added) -> None:
    before = _split(_manifest(rows))
    after = _split(_manifest([*rows, ("test", added, 1000)]))
    assert (before.to_numpy() != after.to_numpy()[: len(rows)]).sum() <= 1


def _joining(source: str, kind: str, content: int) -> pd.DataFrame:
    """One row, named as an accepted image is."""
    row = _manifest([(source, kind, content)])
    row["path"] = [f"{source}/{kind}/{accepted_stem(digest)}.png" for digest in row["sha256"]]
    return row


@given(rows=distinct, joining=st.lists(row, max_size=12, unique_by=lambda r: r[2]), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_what_joins_by_acceptance_moves_nothing_that_is_there(rows, joining, seed) -> None:
    manifest = _manifest(rows)
    split = _split(manifest, seed)
    for source, kind, content in joining:
        manifest = pd.concat([manifest, _joining(source, kind, 1000 + content)], ignore_index=True)
        after = _split(manifest, seed)
        assert after[:-1].tolist() == split.tolist()
        assert after.iloc[-1] in (("bank", "calibration") if source == "train" else ("tuning", "test"))
        split = after


def test_of_what_joins_each_side_gets_its_share() -> None:
    """By a threshold on a hash: 400 draws of 0.3 lie within 4.5 standard deviations."""
    manifest = pd.concat([_joining("test", "crack", content) for content in range(400)], ignore_index=True)
    tuning = int((_split(manifest) == "tuning").sum())
    assert abs(tuning - 0.3 * 400) < 4.5 * (400 * 0.3 * 0.7) ** 0.5


def test_what_joins_lies_beside_what_it_nearly_equals() -> None:
    pictures = [_picture(seed) for seed in range(30)]
    twins = [picture + 20 for picture in pictures]
    manifest = _pictures(*pictures, *twins)
    digests = manifest["sha256"][30:]
    manifest.loc[30:, "path"] = [f"test/good/{accepted_stem(digest)}.png" for digest in digests]
    split = _split(manifest, bits=6)
    assert split[:30].tolist() == _split(manifest[:30], bits=6).tolist()
    assert split[30:].tolist() == split[:30].tolist()
    assert set(split) == {"tuning", "test"}


def test_only_a_name_made_of_the_content_joins() -> None:
    """A file of somebody who likes the word is drawn like any other."""
    manifest = _manifest([("test", "good", content) for content in range(30)])
    renamed = manifest.assign(path=[f"test/good/accepted-{number:016d}.png" for number in range(30)])
    assert _split(renamed).tolist() == _split(manifest).tolist()


@given(rows=st.lists(st.integers(0, 10_000), min_size=2, max_size=80, unique=True), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_undivided_normals_are_divided_by_content_and_the_rest_is_left(rows, seed) -> None:
    manifest = _manifest([("undivided", "good", c) for c in rows] + [("test", "crack", 20_000)])
    source = assign_sources(manifest, seed, 2)
    assert source.iloc[-1] == "test"
    held_back = int((source[:-1] == "test").sum())
    assert held_back == min(max(int(0.2 * len(rows) + 0.5), 1), len(rows) - 1)
    reverse = assign_sources(manifest.iloc[::-1], seed, 2)
    assert reverse.sort_index().tolist() == source.tolist()


def test_another_seed_draws_another_division() -> None:
    manifest = _manifest([("train", "good", c) for c in range(60)])
    assert (_split(manifest, 0) != _split(manifest, 1)).any()


def _picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(30, 220, (8, 8))
    return np.kron(coarse, np.ones((16, 16), int)).astype(np.int32)


def _pictures(*pictures: np.ndarray) -> pd.DataFrame:
    manifest = _manifest([("test", "good", c) for c in range(len(pictures))])
    manifest["phash"] = [perceptual_hash(p) for p in pictures]
    manifest["thumbnail"] = pd.Series([thumbnail(p) for p in pictures], dtype=object)
    return manifest


def test_a_brighter_noisier_or_slightly_damaged_copy_is_a_near_duplicate() -> None:
    original = _picture(1)
    brighter = original + 20
    noisy = np.clip(original + np.random.default_rng(0).normal(0, 6, original.shape), 0, 255).astype(np.int32)
    damaged = original.copy()
    damaged[60:66, 60:66] = 0
    pairs = near_duplicate_pairs(_pictures(original, brighter, noisy, damaged, _picture(2)), 4)
    assert pairs == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_repetitive_products_are_not_glued_together() -> None:
    """The same grid with another fine structure: the hash agrees, the thumbnails do not."""
    grid = np.where(np.add.outer(np.arange(32) // 16, np.arange(32) // 16) % 2, 90, 110).astype(np.int32)
    noise = np.random.default_rng(0)
    cells = [grid + noise.integers(-12, 13, grid.shape).astype(np.int32) for _ in range(6)]
    assert near_duplicate_pairs(_pictures(*cells), 64) == []


def _part(seed: int) -> np.ndarray:
    """A bright plate on a dark background, as every other, with a fine structure of its own."""
    plate = np.zeros((32, 32))
    plate[6:26, 6:26] = 180 + np.random.default_rng(seed).normal(0, 8, (20, 20))
    return np.rint(plate + 20).astype(np.int32)


def test_parts_on_a_plain_background_are_not_glued_together_and_their_copies_are() -> None:
    parts = [_part(seed) for seed in range(12)]
    assert np.corrcoef(np.stack(parts).reshape(12, -1)).min() > 0.98
    noisy = parts[0] + np.random.default_rng(99).normal(0, 0.5, (32, 32)).round().astype(np.int32)
    assert near_duplicate_pairs(_pictures(*parts, noisy), 64) == [(0, 12)]


@given(spread=st.floats(0, 40), own=st.floats(0.5, 20), seed=st.integers(0, 99))
@example(spread=0.0, own=1.1, seed=0)
@settings(max_examples=30, deadline=None)
def test_near_duplicates_are_nearer_than_a_tenth_of_the_mean_distance(
    spread: float, own: float, seed: int
) -> None:
    """Pair by pair, for lines whose pictures are anything between one and unlike."""
    random = np.random.default_rng(seed)
    shared, kinds = random.normal(0, 40, (32, 32)), random.normal(0, 1, (5, 32, 32))
    pictures = [
        np.clip(128 + shared + spread * kinds[i // 3] + random.normal(0, own, (32, 32)), 0, 255)
        for i in range(15)
    ]
    manifest = _pictures(*(np.rint(each).astype(np.int32) for each in pictures))
    seen = np.stack([np.frombuffer(each, np.uint8).astype(float) for each in manifest["thumbnail"]])
    apart = 1 - np.corrcoef(seen)
    i, j = np.triu_indices(15, 1)
    limit = min(0.02, max(0.0005, apart[i, j].mean() / 10))
    sure = np.abs(apart[i, j] - limit) > 1e-9
    found = set(near_duplicate_pairs(manifest, 64))
    alike = {(a, b): apart[a, b] < limit for a, b in zip(i[sure].tolist(), j[sure].tolist(), strict=True)}
    assert all((pair in found) == near for pair, near in alike.items())


def test_what_joins_a_line_does_not_glue_its_own_parts_together() -> None:
    manifest = _pictures(*(_part(seed) for seed in range(12)), *(_picture(seed) for seed in range(60)))
    alone = near_duplicate_pairs(manifest, 64)
    assert any(i < j < 12 for i, j in alone), "sixty unlike pictures make twelve parts look like copies"
    joined = [f"test/good/{accepted_stem(digest)}.png" for digest in manifest["sha256"][12:]]
    manifest.loc[12:, "path"] = joined
    assert near_duplicate_pairs(manifest, 64) == []


def test_pictures_without_structure_are_no_near_duplicates() -> None:
    flat = np.full((32, 32), 128, np.int32)
    assert near_duplicate_pairs(_pictures(flat, flat + 1), 64) == []


def test_pictures_without_structure_say_nothing_of_what_is_usual() -> None:
    faint = np.full((32, 32), 128, np.int32)
    faint[::4] += 1
    parts = [_part(seed) for seed in range(12)]
    assert near_duplicate_pairs(_pictures(*parts, parts[0] + 5, faint, faint + 1, faint - faint), 64) == [
        (0, 12)
    ]


def test_equal_frames_without_structure_stay_together() -> None:
    manifest = _manifest([("test", "good", content // 7) for content in range(40)])
    manifest["thumbnail"] = bytes(32 * 32)
    split = _split(manifest)
    assert (split.groupby(manifest["sha256"]).nunique() == 1).all()
    assert set(split) == {"tuning", "test"}


def test_near_duplicates_stay_on_one_side_though_their_labels_differ() -> None:
    pictures = [_picture(seed) for seed in range(30)]
    damaged = [p.copy() for p in pictures]
    for p in damaged:
        p[100:104, 20:24] = 0
    manifest = _pictures(*pictures, *damaged)
    manifest.loc[30:, "defect_type"] = "crack"
    split = _split(manifest, bits=6)
    assert (split[:30].to_numpy() == split[30:].to_numpy()).all()
    assert set(split) == {"tuning", "test"}


@pytest.mark.parametrize("count", [700])
def test_pairs_across_search_blocks_are_found(count: int) -> None:
    manifest = _manifest([("test", "good", c) for c in [*range(count - 1), 0]])
    assert near_duplicate_pairs(manifest, 0) == [(0, count - 1)]


def test_unreadable_images_are_in_no_split() -> None:
    manifest = _manifest([("train", "good", c) for c in range(5)])
    manifest.loc[2, ["error", "phash", "thumbnail"]] = ["damaged", None, None]
    split = _split(manifest)
    assert split[2] is None
    assert split.drop(2).notna().all()


LAMPS = ("regular", "overexposed", "underexposed", "shift_1", "shift_2", "shift_3")


@given(st.integers(0, 50), st.integers(4, 12))
@settings(max_examples=30, deadline=None)
def test_pictures_of_one_part_under_several_lamps_stay_together(seed, parts) -> None:
    """As MVTec AD 2 has them; their pixels have little in common."""
    rows = [("train", "good", number) for number in range(4)]
    rows += [("test", kind, 100 + number) for kind in ("good", "bad") for number in range(parts * len(LAMPS))]
    manifest = _manifest(rows)
    test = manifest["source"] == "test"
    for kind in ("good", "bad"):
        mine = test & (manifest["defect_type"] == kind)
        manifest.loc[mine, "path"] = [
            f"test_public/{kind}/{part:03d}_{lamp}.png" for part in range(parts) for lamp in LAMPS
        ]
    split = _split(manifest, seed)[test]
    part = manifest.loc[test, "path"].str.extract(r"(.*?/\d+)_")[0]
    assert (split.groupby(part).nunique() == 1).all()
    assert set(split) == {"tuning", "test"}
    manifest["path"] = manifest["path"].str.replace("test_public", "test")
    assert (_split(manifest, seed)[test].groupby(part).nunique() > 1).any()
