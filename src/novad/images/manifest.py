"""One row per image: what the gate checks and what every later stage reads instead of the folder."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from novad.errors import ConfigError, ImageError
from novad.images.decode import Decoded, decode, decode_mask, mask_parts, read_regular
from novad.images.fingerprint import grey_statistics, perceptual_hash, thumbnail, to_grey
from novad.images.layouts import Sample

__all__ = ["COLUMNS", "GATE_COLUMNS", "build_manifest", "describe_images", "read_manifest", "write_manifest"]

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("label", pa.int64()),
        ("defect_type", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("mode", pa.string()),
        ("bit_depth", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("sharpness", pa.float64()),
        ("mask_path", pa.string()),
        ("mask_area", pa.int64()),
        ("mask_width", pa.int64()),
        ("mask_height", pa.int64()),
        ("error", pa.string()),
        ("mask_error", pa.string()),
        ("thumbnail", pa.binary()),
    ]
)
COLUMNS: tuple[str, ...] = tuple(_SCHEMA.names)
# What the data gate alone looks at besides. It is not stored: equal images give the same manifest as before.
GATE_COLUMNS = ("maximum", "remark")
_INTEGERS = ("maximum", *(field.name for field in _SCHEMA if field.type == pa.int64()))


def build_manifest(root: Path, samples: Sequence[Sample], max_pixels: int) -> pd.DataFrame:
    """Read every image and mask once and describe it; ``split`` is left empty.

    An image that cannot be used keeps its row, with the reason in ``error`` (``mask_error`` for its mask).
    Images are streamed: at most one per worker thread is in memory.

    Args:
        root: data folder of the line; nothing outside it is opened, not even through a link.
        samples: what the layout found.
        max_pixels: larger images are refused before they are decoded.
    Returns:
        One row per sample, columns :data:`COLUMNS` and :data:`GATE_COLUMNS`, in the order of ``samples``.
    """
    workers = min(
        8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    with ThreadPoolExecutor(workers) as pool:
        rows = list(pool.map(partial(_describe, root, max_pixels), samples))
    return _typed(pd.DataFrame(rows, columns=[*COLUMNS, *GATE_COLUMNS]))


def describe_images(images: Iterable[tuple[Sample, bytes]], max_pixels: int) -> pd.DataFrame:
    """Like :func:`build_manifest`, of images without masks that lie in no data folder yet, one in memory."""
    rows = []
    for sample, data in images:
        row = _named(sample)
        try:
            _add_content(row, data, max_pixels)
        except ImageError as error:
            row["error"] = _reason(error, Path(), sample.path)
        rows.append(row)
    return _typed(pd.DataFrame(rows, columns=[*COLUMNS, *GATE_COLUMNS]))


def write_manifest(manifest: pd.DataFrame, path: Path) -> None:
    """Write parquet; equal manifests give equal bytes with the locked pyarrow."""
    table = pa.Table.from_pandas(manifest[list(COLUMNS)], schema=_SCHEMA, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")


def read_manifest(path: Path, thumbnails: bool = True) -> pd.DataFrame:
    """The manifest of a validated line.

    Args:
        path: of the parquet file.
        thumbnails: read them too; they take most of the memory, and only the data gate needs them.
    Raises:
        ConfigError: missing file, or not a manifest.
    """
    try:
        columns = [name for name in pq.read_schema(path).names if thumbnails or name != "thumbnail"]
        table = pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no manifest here; validate the line first") from None
    except pa.ArrowException as error:
        raise ConfigError(f"{path}: not a manifest: {error}") from None
    wanted = [column for column in COLUMNS if thumbnails or column != "thumbnail"]
    missing = [column for column in wanted if column not in table.column_names]
    if missing:
        raise ConfigError(f"{path}: not a manifest: lacks {', '.join(missing)}")
    return _typed(table.select(wanted).to_pandas())


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same dtypes whether a manifest was built or read: nullable integers, objects with None."""
    for column in frame.columns:
        if column in _INTEGERS:
            frame[column] = frame[column].astype("Int64")
        elif column in ("brightness", "contrast", "sharpness"):
            frame[column] = frame[column].astype("float64")
        else:
            values = frame[column].astype(object)
            frame[column] = values.where(values.notna(), None)
    return frame


def _describe(root: Path, max_pixels: int, sample: Sample) -> dict[str, Any]:
    row = _named(sample)
    try:
        _add_content(row, read_regular(_inside(root, sample.path)), max_pixels)
    except ImageError as error:
        row["error"] = _reason(error, root, sample.path)
    if sample.mask_path is not None:
        row |= _describe_mask(root, sample.mask_path, max_pixels)
    return row


def _named(sample: Sample) -> dict[str, Any]:
    return {
        "path": sample.path,
        "source": sample.source,
        "label": sample.label,
        "defect_type": sample.defect_type,
        "mask_path": sample.mask_path,
        "remark": sample.remark,
    }


def _add_content(row: dict[str, Any], data: bytes, max_pixels: int) -> None:
    """Also of a file that cannot be decoded the row holds size and digest."""
    row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    row |= _statistics(decode(data, row["path"], max_pixels))


def _describe_mask(root: Path, mask_path: str, max_pixels: int) -> dict[str, Any]:
    try:
        for part in mask_parts(_inside(root, mask_path)):
            _inside(root, part.relative_to(root).as_posix())
        mask = decode_mask(root / mask_path, max_pixels)
    except ImageError as error:
        return {"mask_error": _reason(error, root, mask_path)}
    return {"mask_area": int(mask.sum()), "mask_width": mask.shape[1], "mask_height": mask.shape[0]}


def _inside(root: Path, relative: str) -> Path:
    """The file, once links are followed, if it lies in the data folder.

    Raises:
        ImageError: it does not; nothing of it was read.
    """
    try:
        target = (root / relative).resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        raise ImageError(f"{relative}: cannot be read: a symbolic link in a circle") from None
    if not target.is_relative_to(root.resolve()):
        raise ImageError(f"{relative}: lies outside the data folder (a symbolic link or '..' leads there)")
    return root / relative


def _reason(error: ImageError, root: Path, relative: str) -> str:
    """The message without the image's name, which the row has, and without the machine's own paths."""
    inside = str(error).removeprefix(f"{root / relative}/")  # one of the files that make up a mask
    return inside.removeprefix(f"{root / relative}: ").removeprefix(f"{relative}: ")


def _statistics(decoded: Decoded) -> dict[str, Any]:
    grey = to_grey(decoded.pixels)
    return {
        "width": grey.shape[1],
        "height": grey.shape[0],
        "mode": decoded.mode,
        "bit_depth": decoded.bit_depth,
        "maximum": int(decoded.pixels.max()),
        "phash": perceptual_hash(grey),
        **asdict(grey_statistics(decoded.pixels)),
        "thumbnail": thumbnail(grey),
    }
