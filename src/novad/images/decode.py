"""Decoding without surprises: one array layout for every image a camera or an office may deliver."""

import hashlib
import io
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from novad.errors import ImageError
from novad.images.folders import files_below

__all__ = [
    "Decoded",
    "Pixels",
    "decode",
    "decode_bytes",
    "decode_image",
    "decode_mask",
    "mask_parts",
    "read_known",
    "read_regular",
    "suffix",
    "upright_size",
]

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

# Only plain raster formats: EPS would start Ghostscript. Some cameras' JPEG is MPO, which JPEG opens.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "WEBP", "PPM", "GIF")
_SUFFIXES = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif", "BMP": ".bmp",
    "WEBP": ".webp", "PPM": ".ppm", "GIF": ".gif",
}  # fmt: skip
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_TURNED = 5  # orientations from here on swap width and height
_WHITE, _BLACK = (255, 255, 255, 255), (0, 0, 0, 255)

# ``max_pixels`` is the limit here, asked of the header; Pillow's own would refuse what the setting admits.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Decoded:
    """An image as the rest of the project sees it, and as what it was stored."""

    pixels: Pixels  # (H, W, 3), uint8 or uint16, upright
    mode: str  # Pillow's name of the stored mode, for example L, RGB, P, I;16
    bit_depth: int  # bits per channel after decoding: 8 or 16
    lossy: bool  # whether the compression may have changed values: JPEG, also inside TIFF, and most WebP


def decode_image(path: Path, max_pixels: int) -> Pixels:
    """Pixels of an image file, (H, W, 3), uint8, or uint16 for sources with more than 8 bits of grey.

    EXIF rotation is applied; grey is repeated over the channels; transparency is laid on white, as viewers
    show it. 16-bit colour comes as 8 bits, the most that Pillow keeps.

    Raises:
        ImageError: missing, empty, truncated, not an image, several frames, more than ``max_pixels``.
    """
    return decode(read_regular(path), str(path), max_pixels).pixels


def decode_bytes(data: bytes, name: str, max_pixels: int) -> Pixels:
    """Like :func:`decode_image`, of bytes that are called ``name`` in errors."""
    return decode(data, name, max_pixels).pixels


def decode_mask(path: Path, max_pixels: int) -> NDArray[np.bool_]:
    """Defect mask, (H, W): every pixel that is not black (or transparent) is defective.

    Of a mask stored with loss (JPEG), every pixel brighter than half of its maximum.

    Args:
        path: of the file, or of a folder of files whose union is the mask.
        max_pixels: larger masks are refused.
    Raises:
        ImageError: as for :func:`decode_image`; files of several sizes in one folder.
    """
    union: NDArray[np.bool_] | None = None
    for part in mask_parts(path):
        marked = _marked(decode(read_regular(part), str(part), max_pixels, background=_BLACK))
        if union is not None and marked.shape != union.shape:
            raise ImageError(f"{part}: another size than the other masks of its image; export them again")
        union = marked if union is None else np.logical_or(union, marked)
    if union is None:
        raise ImageError(f"{path}: no mask in this folder")
    return union


def _marked(decoded: Decoded) -> NDArray[np.bool_]:
    """Lossy compression leaves faint waves in what was black, around an edge: half of the maximum tells."""
    level = decoded.pixels.max(axis=2)
    least = int(level.max()) // 2 if decoded.lossy else 0
    marked: NDArray[np.bool_] = np.asarray(level > least)
    return marked


def mask_parts(path: Path) -> list[Path]:
    """The files that make up a mask."""
    return list(files_below(path)) if path.is_dir() else [path]


def read_regular(path: Path) -> bytes:
    """Content of a plain file; a pipe or device is refused instead of waited for.

    Raises:
        ImageError: missing, unreadable, or not a plain file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{path}: not a plain file")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_known(path: Path, sha256: str) -> bytes | None:
    """Content of an image file; None when it is gone or another one by now."""
    try:
        data = read_regular(path)
    except (ImageError, ValueError):  # a name from a log may hold what no path may
        return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None


def suffix(data: bytes, name: str) -> str:
    """The usual ending of a file that holds ``data``, by its content: ``.png``.

    Raises:
        ImageError: not an image of a supported format.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return _SUFFIXES[str(image.format)]
    except Exception:  # a decoder fed with damaged data may raise anything
        raise ImageError(f"{name}: not an image (or of no supported format)") from None


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height that an image file will have once it is decoded, by its header alone.

    Raises:
        ImageError: missing, not a plain file, or no image of a supported format.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode):
            with Image.open(path, formats=_FORMATS) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= _TURNED
                width, height = _stored_size(image)
                return (height, width) if turned else (width, height)
    except Exception:  # a decoder fed with damaged data may raise anything
        raise ImageError(f"{path}: cannot be read as an image") from None
    raise ImageError(f"{path}: not a plain file")


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as they lie in the file: of a TIFF newer Pillows tell those of the turned picture."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
    return image.size


def decode(
    data: bytes, name: str, max_pixels: int, background: tuple[int, int, int, int] = _WHITE
) -> Decoded:
    """Decode one image; transparent parts show ``background``.

    Raises:
        ImageError: names the image and the reason.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _refuse_unsuitable(image, name, max_pixels)
            mode = image.mode
            image.load()
            lossy = _is_lossy(image, data)
            pixels = _to_array(ImageOps.exif_transpose(image), name, background)
        if image.format == "PNG":
            _verify(data)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image (or of no supported format)") from None
    except Exception as error:  # a decoder fed with damaged data may raise anything
        raise ImageError(f"{name}: damaged or truncated: {error}") from None
    return Decoded(pixels, mode, pixels.dtype.itemsize * 8, lossy)


def _is_lossy(image: Image.Image, data: bytes) -> bool:
    if image.format == "WEBP":
        return b"VP8L" not in data  # the name of the chunk of a lossless picture
    return image.format in ("JPEG", "MPO") or "jpeg" in str(image.info.get("compression", ""))


def _verify(data: bytes) -> None:
    """Check the checksums of all chunks: Pillow shows the pixels of a PNG that lacks its end."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()


def _refuse_unsuitable(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: decompression bomb: {width} x {height} pixels, more than max_pixels = {max_pixels}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(f"{name}: has {frames} frames or pages; store each as an image of its own")


def _to_array(image: Image.Image, name: str, background: tuple[int, int, int, int]) -> Pixels:
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels have no defined range; store 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _wide_grey(image, name)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    return np.asarray(image.convert("RGB"))


def _wide_grey(image: Image.Image, name: str) -> NDArray[np.uint16]:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65_535:
        raise ImageError(f"{name}: 32-bit values from {low} to {high} do not fit 16 bits; rescale them")
    return np.repeat(values.astype(np.uint16)[..., None], 3, axis=2)
