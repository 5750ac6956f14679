"""16-bit colour is decoded with all bits, and stretched like grey."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from openjpeg.utils import encode_array
from PIL import Image

from medtl.imaging.decode import TRANSPARENT, UPPER_BYTES, decode, decode_with_remarks
from medtl.imaging.pixels import UnreadableImage, square

PNG_COLOURS = {2: 4, 3: 2, 4: 6}  # PNG colour type by number of channels (PNG 11.2.1)


def noise(channels: int, highest: int = 65535) -> np.ndarray:
    """Draws noise [9, 11, channels] whose first channel covers 0..highest."""
    values = np.random.default_rng(channels).integers(0, highest, (9, 11, channels), endpoint=True)
    values[0, :2, 0] = 0, highest
    return values.astype(np.uint16)


def png(values: np.ndarray) -> bytes:
    """Encodes a PNG of 16 bits per channel with the filter type Sub."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    height, width, channels = values.shape
    begin, size = values.astype(">u2").tobytes(), 2 * channels
    rows = np.frombuffer(begin, np.uint8).reshape(height, width * size)
    left = np.concatenate([np.zeros((height, size), np.uint8), rows[:, :-size]], axis=1)
    coded = np.concatenate([np.ones((height, 1), np.uint8), rows - left], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOURS[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(coded.tobytes()))
        + chunk(b"IEND", b"")
    )


def tiff(
    values: np.ndarray,
    order: str = "<",
    deflated: bool = False,
    alpha: int = 0,
    planes: bool = False,
) -> bytes:
    """Encodes a TIFF of 16 bits per channel; alpha 1 is premultiplied, 2 unassociated."""
    height, width, channels = values.shape
    stored = np.moveaxis(values, 2, 0) if planes else values[None]
    strips = [part.astype(f"{order}u2").tobytes() for part in stored]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    begins = np.cumsum([8, *(len(strip) for strip in strips)]).tolist()
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [16] * channels),
        (259, 3, [8 if deflated else 1]), (262, 3, [2]), (273, 4, begins[:-1]),
        (277, 3, [channels]), (278, 4, [height]), (279, 4, [len(strip) for strip in strips]),
        (284, 3, [2 if planes else 1]), *([(338, 3, [alpha])] if channels == 4 else []),
    ]  # fmt: skip
    place, directory, more = begins[-1] + 2 + 12 * len(tags) + 4, b"", b""
    for tag, kind, numbers in tags:
        body = struct.pack(f"{order}{len(numbers)}{'HI'[kind == 4]}", *numbers)
        if len(body) > 4:
            more, body = more + body, struct.pack(f"{order}I", place + len(more))
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + body.ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, begins[-1])
    count = struct.pack(f"{order}H", len(tags))
    return head + b"".join(strips) + count + directory + struct.pack(f"{order}I", 0) + more


def test_twelve_bits_of_colour_are_stretched():
    values = noise(3, 4095)
    pixels = decode(png(values))
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, np.round(values / 4095 * 65535))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflated", [False, True])
def test_every_bit_of_a_tiff(order, deflated):
    values = noise(3)
    assert np.array_equal(decode(tiff(values, order, deflated)), values)


@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_one_after_the_other(order):
    values = noise(3)
    assert np.array_equal(decode(tiff(values, order, planes=True)), values)


def test_compressed_planes_are_read_as_eight_bits_and_told():
    values = noise(3)
    decoded = decode_with_remarks(tiff(values, deflated=True, planes=True))
    assert np.array_equal(decoded.pixels, values >> 8)
    assert decoded.remarks == (UPPER_BYTES,)


def test_deep_colour_of_ppm_is_read_as_eight_bits_and_told():
    values = noise(3)
    decoded = decode_with_remarks(b"P6 11 9 65535\n" + values.astype(">u2").tobytes())
    assert decoded.remarks == (UPPER_BYTES,)
    assert np.abs(decoded.pixels - values / 257).max() <= 1
    assert decode_with_remarks(b"P6 11 9 255\n" + bytes(297)).remarks == ()


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_colour_of_jpeg_2000(bits):
    values = np.tile(noise(3), (5, 5, 1)) >> (16 - bits)
    values[0, :2, 0] = 0, 2**bits - 1
    file = encode_array(values, bits_stored=bits, photometric_interpretation=1, use_mct=False)
    decoded = decode_with_remarks(file)
    assert decoded.remarks == ()
    assert np.abs(decoded.pixels - values / (2**bits - 1) * 65535).max() <= 0.5


def test_deep_planes_with_opacity_are_not_taken_for_bytes():
    with pytest.raises(UnreadableImage, match="8 bits with a plane for each channel"):
        decode(tiff(noise(4), alpha=2, planes=True))


def test_transparent_colour_lies_on_black():
    values = noise(4)
    values[0, :2, 3] = 65535
    expected = np.round(values[..., :3].astype(np.float64) * values[..., 3:] / 65535)
    for file in (png(values), tiff(values, alpha=2), tiff(values, ">", True, alpha=2)):
        decoded = decode_with_remarks(file)
        assert np.abs(decoded.pixels - expected).max() <= 1
        assert decoded.remarks == (TRANSPARENT,)
    values[..., 3] = 65535
    assert np.array_equal(decode(png(values)), values[..., :3])
    assert decode_with_remarks(png(values)).remarks == ()


def test_premultiplied_colour_is_taken_as_it_is():
    values = noise(4)
    assert np.array_equal(decode(tiff(values, alpha=1)), values[..., :3])


def test_transparent_grey_is_grey_of_sixteen_bits():
    values = noise(2)
    values[..., 1] = 65535
    assert np.array_equal(decode(png(values)), values[..., 0])
    values[4:, :, 1] = 0
    decoded = decode_with_remarks(png(values))
    assert np.array_equal(decoded.pixels[:4], values[:4, :, 0])
    assert not decoded.pixels[4:].any()
    assert decoded.remarks == (TRANSPARENT,)


def test_three_equal_channels_are_grey():
    values = noise(3)
    values[..., 1:] = values[..., :1]
    assert np.array_equal(decode(png(values)), values[..., 0])


def test_deep_colour_is_resized_channel_by_channel():
    values = noise(3)
    squares = square(values, 5)
    assert squares.shape == (3, 5, 5)
    assert squares.dtype == np.uint16
    assert np.array_equal(squares[1], square(np.ascontiguousarray(values[..., 1]), 5)[0])


def test_it_is_turned_upright():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(noise(3).astype(np.uint8)).save(file, "PNG", exif=exif)
    chunk = file.getvalue().partition(b"eXIf")
    length, body = chunk[0][-4:], chunk[2]
    whole = png(noise(3))
    at = whole.index(b"IDAT") - 4
    size = struct.unpack(">I", length)[0] + 4
    turned = whole[:at] + length + b"eXIf" + body[:size] + whole[at:]
    assert np.array_equal(decode(turned), np.rot90(noise(3), -1))
