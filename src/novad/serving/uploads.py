"""Bodies of requests: from bytes that anybody may have sent to named images, or a refusal."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser
from werkzeug.http import parse_options_header

from novad.errors import ImageError
from novad.serving.payload import image_bytes
from novad.serving.queue import Picture
from novad.serving.request_error import RequestError
from novad.tracking.model import INPUT_COLUMN

__all__ = ["Limits", "Upload", "decode_uploads", "invocation_uploads", "read_body", "score_uploads"]

_JSON, _MULTIPART = "application/json", "multipart/form-data"
_MAX_BOUNDARY = 200
_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What one request, and all that wait, may ask for."""

    request_bytes: int = 32 * _MIB
    image_bytes: int = 16 * _MIB
    images: int = 32
    pixels: int = 64_000_000
    """Of all images of a request, once decoded."""
    body_seconds: float = 30.0
    requests: int = 128
    """That are answered at the same time."""
    bodies: int = 16
    """Held at the same time, from their first byte until their images are decoded."""
    queued_images: int = 256
    queued_pixels: int = 256_000_000
    batch_images: int = 8


@dataclass(frozen=True)
class Upload:
    """An image file as it was sent."""

    name: str
    data: bytes


async def read_body(stream: AsyncIterator[bytes], announced: str | None, limits: Limits) -> bytes:
    """The body of a request, held to its limit while it arrives.

    Args:
        announced: the header Content-Length.
    Raises:
        RequestError: 413 ``request_too_large``.
    """
    too_large = RequestError(413, "request_too_large", f"a request may have {limits.request_bytes} bytes")
    if announced is not None and announced.isdecimal() and int(announced[:20]) > limits.request_bytes:
        raise too_large
    body = bytearray()
    async for chunk in stream:
        if len(body) + len(chunk) > limits.request_bytes:
            raise too_large
        body += chunk
    return bytes(body)


def score_uploads(body: bytes, content_type: str, limits: Limits) -> list[Upload]:
    """Images of a score request: files of a form, or ``{"images": [base64, ...]}``.

    Raises:
        RequestError: 415 another media type; 400 no such body; 413 too much; 422 a bad image.
    """
    kind, options = _media_type(content_type)
    if kind == _MULTIPART:
        return _checked(_form_files(body, options.get("boundary", ""), limits), limits)
    if kind != _JSON:
        raise RequestError(415, "media_type", f"send {_MULTIPART} or {_JSON}")
    document = _json_object(body, {"images"})
    return _from_values(document["images"], limits)


def invocation_uploads(body: bytes, content_type: str, limits: Limits) -> list[Upload]:
    """Images of a request in MLflow's form: ``dataframe_split`` or ``dataframe_records``, column ``image``.

    Raises:
        RequestError: as :func:`score_uploads`.
    """
    if _media_type(content_type)[0] != _JSON:
        raise RequestError(415, "media_type", f"send {_JSON}")
    document = _json_object(body, {"dataframe_split"}, {"dataframe_records"})
    if "dataframe_split" in document:
        return _from_values(_split_column(document["dataframe_split"]), limits)
    records = document["dataframe_records"]
    if not isinstance(records, list) or not all(
        isinstance(row, dict) and set(row) == {INPUT_COLUMN} for row in records
    ):
        raise RequestError(
            400, "bad_table", f"dataframe_records: rows must have the one column {INPUT_COLUMN}"
        )
    return _from_values([row[INPUT_COLUMN] for row in records], limits)


def decode_uploads(uploads: Sequence[Upload], max_pixels: int, limits: Limits) -> tuple[Picture, ...]:
    """Pixels of every image; a bomb is refused by its header, before it unfolds.

    Args:
        max_pixels: of one image of this line.
    Raises:
        RequestError: 422 ``image_refused``, 413 ``too_many_pixels``, with the index of the image.
    """
    # Image libraries load when the first image comes, not with the command line.
    from novad.images.decode import decode_bytes
    from novad.images.fingerprint import grey_statistics

    left = limits.pixels
    pictures = []
    for index, upload in enumerate(uploads):
        name = f"image {index}"
        try:
            pixels = decode_bytes(upload.data, name, max_pixels)
        except ImageError as error:
            raise _refused_image(error, index) from None
        left -= pixels.shape[0] * pixels.shape[1]
        if left < 0:
            message = f"the images of a request may have {limits.pixels} pixels together"
            raise RequestError(413, "too_many_pixels", message, index)
        digest = hashlib.sha256(upload.data).hexdigest()
        pictures.append(Picture(upload.name, digest, pixels, grey_statistics(pixels)))
    return tuple(pictures)


def _media_type(content_type: str) -> tuple[str, Mapping[str, str]]:
    kind, options = parse_options_header(content_type)
    return kind.lower(), options


def _form_files(body: bytes, boundary: str, limits: Limits) -> list[Upload]:
    if not boundary or len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
        raise RequestError(400, "bad_form", "the form names no usable boundary")
    parser = MultiPartParser(
        stream_factory=_in_memory,
        max_form_memory_size=limits.request_bytes,
        max_form_parts=limits.images,
    )
    try:
        fields, files = parser.parse(io.BytesIO(body), boundary.encode("ascii"), len(body))
    except RequestEntityTooLarge:
        raise _too_many_images(limits) from None
    except Exception:  # a parser fed with damaged data may raise anything
        raise RequestError(400, "bad_form", "the form is damaged or incomplete") from None
    if fields:
        raise RequestError(400, "bad_form", "every part must be a file with a file name")
    found = [each for name in files for each in files.getlist(name)]
    return [Upload(each.filename or f"image {at}", each.stream.read()) for at, each in enumerate(found)]


def _in_memory(*_: object, **__: object) -> IO[bytes]:
    """Where the parser puts a file: the size of the body bounds it, and an image never touches the disk."""
    return io.BytesIO()


def _json_object(body: bytes, *shapes: set[str]) -> dict[str, Any]:
    """A JSON object with exactly the keys of one of ``shapes``."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError(400, "bad_json", "the body is not JSON") from None
    if not isinstance(document, dict) or set(document) not in shapes:
        wanted = " or ".join(name for shape in shapes for name in shape)
        raise RequestError(400, "bad_request", f"the body must be an object with the one key {wanted}")
    return document


def _split_column(table: object) -> object:
    if (
        not isinstance(table, dict)
        or not set(table) <= {"index", "columns", "data"}
        or table.get("columns") != [INPUT_COLUMN]
        or not isinstance(table.get("data"), list)
        or not all(isinstance(row, list) and len(row) == 1 for row in table["data"])
    ):
        raise RequestError(400, "bad_table", f"dataframe_split: must have the one column {INPUT_COLUMN}")
    return [row[0] for row in table["data"]]


def _from_values(values: object, limits: Limits) -> list[Upload]:
    if not isinstance(values, list):
        raise RequestError(400, "bad_request", "images must be a list of base64 texts")
    if len(values) > limits.images:
        raise _too_many_images(limits)
    uploads = []
    for index, value in enumerate(values):
        try:
            uploads.append(Upload(f"image {index}", image_bytes(value, f"image {index}")))
        except ImageError as error:
            raise _refused_image(error, index) from None
    return _checked(uploads, limits)


def _checked(uploads: list[Upload], limits: Limits) -> list[Upload]:
    if not uploads:
        raise RequestError(400, "no_images", "there is no image in the request")
    for index, upload in enumerate(uploads):
        if len(upload.data) > limits.image_bytes:
            message = f"image {index} is too large; an image may have {limits.image_bytes} bytes"
            raise RequestError(413, "image_too_large", message, index)
    return uploads


def _refused_image(error: ImageError, index: int) -> RequestError:
    """Which image and what is wrong, without the decoder's own words: they may quote bytes of the image."""
    return RequestError(422, "image_refused", ": ".join(str(error).split(": ")[:2]), index)


def _too_many_images(limits: Limits) -> RequestError:
    return RequestError(413, "too_many_images", f"a request may have {limits.images} images")
