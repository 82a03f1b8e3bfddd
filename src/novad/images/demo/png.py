"""PNG files whose bytes depend on the pixels alone.

zlib and its forks compress the same pixels into different bytes, so the data is stored uncompressed
(RFC 1951, section 3.2.4) and framed by hand (RFC 1950; PNG specification, third edition).
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_png"]

_BLOCK = 65_535


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG file of (H, W) grey or (H, W, 3) RGB 8-bit pixels."""
    height, width = pixels.shape[:2]
    colour_type = 0 if pixels.ndim == 2 else 2
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", _stored(filtered)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    blocks = [b"\x78\x01"]
    for start in range(0, len(data), _BLOCK):
        part = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        blocks.append(struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part)
    return b"".join((*blocks, struct.pack(">I", zlib.adler32(data))))
