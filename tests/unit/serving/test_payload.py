"""Images over the wire: strict base64, and errors that name the row and never quote the input."""

import base64

import pytest

from novad.errors import ImageError
from novad.serving.payload import image_bytes


@pytest.mark.parametrize("given", [b"picture", bytearray(b"picture"), memoryview(b"picture")])
def test_bytes_pass_as_they_are(given: object) -> None:
    assert image_bytes(given, "row 0") == b"picture"


def test_base64_text_is_decoded() -> None:
    assert image_bytes(base64.b64encode(b"picture").decode(), "row 0") == b"picture"


@pytest.mark.parametrize(
    "given",
    ["", "%%%", "not base64!", "cGljdHVy ZQ==", "cGljdHVyZQ", "cGljdHVyZQ==\n", "=", "é", "\ud800", b"",
     "data:image/png;base64,cGljdHVyZQ==", None, 3, 1.5, ["cGljdHVyZQ=="], {"b64": "cGljdHVyZQ=="}],
)  # fmt: skip
def test_anything_else_is_refused_by_row_without_an_echo(given: object) -> None:
    with pytest.raises(ImageError, match="row 7") as caught:
        image_bytes(given, "row 7")
    assert "cGlj" not in str(caught.value)
    assert "%%%" not in str(caught.value)
