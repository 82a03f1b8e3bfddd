"""Images as they arrive over the wire."""

import base64
import binascii

from novad.errors import ImageError

__all__ = ["image_bytes"]


def image_bytes(value: object, name: str) -> bytes:
    """Bytes of an image file, given as such or as strict base64 text; ``name`` stands for it in errors.

    Raises:
        ImageError: empty, of another type, or text that is not base64; the value itself is never quoted.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    elif isinstance(value, str):
        try:
            data = base64.b64decode(value.encode("ascii"), validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raise ImageError(f"{name}: the text is not base64") from None
    else:
        raise ImageError(f"{name}: an image must be base64 text or bytes, not {type(value).__name__}")
    if not data:
        raise ImageError(f"{name}: the image is empty")
    return data
