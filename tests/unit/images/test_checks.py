"""What the gate's columns say of a line's images, and what its findings say of the columns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from novad.config import ValidateSettings
from novad.images import Sample, build_manifest
from novad.images.checks import CHECKS, gate_frame

SETTINGS = ValidateSettings()


def _frame(root: Path, images: dict[str, np.ndarray]) -> pd.DataFrame:
    """The gate's frame of images by path: ``train/good/...``, ``test/good/...`` or ``test/dent/...``."""
    samples = []
    for path, pixels in images.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / path)
        source, kind = Path(path).parts[:2]
        samples.append(Sample(path, "train" if source == "train" else "test", int(kind == "dent"), kind))
    manifest = build_manifest(root, samples, 1_000_000)
    return gate_frame(manifest.assign(split="test"), SETTINGS)


def _says(check: str, rows: pd.DataFrame) -> str:
    return next(each for each in CHECKS if each.name == check).says(rows, SETTINGS)


def _grey(seed: int, shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 200, shape, np.uint8)


@pytest.mark.parametrize(
    ("largest", "told"),
    [
        (255, "8 bits, multiply all images by 256"),
        (1023, "10 bits, multiply all images by 64"),
        (4000, "12 bits, multiply all images by 16"),
        (16383, "14 bits, multiply all images by 4"),
        (16384, None),
        (0, None),
    ],
)
def test_values_of_fewer_bits_in_16_bit_files_are_told(
    largest: int, told: str | None, tmp_path: Path
) -> None:
    dim = np.zeros((8, 8), np.uint16)
    bright = dim.copy()
    bright[3, 4] = largest
    frame = _frame(
        tmp_path,
        {"train/good/0.png": dim, "train/good/1.png": bright, "train/good/8.png": _grey(1, (8, 8))},
    )
    rows = frame[frame["range_unused"]]
    assert rows["path"].tolist() == (["train/good/0.png", "train/good/1.png"] if told else [])
    if told:
        assert f"largest value is {largest}," in _says("range_used", rows)
        assert told in _says("range_used", rows)


def test_a_defect_may_be_brighter_or_sharper_than_every_normal_image(tmp_path: Path) -> None:
    odd = np.where(np.indices((32, 32)).sum(0) % 2, 255, 180).astype(np.uint8)
    images = {f"train/good/{i}.png": _grey(i) // 2 for i in range(10)}
    frame = _frame(tmp_path, {**images, "test/dent/0.png": odd, "test/good/0.png": odd}).set_index("path")
    for column in ("brightness_deviation", "sharpness_deviation"):
        assert abs(frame[column]["test/good/0.png"]) > 6
        assert np.isnan(frame[column]["test/dent/0.png"])


def test_a_pair_is_told_once() -> None:
    rows = pd.DataFrame(
        {"path": ["a", "b", "c"], "near_duplicate_of": ["b", "a", "a"]},
    )
    assert "(a = b; c = a)" in _says("no_near_duplicate_across_splits", rows)
