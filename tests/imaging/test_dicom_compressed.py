"""Compressed DICOM files give the pixels that were compressed, or one line says what they are.

The files `MR_small...` and others are those that pydicom brings along.
"""

from __future__ import annotations

import base64
import importlib.util
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

from benchmarks.compressed import LOSSLESS_JPEG, encapsulated, plain, written
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
# The values of LOSSLESS_JPEG, encoded by OpenJPH 0.26.3.
HIGH_THROUGHPUT_JPEG_2000 = """
/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACf9SAAwAAgABAAEEBEAB/1wA
ByCIiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAF0AAf+TwAAunP9/0/pr/xf01/6tfIz/EP60Xv0+TF/s
/p7Ptr/lgewA9ZdCADG4AMAAKqAAFXAACUAIB474gLPAgnYAlKLiJe3AQgHstgD44AhUAP/Z
"""


def read(name: str) -> np.ndarray:
    return decode((FILES / name).read_bytes())


@pytest.mark.parametrize("kind", ["RLE", "jp2klossless", "jpeg_ls_lossless"])
def test_lossless_compression_changes_nothing(kind):
    assert np.array_equal(read(f"MR_small_{kind}.dcm"), read("MR_small.dcm"))


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [(JPEGLosslessSV1, LOSSLESS_JPEG), (HTJ2KLossless, HIGH_THROUGHPUT_JPEG_2000)],
)
def test_lossless_code_streams_of_other_programs_keep_twelve_bits(syntax, frame):
    y, x = np.mgrid[:8, :8]
    stored = ((37 * x + 331 * y + 5 * x * y) % 4096).astype(np.uint16)
    pixels = decode(encapsulated(plain(stored, 12), base64.b64decode(frame), syntax))
    assert np.array_equal(pixels, decode(written(plain(stored, 12))))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000_keeps_every_bit(bits):
    stored = np.random.default_rng(0).integers(0, 2**bits, (40, 50))
    stored = stored.astype(np.uint8 if bits == 8 else np.uint16)
    header = plain(stored, bits)
    expected = decode(written(header))
    header.compress(JPEG2000Lossless)
    assert np.array_equal(decode(written(header)), expected)


def test_baseline_jpeg_is_near_what_was_encoded():
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    stored = np.stack([ramp, ramp[:, ::-1], ramp // 2], axis=2)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=95)
    header = plain(stored, 8)
    header.PhotometricInterpretation = "YBR_FULL_422"
    pixels = decode(encapsulated(header, file.getvalue(), JPEGBaseline8Bit))
    assert pixels.shape == stored.shape
    assert np.abs(pixels.astype(int) - stored).mean() < 4


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("JPEGLSNearLossless_16.dcm", (50, 10)),
        ("SC_rgb_jls_lossy_line.dcm", (100, 100, 3)),
        ("SC_rgb_jpeg_gdcm.dcm", (100, 100, 3)),
        ("examples_jpeg2k.dcm", (480, 640, 3)),
        ("image_dfl.dcm", (512, 512)),
    ],
)
def test_other_ways_of_compression_are_read(name, shape):
    pixels = read(name)
    assert pixels.shape == shape
    assert pixels.max() > 1.9 * pixels.mean() > 0


@pytest.mark.parametrize("bits", [16, 32])
def test_colours_of_more_bits_become_sixteen(bits):
    pixels = read(f"SC_rgb_rle_{bits}bit.dcm")
    assert np.array_equal(pixels, read("SC_rgb_rle.dcm") * np.uint16(257))


def test_twelve_bits_in_lossy_jpeg_are_refused_by_name():
    if importlib.util.find_spec("libjpeg"):
        pytest.skip("the decoder that the line names is installed")
    with pytest.raises(UnreadableImage, match=r"JPEG Extended.*convert it.*pylibjpeg-libjpeg"):
        read("JPEG-lossy.dcm")


@pytest.mark.parametrize(("syntax", "name"), [(MPEG4HP41, "MPEG-4"), (JPEG2000, "JPEG 2000")])
def test_what_cannot_be_decoded_is_named_in_one_line(syntax, name):
    header = plain(np.zeros((4, 4), np.uint8), 8)
    with pytest.raises(UnreadableImage, match=f"cannot be decoded .*{name}.*; convert") as refusal:
        decode(encapsulated(header, b"no code stream", syntax))
    assert "\n" not in str(refusal.value)
