"""Pictures of the report, each within the page itself, and what of them was left out."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import pandas as pd
from PIL import Image

from novad.config import line_settings
from novad.errors import ImageError
from novad.evaluation.contact_sheet import tile_pictures
from novad.evaluation.pictures import small
from novad.images.decode import decode_bytes
from novad.tracking import PublishedRun

__all__ = ["Finding", "Group", "Shown", "Suspect", "findings", "groups", "plot", "suspicious"]

_GALLERY = "evaluate/gallery"
_MANIFEST = "validate/manifest.parquet"
_THUMBNAIL_SIDE = 160
_THUMBNAILS = 6
_TILES = 12
_MOST = 8
_MISSES = ("Misses", "Defective parts that pass, the most ordinary-looking first.", "bad")
_FALSE_ALARMS = ("False alarms", "Good parts that fail or go to review, the highest score first.", "bad")
_HITS = ("Hits", "Defective parts that fail or go to review, the clearest first.", "good")


@dataclass(frozen=True)
class Shown:
    """One test image of the gallery."""

    path: str
    defect_type: str
    decision: str
    hybrid: float
    nearest: str
    """Path of the normal image whose patch is nearest."""
    pictures: dict[str, str]
    """Data address of `image`, `map`, `patch` and `normal`."""


@dataclass(frozen=True)
class Group:
    """Test images of one fate."""

    title: str
    meaning: str
    mood: str
    """`good` where the version was right, else `bad`."""
    images: list[Shown]
    left_out: int


@dataclass(frozen=True)
class Finding:
    """Something that the data gate found."""

    severity: str
    check: str
    message: str
    images: list[tuple[str, str | None]]
    """Path, and data address where the image is still at hand."""
    left_out: int


@dataclass(frozen=True)
class Suspect:
    """A normal image that is unlike the others."""

    path: str
    robust_z: float
    excluded: bool
    picture: str
    """Data address, with a frame around the place that stands out."""


def groups(run: PublishedRun, scores: pd.DataFrame) -> list[Group]:
    """Misses, false alarms and hits among the test images, the worst first.

    Args:
        scores: with the decisions at the thresholds in force.
    """
    kept = _kept(run)
    ordered = scores.sort_values("hybrid")
    passed, defective = ordered["decision"] == "PASS", ordered["label"] == 1
    return [
        _group(run, kept, ordered[passed & defective], *_MISSES),
        _group(run, kept, ordered[~passed & ~defective][::-1], *_FALSE_ALARMS),
        _group(run, kept, ordered[~passed & defective][::-1], *_HITS),
    ]


def findings(run: PublishedRun, report: Any) -> list[Finding]:
    """What the data gate found, the gravest first, each with some of the images that it concerns."""
    told = [each for part in ("errors", "left_out", "warnings") for each in report.get(part, [])]
    if not told:
        return []
    known = run.table(_MANIFEST, ["path", "sha256"]).to_pandas().set_index("path")["sha256"]
    return [
        Finding(
            severity=each["severity"],
            check=each["check"].replace("_", " "),
            message=each["message"],
            images=[(path, _thumbnail(run, known.get(path))) for path in each["images"][:_THUMBNAILS]],
            left_out=max(0, len(each["images"]) - _THUMBNAILS),
        )
        for each in told
    ]


def suspicious(run: PublishedRun) -> list[Suspect]:
    """The bank's images that are most unlike the others, cut from the contact sheet of the training."""
    told = run.document("memory_bank/suspicious.json")["images"][:_TILES]
    if not told:
        return []
    sheet = Image.open(io.BytesIO(run.read("memory_bank/suspicious.png")), formats=("PNG",))
    return [
        Suspect(each["path"], each["robust_z"], each["excluded"], _drawn(tile))
        for each, tile in zip(told, tile_pictures(sheet, captions=2), strict=False)
    ]


def plot(run: PublishedRun, name: str) -> str | None:
    """Data address of a plot that was logged with the run; None where it was not drawn."""
    path = f"evaluate/plots/{name}"
    if path not in run.names("evaluate/plots"):
        return None
    return _address("png", run.read(path))


def _kept(run: PublishedRun) -> dict[str, Any]:
    """Gallery entries by sha256; none for versions that were evaluated before pictures were kept."""
    if f"{_GALLERY}/gallery.json" not in run.digests:
        return {}
    return {each["sha256"]: each for each in run.document(f"{_GALLERY}/gallery.json")["images"]}


def _group(
    run: PublishedRun, kept: dict[str, Any], rows: pd.DataFrame, title: str, meaning: str, mood: str
) -> Group:
    with_pictures = rows[rows["sha256"].isin(list(kept))].head(_MOST)
    images = [_shown(run, row, kept[str(row.sha256)]) for row in with_pictures.itertuples()]
    return Group(title, meaning, mood, images, len(rows) - len(images))


def _shown(run: PublishedRun, row: Any, entry: dict[str, Any]) -> Shown:
    pictures = {
        what: _address("jpeg", run.read(f"{_GALLERY}/{name}")) for what, name in entry["pictures"].items()
    }
    return Shown(row.path, row.defect_type, row.decision, row.hybrid, entry["nearest"]["path"], pictures)


def _thumbnail(run: PublishedRun, sha256: str | None) -> str | None:
    data = run.image(sha256) if sha256 is not None else None
    if data is None:
        return None
    try:
        limit = line_settings(run.workspace.params, run.line).validation.max_pixels
        return _drawn(small(decode_bytes(data, "an image", limit), _THUMBNAIL_SIDE))
    except ImageError:
        return None


def _drawn(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=80)
    return _address("jpeg", stream.getvalue())


def _address(kind: str, content: bytes) -> str:
    """Data address of a picture file."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
