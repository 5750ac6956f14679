"""Unreadable TIFF files are described; the choice of the first page is noted."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from medtl.imaging.decode import decode, decode_with_remarks, tiff_line
from medtl.imaging.pixels import SEVERAL, UnreadableImage


def tiff(channels: int, bits: int, numbers: int, colour: int, order: str = "<") -> bytes:
    """Encodes a TIFF of 2 x 2 zeros, in one strip at byte 8."""
    size = 4 * channels * bits // 8
    tags = [(256, [2]), (257, [2]), (258, [bits] * channels), (259, [1]), (262, [colour]),
            (273, [8]), (277, [channels]), (278, [2]), (279, [size]),
            (339, [numbers] * channels)]  # fmt: skip
    place, directory, more = 8 + size + 2 + 12 * len(tags) + 4, b"", b""
    for tag, values in tags:
        body = struct.pack(f"{order}{len(values)}H", *values)
        if len(body) > 4:
            more, body = more + body, struct.pack(f"{order}I", place + len(more))
        directory += struct.pack(f"{order}HHI", tag, 3, len(values)) + body.ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + size)
    return head + bytes(size) + struct.pack(f"{order}H", len(tags)) + directory + bytes(4) + more


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("channels", "bits", "numbers", "colour", "said"),
    [
        (5, 8, 1, 1, r"a TIFF of 5 channels \(grey\) in whole numbers of 8 bits"),
        (3, 32, 3, 2, r"a TIFF of 3 channels \(colour\) in floating point of 32 bits"),
        (2, 16, 1, 1, r"a TIFF of 2 channels \(grey\) in whole numbers of 16 bits"),
        (1, 64, 3, 1, r"a TIFF of one channel \(grey\) in floating point of 64 bits"),
        (3, 32, 1, 2, r"a TIFF of 3 channels \(colour\) in whole numbers of 32 bits"),
        (1, 32, 5, 1, r"a TIFF of one channel \(grey\) in other numbers of 32 bits"),
    ],
)
def test_it_is_named(channels, bits, numbers, colour, said, order):
    with pytest.raises(UnreadableImage, match=f"^{said}, which is not read; save it as grey"):
        decode(tiff(channels, bits, numbers, colour, order))


def test_what_is_no_tiff_and_what_is_damaged():
    assert tiff_line(b"GIF89a") is None
    whole = tiff(5, 8, 1, 1)
    for length in (4, 8, 20, 60, len(whole) - 30):
        assert "damaged" in tiff_line(whole[:length]) or "5 channels" in tiff_line(whole[:length])
    assert "damaged" in tiff_line(b"II*\0")


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP", "MPO"])
def test_the_first_of_several_is_taken_and_told(kind):
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    first, second = Image.fromarray(ramp), Image.fromarray(ramp[:, ::-1].copy())
    for more, remarks in (([second], (SEVERAL,)), ([], ())):
        file = io.BytesIO()
        first.save(file, kind, save_all=True, append_images=more)
        decoded = decode_with_remarks(file.getvalue())
        assert decoded.remarks == remarks
        shown = decoded.pixels.reshape(40, 60, -1).mean(axis=2)
        assert np.abs(shown - ramp).mean() < 4
    file = io.BytesIO()
    if kind == "TIFF":
        first.save(file, kind, save_all=True, append_images=[second])
        assert decode_with_remarks(file.getvalue(), 2).remarks == ()
