"""Every kind of image file becomes the right pixels, or one clear line."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_lossless_grey_comes_back_to_the_bit(grey, kind):
    pixels = decode(encoded(Image.fromarray(grey), kind))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, grey)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_colour_comes_back_to_the_bit(colour, kind):
    assert np.array_equal(decode(encoded(Image.fromarray(colour), kind)), colour)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(kind):
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    colour = np.stack([ramp, ramp[:, ::-1], ramp // 2], axis=2)
    pixels = decode(encoded(Image.fromarray(colour), kind, quality=95))
    assert pixels.shape == colour.shape
    assert np.abs(pixels.astype(int) - colour).mean() < 4


def test_one_bit_is_black_and_white():
    pixels = decode(encoded(Image.fromarray(np.eye(8, dtype=bool)), "PNG"))
    assert np.array_equal(pixels, np.eye(8, dtype=np.uint8) * 255)


def test_palette_is_looked_up():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert (decode(encoded(image, "PNG")) == [200, 100, 50]).all()


def test_sixteen_bits_are_stretched_to_the_whole_range():
    values = np.array([[100, 1100], [2100, 4100]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = decode(encoded(Image.fromarray(values), kind))
        assert pixels.dtype == np.uint16
        assert pixels.tolist() == [[0, 16384], [32768, 65535]]


def test_floating_point_without_a_number_counts_as_smallest():
    values = np.array([[0.5, np.nan], [1.0, 1.5]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF")).tolist() == [[0, 0], [32768, 65535]]


def test_constant_deep_image_is_black():
    values = np.full((3, 3), 700, dtype=np.uint16)
    assert not decode(encoded(Image.fromarray(values), "PNG")).any()


def test_transparency_lies_on_black(colour):
    alpha = np.zeros((20, 30, 1), dtype=np.uint8)
    alpha[:, 15:] = 255
    pixels = decode(encoded(Image.fromarray(np.concatenate([colour, alpha], axis=2)), "PNG"))
    assert not pixels[:, :15].any()
    assert np.array_equal(pixels[:, 15:], colour[:, 15:])


def test_transparent_grey_stays_grey(grey):
    image = Image.merge("LA", (Image.fromarray(grey), Image.new("L", (30, 20), 255)))
    assert np.array_equal(decode(encoded(image, "PNG")), grey)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_turns_the_image(grey, kind):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rotate by 90 degrees clockwise
    upright = decode(encoded(Image.fromarray(grey), kind, exif=exif))
    assert np.array_equal(upright, np.rot90(grey, -1))


def test_colour_with_equal_channels_is_grey(grey):
    pixels = decode(encoded(Image.fromarray(np.stack([grey] * 3, axis=2)), "PNG"))
    assert np.array_equal(pixels, grey)


def test_nearly_grey_stays_colour(grey):
    almost = np.stack([grey] * 3, axis=2)
    almost[0, 0, 2] ^= 1
    assert decode(encoded(Image.fromarray(almost), "PNG")).shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_files_cut_short_are_refused(colour, kind, share):
    whole = encoded(Image.fromarray(colour), kind)
    with pytest.raises(UnreadableImage) as refusal:
        decode(whole[: int(len(whole) * share)])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"no image", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 60_000])
def test_too_many_pixels_are_refused_by_the_header(side):
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImage, match="pixels"):
        decode(png)
