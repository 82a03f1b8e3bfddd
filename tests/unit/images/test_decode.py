"""Every stored form of a picture decodes to what a person sees, and nothing else decodes at all."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from novad.errors import ImageError, exit_code
from novad.images import decode_bytes, decode_image, decode_mask
from novad.images.decode import decode, upright_size

LIMIT = 1_000_000
RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOURS = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def _stored(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _decoded(image: Image.Image, kind: str = "PNG", **options: object) -> np.ndarray:
    return decode_bytes(_stored(image, kind, **options), "picture", LIMIT)


def test_rgb_keeps_every_value() -> None:
    pixels = _decoded(Image.fromarray(COLOURS))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, COLOURS)


def test_8_bit_grey_is_repeated_over_three_channels() -> None:
    pixels = _decoded(Image.fromarray(RAMP))
    np.testing.assert_array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=2))


def test_1_bit_images_become_black_and_white() -> None:
    bits = RAMP > 100
    np.testing.assert_array_equal(_decoded(Image.fromarray(bits))[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_all_its_bits(kind: str) -> None:
    wide = RAMP.astype(np.uint16) * 257 + 3
    pixels = _decoded(Image.fromarray(wide), kind)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.repeat(wide[..., None], 3, axis=2))


def test_big_endian_16_bit_tiff_has_the_same_values() -> None:
    wide = RAMP.astype(np.uint16) * 257 + 3
    tags = [(256, 8), (257, 6), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 6), (279, 96)]
    directory = struct.pack(">H", len(tags))
    directory += b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    data = b"MM\0*" + struct.pack(">I", 8 + 96) + wide.astype(">u2").tobytes() + directory
    pixels = decode_bytes(data, "camera.tif", LIMIT)
    np.testing.assert_array_equal(pixels[..., 1], wide)


def test_32_bit_integers_within_16_bits_are_kept_and_others_refused() -> None:
    fits = RAMP.astype(np.int32) * 200
    np.testing.assert_array_equal(_decoded(Image.fromarray(fits), "TIFF")[..., 0], fits)
    with pytest.raises(ImageError, match=r"wide\.tif: 32-bit values from 0 to 235000 do not fit"):
        decode_bytes(_stored(Image.fromarray(RAMP.astype(np.int32) * 1000), "TIFF"), "wide.tif", LIMIT)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match=r"float\.tif: floating-point"):
        decode_bytes(_stored(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "float.tif", LIMIT)


def test_palette_images_show_their_colours_not_their_indices() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50, 1, 2, 3])
    expected = [[[10, 20, 30], [200, 100, 50]], [[1, 2, 3], [200, 100, 50]]]
    np.testing.assert_array_equal(_decoded(image), expected)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.dstack([COLOURS, np.full(RAMP.shape, 255, np.uint8)])
    rgba[0, :, 3] = 0
    rgba[1, :, 3] = 51
    pixels = _decoded(Image.fromarray(rgba)).astype(int)
    np.testing.assert_array_equal(pixels[0], 255)
    assert abs(pixels[1] - (COLOURS[1] * 0.2 + 255 * 0.8)).max() <= 1
    np.testing.assert_array_equal(pixels[2:], COLOURS[2:])


def test_a_transparent_palette_entry_and_grey_with_alpha_are_laid_on_white() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    np.testing.assert_array_equal(_decoded(palette, transparency=0), [[[255] * 3, [200, 100, 50]]])
    grey = Image.fromarray(np.dstack([RAMP, np.where(RAMP > 100, 255, 0).astype(np.uint8)]), "LA")
    np.testing.assert_array_equal(_decoded(grey)[..., 0], np.where(RAMP > 100, RAMP, 255))


def test_cmyk_becomes_the_colours_it_prints() -> None:
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 0], inks[8:, :, 3] = 255, 255  # cyan above, black below
    pixels = _decoded(Image.fromarray(inks, "CMYK"), "TIFF")
    np.testing.assert_array_equal(pixels[0, 0], [0, 255, 255])
    np.testing.assert_array_equal(pixels[15, 0], [0, 0, 0])


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_rotation_is_applied(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(_decoded(Image.fromarray(COLOURS), exif=exif), np.rot90(COLOURS, turns))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_alone_tells_the_size_of_the_turned_picture(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "turned").write_bytes(_stored(Image.fromarray(COLOURS), kind, exif=exif))
    height, width, _ = decode_image(tmp_path / "turned", LIMIT).shape
    assert upright_size(tmp_path / "turned") == (width, height) == ((6, 8) if orientation > 4 else (8, 6))


def test_stored_mode_and_depth_are_reported() -> None:
    assert decode(_stored(Image.fromarray(RAMP)), "a", LIMIT).mode == "L"
    assert decode(_stored(Image.fromarray(RAMP.astype(np.uint16))), "a", LIMIT).bit_depth == 16


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated_files_are_refused_by_name(kind: str, kept: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = _stored(Image.fromarray(noise), kind)
    with pytest.raises(ImageError, match=r"^part\.png: (damaged or truncated|not an image)"):
        decode_bytes(data[: int(len(data) * kept)], "part.png", LIMIT)


def test_a_png_without_its_last_chunk_or_with_a_flipped_bit_is_refused() -> None:
    data = _stored(Image.fromarray(COLOURS))
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode_bytes(data[:-12], "cut.png", LIMIT)
    flipped = bytearray(data)
    flipped[data.index(b"IDAT") + 12] ^= 1
    with pytest.raises(ImageError, match=r"bit\.png: damaged or truncated"):
        decode_bytes(bytes(flipped), "bit.png", LIMIT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"hello, I am a text", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "damaged or truncated|not an image"),
    ],
)
def test_what_is_no_image_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=rf"^odd\.png: .*({reason})") as caught:
        decode_bytes(data, "odd.png", LIMIT)
    assert exit_code(caught.value) == 2


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    data = _png_header(30_000, 30_000)
    # By the setting, which the message names, and not by a limit of Pillow's own that no setting would raise.
    with pytest.raises(ImageError, match=r"^bomb\.png: decompression bomb: .* than max_pixels = 1000000$"):
        decode_bytes(data, "bomb.png", LIMIT)
    with pytest.raises(ImageError, match=r"8 x 6 pixels, more than max_pixels = 47"):
        decode_bytes(_stored(Image.fromarray(COLOURS)), "big.png", 47)
    assert decode_bytes(_stored(Image.fromarray(COLOURS)), "fits.png", 48).shape == (6, 8, 3)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_several_pages_are_refused() -> None:
    pages = [Image.fromarray(RAMP), Image.fromarray(RAMP)]
    data = _stored(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"scan\.tif: has 2 frames"):
        decode_bytes(data, "scan.tif", LIMIT)


def test_missing_files_folders_and_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (("gone.png", "cannot be read"), (".", "not a plain"), ("pipe.png", "not a plain")):
        with pytest.raises(ImageError, match=reason) as caught:
            decode_image(tmp_path / name, LIMIT)
        assert str(tmp_path / name) in str(caught.value)


def test_a_mask_marks_every_pixel_that_is_not_black_or_transparent(tmp_path: Path) -> None:
    faint = np.array([[0, 1], [255, 0]], np.uint8)
    Image.fromarray(faint).save(tmp_path / "faint.png")
    np.testing.assert_array_equal(decode_mask(tmp_path / "faint.png", LIMIT), faint > 0)
    drawn = np.zeros((2, 2, 4), np.uint8)
    drawn[0, 1] = (255, 0, 0, 255)
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    mask = decode_mask(tmp_path / "drawn.png", LIMIT)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, [[False, True], [False, False]])


@pytest.mark.parametrize(
    ("ending", "options"),
    [("jpg", {"quality": 60}), ("webp", {"quality": 30}), ("tif", {"compression": "jpeg", "quality": 60})],
)
def test_what_lossy_compression_leaves_around_a_mask_is_not_marked(
    ending: str, options: dict[str, object], tmp_path: Path
) -> None:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[21:40, 13:50] = 255
    Image.fromarray(drawn).save(tmp_path / f"mask.{ending}", **options)
    assert (np.asarray(Image.open(tmp_path / f"mask.{ending}").convert("L")) > 0).sum() > 1.2 * 19 * 37
    mask = decode_mask(tmp_path / f"mask.{ending}", LIMIT)
    assert abs(int(mask.sum()) - 19 * 37) <= 0.02 * 19 * 37
    Image.fromarray(drawn // 255).save(tmp_path / "lossless.webp", lossless=True)
    np.testing.assert_array_equal(decode_mask(tmp_path / "lossless.webp", LIMIT), drawn > 0)


def test_the_files_of_a_folder_are_one_mask_and_must_be_of_one_size(tmp_path: Path) -> None:
    first, second = (np.zeros((4, 6), np.uint8) for _ in range(2))
    first[0], second[:, 0] = 255, 1
    Image.fromarray(first).save(tmp_path / "000.png")
    Image.fromarray(second).save(tmp_path / "001.png")
    np.testing.assert_array_equal(decode_mask(tmp_path, LIMIT), (first | second) > 0)
    Image.fromarray(first.T).save(tmp_path / "002.png")
    with pytest.raises(ImageError, match=r"002\.png: another size"):
        decode_mask(tmp_path, LIMIT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty: no mask in this folder"):
        decode_mask(tmp_path / "empty", LIMIT)


def test_the_preview_that_some_cameras_append_to_a_jpeg_is_left_aside() -> None:
    flat = Image.new("RGB", (8, 6), (200, 100, 50))
    data = _stored(flat, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    assert abs(decode_bytes(data, "camera.jpg", LIMIT).astype(int) - (200, 100, 50)).max() <= 3
