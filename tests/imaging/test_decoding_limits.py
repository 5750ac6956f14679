"""Files of too high decoding cost are refused by their headers, also within DICOM."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from benchmarks.crafted import (
    encapsulated,
    in_pieces,
    in_runs,
    interlaced,
    picture,
    png,
    rewritten,
    scanned,
    texts,
    tiled,
    tiled_jpeg_2000,
)
from medtl.imaging.decode import decode
from medtl.imaging.decoding_limits import check_effort, is_plain
from medtl.imaging.pixels import UnreadableImage

JPEG_FILE = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (lambda: scanned(9000, 9000, 5000), "JPEG has more than 100 scans"),
        (lambda: scanned(9000, 9000, 60), "60 scans of 81 megapixels"),
        (lambda: encapsulated(scanned(64, 64, 5000), JPEGBaseline8Bit), "more than 100 scans"),
        (lambda: png(1, 100_000_000, filled=True), r"no side may be longer than 65,535"),
        (lambda: png(100_000_000, 1, filled=True), r"no side may be longer than 65,535"),
        (lambda: in_pieces("JPEG", 200_000), "JPEG has more than 100,000 segments"),
        (lambda: in_pieces("PNG", 200_000), "PNG has more than 100,000 chunks"),
        (lambda: tiled(1100, 1), "TIFF has more than 1,000,000 strips or tiles"),
        (
            lambda: encapsulated(tiled_jpeg_2000(9984, 39), JPEG2000Lossless, 9984),
            "JPEG 2000 has more than 16,384 tiles",
        ),
    ],
)
def test_too_much_is_refused_in_one_line_and_at_once(file, reason):
    data = file()
    began = time.process_time()
    with pytest.raises(UnreadableImage, match=reason) as refusal:
        decode(data)
    assert time.process_time() - began < 2
    assert str(refusal.value).isprintable()


def test_as_many_scans_as_a_camera_writes_are_read():
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    written = io.BytesIO()
    Image.fromarray(np.stack([ramp, ramp.T.repeat(2, 1)[:40, :60], ramp], 2)).save(
        written, "JPEG", progressive=True, quality=95
    )
    check_effort(written.getvalue())
    assert np.abs(decode(written.getvalue())[..., 0].astype(int) - ramp).mean() < 4
    assert decode(scanned(60, 40, 100)).shape == (40, 60)
    assert decode(scanned(60, 40, 100, restarts=3)).shape == (40, 60)


def test_a_thumbnail_within_a_jpeg_is_not_counted():
    thumbnails = b"".join(
        b"\xff\xe2" + (len(part) + 2).to_bytes(2, "big") + part
        for part in [picture("JPEG", side=16)] * 150
    )
    whole = picture("JPEG")
    assert np.array_equal(decode(whole[:2] + thumbnails + whole[2:]), decode(whole))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_small_and_simple_files_are_plain(kind):
    assert is_plain(picture(kind))
    assert is_plain(picture(kind)[:300])
    assert is_plain(picture(kind, side=2000))
    assert not is_plain(picture(kind, side=2001))


@pytest.mark.parametrize(
    "file",
    [
        lambda: b"",
        lambda: b"junk",
        lambda: picture("GIF"),
        lambda: picture("TIFF"),
        lambda: picture("WEBP"),
        lambda: rewritten(picture("PNG"), "DICOM"),
        lambda: JPEG_FILE.read_bytes(),
        lambda: scanned(64, 64, 2),
        lambda: interlaced(64),
        lambda: in_runs(64),
        lambda: png(8, 8, extra=texts(1), filled=True),
        lambda: in_pieces("PNG", 2000),
        lambda: in_pieces("JPEG", 2000),
        lambda: picture("PNG") + bytes(2**25),
        lambda: picture("PNG").replace(b"\x40\x08\x00", b"\x40\x10\x00", 1),  # said to be deep
    ],
)
def test_other_files_are_not_plain(file):
    assert not is_plain(file())


def test_headers_cut_anywhere_are_no_error():
    wholes = [picture("PNG")[:200], scanned(16, 16, 3), picture("TIFF"), tiled(8, 4),
              tiled_jpeg_2000(64, 8)[:120], picture("BMP")[:100]]  # fmt: skip
    for whole in wholes:
        for length in range(0, len(whole), 3):
            check_effort(whole[:length])
            is_plain(whole[:length])
