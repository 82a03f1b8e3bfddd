"""What the data gate checks: a table of expectations over one row per image.

A check is a column to look at, a Great Expectations class to hold it to, and what to tell the user. The
columns that compare images with each other (duplicates, outliers) are derived here; the rest is manifest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from novad.config import ValidateSettings
from novad.images.outliers import lonely, robust_deviation
from novad.images.splits import SPLITS, near_duplicate_pairs, pixel_duplicates

__all__ = ["CHECKS", "Check", "gate_frame"]

Severity = Literal["error", "warning"]
# What has to go for an error to end: the images that it names, those of them in test, or their masks.
Cure = Literal["images", "test images", "masks"]

FEW_OF_A_TYPE = 5
# With fewer, too little is left to learn from once two calibrate.
FEWEST_NORMALS = 5
OUTLIER_DEVIATIONS = 6.0
_CAMERA_BITS = (8, 10, 12, 14)  # of cameras whose values are stored in 16-bit files as they are


@dataclass(frozen=True)
class Check:
    """One rule of the gate."""

    name: str
    severity: Severity
    expectation: str  # class in great_expectations.expectations
    arguments: dict[str, Any]
    says: Callable[[pd.DataFrame, ValidateSettings], str]  # the failing rows -> what is wrong, and what to do
    per_reason: str | None = None  # column whose distinct values give a finding each
    switched_off: Callable[[ValidateSettings], bool] = field(default=lambda _settings: False)
    settings: Callable[[ValidateSettings], dict[str, Any]] = field(default=lambda _settings: {})
    cure: Cure | None = None  # None: leaving images out mends nothing, or another error says it already


def gate_frame(manifest: pd.DataFrame, settings: ValidateSettings) -> pd.DataFrame:
    """The manifest with the derived columns that :data:`CHECKS` name; thumbnails left out.

    Args:
        manifest: rows with ``source`` and ``split`` assigned.
        settings: the line's ``validate`` section.
    """
    frame = manifest.drop(columns="thumbnail").reset_index(drop=True)
    for column in ("bytes", "width", "height", "mask_area", "bit_depth", "maximum"):
        frame[column] = frame[column].astype("float64")
    size, mask_size = _sizes(manifest, "width", "height"), _sizes(manifest, "mask_width", "mask_height")
    frame["size"], frame["mask_size"] = size, mask_size
    frame["line_size"] = _most_common(frame["size"])
    frame["line_mode"] = _most_common(frame["mode"])
    frame["blank"] = _blank(frame)
    frame["train_normal"] = ((frame["source"] == "train") & frame["error"].isna()).astype("int64")
    frame["range_unused"] = _range_unused(frame)
    # Blank frames are all alike, and nothing can be learnt from one about another: they get a warning.
    frame["duplicate_of"] = _partners(frame, pixel_duplicates(manifest), "source").where(
        ~frame["blank"], None
    )
    frame["contradicted_by"] = _partners(frame, pixel_duplicates(manifest), "label")
    near = near_duplicate_pairs(manifest, settings.near_duplicate_bits)
    exact = frame["duplicate_of"].notna()
    frame["near_duplicate_of"] = _partners(frame, near, "split").where(~exact, None)
    normal = ((frame["label"] == 0) & frame["error"].isna()).to_numpy()
    for column in ("brightness", "sharpness"):
        # A defect may well be darker or sharper than good parts: that is no fault of the camera.
        deviation = robust_deviation(frame[column].to_numpy(), normal)
        frame[f"{column}_deviation"] = np.where(normal, deviation, np.nan)
    frame["loneliness"] = lonely(manifest, normal)
    anomalous = frame["label"] == 1
    of_type = frame.groupby("defect_type")["path"].transform("count").astype("float64")
    frame["of_this_type"] = of_type.where(anomalous)
    masked_types = set(frame.loc[frame["mask_path"].notna(), "defect_type"])
    frame["mask_missing"] = (
        anomalous & frame["mask_path"].isna() & frame["defect_type"].isin(masked_types)
    ).astype(bool)
    frame["type_without_masks"] = (
        anomalous & ~frame["defect_type"].isin(masked_types) & bool(masked_types)
    ).astype(bool)
    frame["tested"] = (frame["split"] == "test").astype("int64")
    frame["test_normal"] = frame["tested"] * (frame["label"] == 0)
    return frame


def _sizes(manifest: pd.DataFrame, width: str, height: str) -> list[str | None]:
    pairs = zip(manifest[width], manifest[height], strict=True)
    return [None if pd.isna(w) else f"{w} x {h}" for w, h in pairs]


def _most_common(values: pd.Series) -> pd.Series:
    """The most frequent value, the smallest of equals, where there is one; else None."""
    modes = values.dropna().mode().tolist()
    return pd.Series([modes[0] if known else None for known in values.notna()], values.index, dtype=object)


def _blank(frame: pd.DataFrame) -> pd.Series:
    """Frames of one black or one white: no light or no part before the camera."""
    level = frame["brightness"]
    return (frame["contrast"] < 1 / 255) & ((level < 1 / 255) | (level > 254 / 255))


def _range_unused(frame: pd.DataFrame) -> pd.Series:
    """The training normals of 16 bits, where none of them leaves the darkest quarter of that range."""
    wide = (frame["train_normal"] == 1) & (frame["bit_depth"] == 16)
    largest = frame.loc[wide, "maximum"].max()
    return wide & bool(0 < largest < 1 << _CAMERA_BITS[-1])


def _stretch(rows: pd.DataFrame) -> str:
    largest = int(rows["maximum"].max())
    bits = next(bits for bits in _CAMERA_BITS if largest < 1 << bits)
    return (
        f"16-bit files whose largest value is {largest}, so they are read as nearly black: if the camera has "
        f"{bits} bits, multiply all images by {1 << (16 - bits)}, those that will be scored too"
    )


def _partners(frame: pd.DataFrame, pairs: Iterable[tuple[int, int]], column: str) -> pd.Series:
    """For each row the first partner on another side of ``column``, else None.

    A set of equals is given as pairs with its first member, so members are compared through it.
    """
    members: dict[int, list[int]] = {}
    for i, j in pairs:
        members.setdefault(i, [i]).append(j)
        members.setdefault(j, [j]).append(i)
    sides, paths = frame[column].tolist(), frame["path"].tolist()
    found: list[str | None] = [None] * len(frame)
    for group in members.values():
        for row in group:
            other = next((i for i in group if sides[i] is not None and sides[i] != sides[row]), None)
            if other is not None and sides[row] is not None and found[row] is None:
                found[row] = paths[other]
    return pd.Series(found, index=frame.index, dtype=object)


def _paired(frame: pd.DataFrame, column: str) -> str:
    """The first pairs, each in one direction."""
    pairs: dict[frozenset[str], str] = {}
    for path, other in zip(frame["path"], frame[column], strict=True):
        pairs.setdefault(frozenset((path, other)), f"{path} = {other}")
    return "; ".join(list(pairs.values())[:5]) + ("; ..." if len(pairs) > 5 else "")


def _or_ask_for_fewer(settings: ValidateSettings) -> str:
    fewer = settings.min_normals > FEWEST_NORMALS
    return ", or lower validate.min_normals in params.yaml" if fewer else ""


def _no_null(column: str) -> dict[str, Any]:
    return {"column": column}


CHECKS: tuple[Check, ...] = (
    Check(
        "readable_image",
        "error",
        "ExpectColumnValuesToBeNull",
        _no_null("error"),
        lambda rows, _: f"{rows['error'].iloc[0]}",
        per_reason="error",
        cure="images",
    ),
    Check(
        "not_empty_file",
        "error",
        "ExpectColumnValuesToBeBetween",
        {"column": "bytes", "min_value": 1},
        lambda rows, _: f"{len(rows)} files of zero bytes: copy them again",
    ),
    Check(
        "readable_mask",
        "error",
        "ExpectColumnValuesToBeNull",
        _no_null("mask_error"),
        lambda rows, _: f"mask {rows['mask_path'].iloc[0]}: {rows['mask_error'].iloc[0]}",
        per_reason="mask_error",
        cure="masks",
    ),
    Check(
        "one_size",
        "error",
        "ExpectColumnPairValuesToBeEqual",
        {"column_A": "size", "column_B": "line_size", "ignore_row_if": "either_value_is_missing"},
        lambda rows, _: (
            f"sizes {', '.join(sorted(set(rows['size'])))} among images of {rows['line_size'].iloc[0]}: "
            "resize or remove them, or set allow_mixed_sizes"
        ),
        switched_off=lambda settings: settings.allow_mixed_sizes,
        cure="images",
    ),
    Check(
        "no_duplicate_across_train_and_test",
        "error",
        "ExpectColumnValuesToBeNull",
        _no_null("duplicate_of"),
        lambda rows, _: (
            f"the same file in train and test ({_paired(rows, 'duplicate_of')}): remove one of each"
        ),
        cure="test images",
    ),
    Check(
        "mask_of_image_size",
        "error",
        "ExpectColumnPairValuesToBeEqual",
        {"column_A": "mask_size", "column_B": "size", "ignore_row_if": "either_value_is_missing"},
        lambda rows, _: (
            f"masks of another size than their image ({rows['mask_size'].iloc[0]} against "
            f"{rows['size'].iloc[0]} in the first): export them again"
        ),
        cure="masks",
    ),
    Check(
        "mask_not_empty",
        "error",
        "ExpectColumnValuesToBeBetween",
        {"column": "mask_area", "min_value": 1},
        lambda rows, _: "empty mask on a defect: draw it, or delete the mask file",
        cure="masks",
    ),
    Check(
        "enough_normals",
        "error",
        "ExpectColumnSumToBeBetween",
        {"column": "train_normal"},
        lambda rows, settings: (
            f"only {int(rows['train_normal'].sum())} normal training images, min_normals is "
            f"{settings.min_normals}: add good parts{_or_ask_for_fewer(settings)}"
        ),
        settings=lambda settings: {"min_value": settings.min_normals},
    ),
    Check(
        "images_to_test_with",
        "error",
        "ExpectColumnSumToBeBetween",
        {"column": "tested", "min_value": 1},
        lambda _rows, _settings: (
            "no image is left to test with: add good parts or defects to the test images, of which the bank "
            "learns nothing"
        ),
    ),
    Check(
        "every_image_in_a_split",
        "error",
        "ExpectColumnValuesToBeInSet",
        {"column": "split", "value_set": list(SPLITS)},
        lambda rows, _: "images in no split",
    ),
    Check(
        "no_contradicting_label",
        "warning",
        "ExpectColumnValuesToBeNull",
        _no_null("contradicted_by"),
        lambda rows, _: (
            f"the same file as normal and as defect ({_paired(rows, 'contradicted_by')}): one label is wrong"
        ),
    ),
    Check(
        "no_near_duplicate_across_splits",
        "warning",
        "ExpectColumnValuesToBeNull",
        _no_null("near_duplicate_of"),
        lambda rows, _: (
            f"nearly the same picture on two sides ({_paired(rows, 'near_duplicate_of')}): figures on it are "
            "flattered"
        ),
    ),
    Check(
        "no_blank_image",
        "warning",
        "ExpectColumnValuesToBeInSet",
        {"column": "blank", "value_set": [False]},
        lambda rows, _: "all black or all white: was there light, and a part?",
    ),
    Check(
        "range_used",
        "warning",
        "ExpectColumnValuesToBeInSet",
        {"column": "range_unused", "value_set": [False]},
        lambda rows, _: _stretch(rows),
    ),
    Check(
        "brightness_usual",
        "warning",
        "ExpectColumnValuesToBeBetween",
        {
            "column": "brightness_deviation",
            "min_value": -OUTLIER_DEVIATIONS,
            "max_value": OUTLIER_DEVIATIONS,
        },
        lambda rows, _: "much brighter or darker than the other normal images: check exposure",
    ),
    Check(
        "sharpness_usual",
        "warning",
        "ExpectColumnValuesToBeBetween",
        {"column": "sharpness_deviation", "min_value": -OUTLIER_DEVIATIONS, "max_value": OUTLIER_DEVIATIONS},
        lambda rows, _: "much sharper or softer than the other normal images: check focus",
    ),
    Check(
        "normals_have_company",
        "warning",
        "ExpectColumnValuesToBeBetween",
        {"column": "loneliness", "max_value": OUTLIER_DEVIATIONS},
        lambda rows, _: "normal images unlike every other normal image: look whether they are good parts",
    ),
    Check(
        "enough_of_each_defect",
        "warning",
        "ExpectColumnValuesToBeBetween",
        {"column": "of_this_type", "min_value": FEW_OF_A_TYPE},
        lambda rows, _: (
            f"fewer than {FEW_OF_A_TYPE} images of {', '.join(sorted(set(rows['defect_type'])))}: "
            "figures by type will be coarse"
        ),
    ),
    Check(
        "mask_where_others_have_one",
        "warning",
        "ExpectColumnValuesToBeInSet",
        {"column": "mask_missing", "value_set": [False]},
        lambda rows, _: "no mask although others of the type have one: pixel figures leave them out",
    ),
    Check(
        "masks_of_every_type",
        "warning",
        "ExpectColumnValuesToBeInSet",
        {"column": "type_without_masks", "value_set": [False]},
        lambda rows, _: (
            f"no mask of {', '.join(sorted(set(rows['defect_type'])))} while other types have masks: pixel "
            "figures leave them out"
        ),
    ),
    Check(
        "nothing_passed_over",
        "warning",
        "ExpectColumnValuesToBeNull",
        _no_null("remark"),
        lambda rows, _: f"{rows['remark'].iloc[0]}",
        per_reason="remark",
    ),
    Check(
        "one_mode",
        "warning",
        "ExpectColumnPairValuesToBeEqual",
        {"column_A": "mode", "column_B": "line_mode", "ignore_row_if": "either_value_is_missing"},
        lambda rows, _: (
            f"stored as {', '.join(sorted(set(rows['mode'])))} among {rows['line_mode'].iloc[0]}: "
            "two cameras or two exports?"
        ),
    ),
    Check(
        "defects_to_learn_from",
        "warning",
        "ExpectColumnMaxToBeBetween",
        {"column": "label", "min_value": 1},
        lambda _rows, _settings: (
            "no labelled defect: fusion is tuned on synthetic ones, and no figure can be given"
        ),
    ),
    Check(
        "good_test_images",
        "warning",
        "ExpectColumnSumToBeBetween",
        {"column": "test_normal", "min_value": 1},
        lambda _rows, _settings: (
            "no good image to test with: no image AUROC, and no share of missed defects, can be given"
        ),
    ),
)
