"""Requests that nobody should send, and how the scoring service must answer each."""

import base64
import io
import json
import struct
import zlib

from PIL import Image

__all__ = ["FORM", "GOOD", "HOSTILE", "SECRET", "b64", "part", "png"]


def png(width: int = 16, height: int = 16, value: int = 99) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (width, height), value).save(stream, "PNG")
    return stream.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _gif() -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("L", (8, 8), shade) for shade in (1, 99, 200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


SECRET = "c2VjcmV0"  # noqa: S105 - stands for whatever was sent, which no answer may repeat
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
GOOD = b64(png())


def part(
    data: bytes, head: bytes = b'name="images"; filename="a.png"', end: bytes = b"\r\n--b--\r\n"
) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + data + end


def _images_json(*images: object) -> bytes:
    return json.dumps({"images": images}).encode()


# name: (status, code, headers, body)
HOSTILE: dict[str, tuple[int, str, dict[str, str], bytes]] = {
    "no body": (400, "bad_json", JSON, b""),
    "not json": (400, "bad_json", JSON, SECRET.encode()),
    "broken json": (400, "bad_json", JSON, b'{"images": ["' + SECRET.encode()),
    "bytes that are no text": (400, "bad_json", JSON, b"\xff\xfe\x00\xd8" * 9),
    "deep nesting": (400, "bad_json", JSON, b"[" * 200_000),
    "endless number": (400, "bad_json", JSON, b'{"images": ' + b"9" * 10_000 + b"}"),
    "json null": (400, "bad_request", JSON, b"null"),
    "json list": (400, "bad_request", JSON, _images_json(GOOD)[11:-1]),
    "json number": (400, "bad_request", JSON, b"1e999"),
    "empty object": (400, "bad_request", JSON, b"{}"),
    "unknown key": (400, "bad_request", JSON, json.dumps({"images": [GOOD], SECRET: 1}).encode()),
    "wrong key": (400, "bad_request", JSON, json.dumps({"image": GOOD}).encode()),
    "images as text": (400, "bad_request", JSON, json.dumps({"images": GOOD}).encode()),
    "images as object": (400, "bad_request", JSON, json.dumps({"images": {"0": GOOD}}).encode()),
    "no image": (400, "no_images", JSON, _images_json()),
    "empty text": (422, "image_refused", JSON, _images_json("")),
    "null image": (422, "image_refused", JSON, _images_json(None)),
    "number image": (422, "image_refused", JSON, _images_json(7)),
    "true image": (422, "image_refused", JSON, _images_json(True)),
    "nested image": (422, "image_refused", JSON, _images_json([GOOD])),
    "array of pixels": (422, "image_refused", JSON, _images_json([[[0, 0, 0]] * 8] * 8)),
    "not base64": (422, "image_refused", JSON, _images_json("%%%" + SECRET)),
    "base64 with spaces": (422, "image_refused", JSON, _images_json(GOOD[:8] + " " + GOOD[8:])),
    "data address": (422, "image_refused", JSON, _images_json("data:image/png;base64," + GOOD)),
    "path name": (422, "image_refused", JSON, _images_json("../../etc/passwd")),
    "address of a file": (422, "image_refused", JSON, _images_json("file:///etc/passwd")),
    "address of a server": (422, "image_refused", JSON, _images_json("http://127.0.0.1:9/a.png")),
    "unicode": (422, "image_refused", JSON, _images_json("検査画像" * 9)),
    "lone surrogate": (422, "image_refused", JSON, b'{"images": ["\\ud800"]}'),
    "nul characters": (422, "image_refused", JSON, _images_json("\0" * 64)),
    "no image inside": (422, "image_refused", JSON, _images_json(b64(SECRET.encode() * 9))),
    "truncated png": (422, "image_refused", JSON, _images_json(b64(png()[:-20]))),
    "header of a png": (422, "image_refused", JSON, _images_json(b64(png()[:30]))),
    "damaged png": (422, "image_refused", JSON, _images_json(b64(png().replace(b"IDAT", b"IDAX")))),
    "svg": (422, "image_refused", JSON, _images_json(b64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"))),
    "postscript": (422, "image_refused", JSON, _images_json(b64(b"%!PS-Adobe-3.0 EPSF-3.0\n"))),
    "animation": (422, "image_refused", JSON, _images_json(b64(_gif()))),
    "bomb of a header": (422, "image_refused", JSON, _images_json(b64(_bomb(60_000, 60_000)))),
    "widest header": (422, "image_refused", JSON, _images_json(b64(_bomb(2**31 - 1, 2**31 - 1)))),
    "no width": (422, "image_refused", JSON, _images_json(b64(_bomb(0, 10)))),
    "many pixels": (413, "too_many_pixels", JSON, _images_json(*[b64(png(1000, 1000))] * 4)),
    "many images": (413, "too_many_images", JSON, _images_json(*[GOOD] * 9)),
    "huge batch": (413, "too_many_images", JSON, _images_json(*[""] * 100_000)),
    "large image": (413, "image_too_large", JSON, _images_json(b64(bytes(200_001)))),
    "large request": (413, "request_too_large", JSON, b"[" + b" " * 1_000_000 + b"]"),
    "announced size": (413, "request_too_large", JSON | {"content-length": "9" * 30}, b"{}"),
    "no media type": (415, "media_type", {"content-type": ""}, _images_json(GOOD)),
    "text": (415, "media_type", {"content-type": "text/plain"}, _images_json(GOOD)),
    "bare image": (415, "media_type", {"content-type": "image/png"}, png()),
    "odd media type": (415, "media_type", {"content-type": ";;;=," * 99}, _images_json(GOOD)),
    "compressed": (415, "content_encoding", JSON | {"content-encoding": "gzip"}, zlib.compress(b"{}")),
    "form without boundary": (400, "bad_form", {"content-type": "multipart/form-data"}, part(png())),
    "form with long boundary": (
        400,
        "bad_form",
        {"content-type": f"multipart/form-data; boundary={'b' * 300}"},
        part(png()),
    ),
    "empty form": (400, "no_images", FORM, b"--b--\r\n"),
    "no form": (400, "bad_form", FORM, png()),
    "cut form": (400, "bad_form", FORM, part(png(), end=b"")),
    "form with a field": (400, "bad_form", FORM, part(SECRET.encode(), b'name="images"')),
    "form without disposition": (400, "bad_form", FORM, b"--b\r\nX: y\r\n\r\n" + png() + b"\r\n--b--\r\n"),
    "form of no text": (400, "bad_form", FORM, part(png(), b'name="\xff\xfe"; filename="\xff"')),
    "empty file": (422, "image_refused", FORM, part(b"")),
    "file of text": (422, "image_refused", FORM, part(SECRET.encode())),
    "form of many": (413, "too_many_images", FORM, part(png(), end=b"\r\n") * 9 + b"--b--\r\n"),
}
