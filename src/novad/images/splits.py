"""Who may see which image: bank, calibration, tuning or test, decided by content alone.

A file's name, its date and the order of the folder do not matter; a new image moves at most few others, and
one that joins the line by acceptance moves none. The same and nearly the same image never lie on two sides of
a division, nor do pictures of one part where the layout tells which these are.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.images.layouts import accepted_stem, part_shown

__all__ = [
    "SPLITS",
    "alike_groups",
    "alike_pairs",
    "assign_sources",
    "assign_splits",
    "near_duplicate_pairs",
    "pixel_duplicates",
]

SPLITS = ("bank", "calibration", "tuning", "test")

# Share of the normal images that a layout without train and test holds back for tuning and test.
HELD_BACK_SHARE = 0.2
# One score alone has no spread to scale others by.
FEWEST_CALIBRATING = 2
# Measured on solar cells, boards, demo lines and drawn objects: see docs/decisions/data-gate-and-splits.md.
NEAR_DUPLICATE_CORRELATION = 0.98
# Parts that lie alike on one background correlate by more than that: a copy is nearer than this share of what
# lies between two pictures of the line on average.
NEAR_DUPLICATE_SHARE = 0.1
# What compression and noise take from the correlation of a copy, however alike all pictures are.
_COPY_DISTANCE = 0.0005

_BLOCK_ROWS = 512
_BLOCK_PAIRS = 8192


def assign_sources(manifest: pd.DataFrame, seed: int, near_duplicate_bits: int) -> pd.Series:
    """``train`` or ``test`` for every row: what the layout says, else by content.

    Args:
        manifest: rows whose ``source`` may be ``undivided`` (normal images only).
        seed: another seed draws another division.
        near_duplicate_bits: see :func:`near_duplicate_pairs`.
    Returns:
        Series of ``train`` and ``test`` with the index of ``manifest``.
    """
    source = manifest["source"].astype(object).copy()
    undivided = (source == "undivided").to_numpy()
    rows = manifest[undivided]
    held_back = _draw(rows, HELD_BACK_SHARE, 1, f"{seed}:source", near_duplicate_bits)
    source[undivided] = np.where(held_back, "test", "train")
    return source


def assign_splits(
    manifest: pd.DataFrame,
    calibration_share: float,
    tuning_share: float,
    seed: int,
    near_duplicate_bits: int,
) -> pd.Series:
    """One of :data:`SPLITS` for every readable row, None for the others.

    Train normals go to bank or calibration, test images to tuning or test: the given share of each defect
    type, in the order of a hash of the content. Groups of near-duplicates stay whole, so a share may be
    missed by the size of a group. However small the share, two of four normals or more calibrate.

    Args:
        manifest: rows with ``source`` train or test.
        calibration_share: share of the train normals, 0 < share < 1.
        tuning_share: share of the test images of each type, 0 < share < 1.
        seed: another seed draws another division.
        near_duplicate_bits: see :func:`near_duplicate_pairs`.
    Returns:
        Series with the index of ``manifest``; it depends on the set of images, not on their order.
    """
    split = pd.Series([None] * len(manifest), index=manifest.index, dtype=object, name="split")
    readable = manifest["error"].isna().to_numpy()
    for source, share, least, drawn, left in (
        ("train", calibration_share, FEWEST_CALIBRATING, "calibration", "bank"),
        ("test", tuning_share, 1, "tuning", "test"),
    ):
        mask = readable & (manifest["source"] == source).to_numpy()
        rows = manifest[mask]
        split[mask] = np.where(
            _draw(rows, share, least, f"{seed}:{source}", near_duplicate_bits), drawn, left
        )
    return split


def pixel_duplicates(manifest: pd.DataFrame) -> list[tuple[int, int]]:
    """Positions of row pairs with the same bytes: each row with the first of its content, i < j."""
    first: dict[str, int] = {}
    pairs = []
    for row, digest in enumerate(manifest["sha256"]):
        if digest is None:
            continue
        if digest in first:
            pairs.append((first[digest], row))
        else:
            first[digest] = row
    return pairs


def near_duplicate_pairs(manifest: pd.DataFrame, bits: int) -> list[tuple[int, int]]:
    """Positions of row pairs that show almost the same picture, i < j.

    Both must hold: the perceptual hashes differ in at most ``bits`` of 64 bits, and the 32 x 32 thumbnails
    correlate to at least 0.98, and more where most pictures of the line do: a pair's distance, 1 less the
    correlation, is at most a tenth of the mean distance. The hash alone would glue repetitive products
    together (all solar cells have the same grid), 0.98 alone parts on a plain background. A thumbnail without
    structure says nothing and is no one's near-duplicate.
    """
    usable = np.flatnonzero(manifest["phash"].notna().to_numpy())
    if len(usable) < 2:
        return []
    hashes = np.array([int(value, 16) for value in manifest["phash"].iloc[usable]], np.uint64)
    thumbnails = np.stack([np.frombuffer(value, np.uint8) for value in manifest["thumbnail"].iloc[usable]])
    # What joins a line must not change which of its own images are alike.
    usual = _mean_distance(thumbnails, ~_joined(manifest.iloc[usable]))
    limit = 1 - np.clip(NEAR_DUPLICATE_SHARE * usual, _COPY_DISTANCE, 1 - NEAR_DUPLICATE_CORRELATION)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(hashes), _BLOCK_ROWS):
        block = hashes[start : start + _BLOCK_ROWS]
        close = np.bitwise_count(block[:, None] ^ hashes[None, start:]) <= bits
        left, right = np.nonzero(np.triu(close, 1))
        for at in range(0, len(left), _BLOCK_PAIRS):
            i, j = left[at : at + _BLOCK_PAIRS] + start, right[at : at + _BLOCK_PAIRS] + start
            alike = _correlated(thumbnails[i], thumbnails[j], limit)
            pairs += zip(usable[i[alike]].tolist(), usable[j[alike]].tolist(), strict=True)
    return pairs


def _mean_distance(thumbnails: NDArray[np.uint8], asked: NDArray[np.bool_]) -> float:
    """Mean of 1 less the correlation over pairs of asked rows that have structure; 1 where there is no pair.

    With each row itself, the mean correlation is the squared length of the mean of the standardised rows.
    """
    n, total, count = thumbnails.shape[1], np.zeros(thumbnails.shape[1]), 0
    for start in range(0, len(thumbnails), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        rows = thumbnails[block][asked[block]].astype(np.int64)
        spreads = _spreads(rows)
        told = _structured(spreads, n)
        rows, spreads = rows[told], spreads[told]
        # Standardised: the mean taken off, divided by the standard deviation.
        total += ((n * rows - rows.sum(1, keepdims=True)) / np.sqrt(spreads)[:, None]).sum(0)
        count += len(rows)
    return (1 - float(np.square(total / count).mean())) * count / (count - 1) if count > 1 else 1.0


def _correlated(a: NDArray[np.uint8], b: NDArray[np.uint8], limit: float) -> NDArray[np.bool_]:
    """Whether rows correlate (Pearson) to at least ``limit``; sums are exact integers on any machine."""
    x, y = a.astype(np.int64), b.astype(np.int64)
    n = x.shape[1]
    covariance = n * (x * y).sum(1) - x.sum(1) * y.sum(1)
    spread_x, spread_y = _spreads(x), _spreads(y)
    structured = _structured(spread_x, n) & _structured(spread_y, n)
    least = limit * np.sqrt(spread_x.astype(float) * spread_y.astype(float))
    alike: NDArray[np.bool_] = structured & (covariance >= least)
    return alike


def _spreads(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """n^2 times the variance of each row of n values."""
    spreads: NDArray[np.int64] = rows.shape[1] * (rows * rows).sum(1) - rows.sum(1) ** 2
    return spreads


def _structured(spreads: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """One grey level of standard deviation: below that, correlation is that of noise."""
    return spreads >= n * n


def alike_pairs(manifest: pd.DataFrame, bits: int) -> list[tuple[int, int]]:
    """Positions of row pairs that no division may part: the same file, or nearly the same picture."""
    return [*pixel_duplicates(manifest), *near_duplicate_pairs(manifest, bits)]


def alike_groups(manifest: pd.DataFrame, bits: int) -> list[list[int]]:
    """Positions of rows that belong together, transitively; groups come in the order of their first rows.

    To what :func:`alike_pairs` finds come the pictures of one part under several lamps.
    """
    # Imported here: it takes longer to load than most callers take.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(manifest)
    together = [*alike_pairs(manifest, bits), *_pairs_of_one_part(manifest)]
    pairs = np.array(together, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    members: dict[int, list[int]] = {}
    for position, label in enumerate(connected_components(graph, directed=False)[1].tolist()):
        members.setdefault(label, []).append(position)
    return list(members.values())


def _pairs_of_one_part(manifest: pd.DataFrame) -> list[tuple[int, int]]:
    """Each row with the first that shows the same part, as the layout tells."""
    first: dict[str, int] = {}
    parts = [part_shown(path) for path in manifest["path"]]
    return [
        (first[part], row)
        for row, part in enumerate(parts)
        if part is not None and first.setdefault(part, row) != row
    ]


def _draw(rows: pd.DataFrame, share: float, least: int, salt: str, bits: int) -> NDArray[np.bool_]:
    """Draw ``share`` of each defect type: the line's own images together, then what joined it, one by one."""
    keys = np.array(
        [
            hashlib.sha256(f"{salt}:{digest or path}".encode()).hexdigest()
            for digest, path in zip(rows["sha256"], rows["path"], strict=True)
        ],
        dtype=object,
    )
    joined = _joined(rows)
    own = rows[~joined]
    drawn = np.zeros(len(rows), bool)
    types = own["defect_type"].tolist()
    drawn[~joined] = _draw_own(types, keys[~joined], alike_groups(own, bits), share, least)
    if joined.any():
        _draw_joined(drawn, joined, keys, alike_groups(rows, bits), share)
    return drawn


def _joined(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows were accepted into the line: their name is made of their content."""
    named = [
        digest is not None and PurePosixPath(path).stem == accepted_stem(digest)
        for digest, path in zip(rows["sha256"], rows["path"], strict=True)
    ]
    return np.array(named, bool)


def _draw_own(
    types: Sequence[str], keys: NDArray[np.object_], groups: list[list[int]], share: float, least: int
) -> NDArray[np.bool_]:
    """Draw whole groups in hash order until each type has given its share; see ``_quota``."""
    open_places = {kind: _quota(count, share, least) for kind, count in Counter(types).items()}
    drawn = np.zeros(len(types), bool)
    for group in sorted(groups, key=lambda group: min(keys[group])):
        wanted = Counter(types[i] for i in group)
        if all(open_places[kind] >= count for kind, count in wanted.items()):
            drawn[group] = True
            for kind, count in wanted.items():
                open_places[kind] -= count
    return drawn


def _draw_joined(
    drawn: NDArray[np.bool_],
    joined: NDArray[np.bool_],
    keys: NDArray[np.object_],
    groups: list[list[int]],
    share: float,
) -> None:
    """Put what joined beside its near-duplicates, or, where it has none, where its own hash says.

    A quota would move others whenever one comes; a threshold on the hash (first 52 bits, uniform on [0, 1))
    moves none.
    """
    for group in groups:
        fresh = [i for i in group if joined[i]]
        known = [i for i in group if not joined[i]]
        first = min(known or fresh, key=lambda i: keys[i])
        drawn[fresh] = drawn[first] if known else int(keys[first][:13], 16) / 16**13 < share


def _quota(count: int, share: float, least: int) -> int:
    """Rounded share of ``count``, at least ``least`` or half; both sides get one where there are two."""
    return min(max(int(share * count + 0.5), min(least, count // 2)), max(count - 1, 0))
