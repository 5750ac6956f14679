"""DICOM files with deviations: bare data sets, padding, decimal commas, overlays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medtl.data.loading import load
from medtl.imaging.decode import decode, decode_with_remarks
from medtl.imaging.dicom import MASKED, NO_SLOPE, PADDED
from medtl.imaging.dicom_header import POINTS, is_dicom
from medtl.imaging.intensity_range import WITHOUT_OUTLIERS
from medtl.imaging.pixels import UnreadableImage

NOISE = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)


def dicom(stored: np.ndarray, bits: int = 16, **elements: object) -> FileDataset:
    """Builds a DICOM file of stored values [H, W] or [H, W, 3]."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    file.ImageType = ["ORIGINAL", "PRIMARY"]
    file.Rows, file.Columns = stored.shape[:2]
    file.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    file.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    file.BitsAllocated, file.BitsStored, file.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    file.PixelData = stored.tobytes()
    file["PixelData"].VR = "OW"
    for name, value in elements.items():
        setattr(file, name, value)
    return file


def written(file: FileDataset) -> bytes:
    target = io.BytesIO()
    file.save_as(target, enforce_file_format=True)
    return target.getvalue()


def bare(file: FileDataset, implicit: bool = True, little: bool = True) -> bytes:
    """Encodes the data set without file meta information, as in network transfer."""
    target = io.BytesIO()
    alone = pydicom.Dataset()
    alone.update({element.tag: element for element in file})
    pydicom.dcmwrite(target, alone, implicit_vr=implicit, little_endian=little)
    return target.getvalue()


def as_text(file: FileDataset, **elements: bytes) -> FileDataset:
    """Sets decimal strings that pydicom would not write."""
    for name, value in elements.items():
        tag = Tag(name)
        file._dict[tag] = RawDataElement(tag, "DS", len(value), value, 0, False, True)
    return file


@pytest.mark.parametrize("character_set", [None, "ISO_IR 100"])
@pytest.mark.parametrize(
    ("implicit", "little", "named"),
    [
        (True, True, "implicit VR little endian"),
        (False, True, "explicit VR little endian"),
        (False, False, "explicit VR big endian"),
    ],
)
def test_a_bare_data_set_is_read_and_told(implicit, little, named, character_set):
    stored = NOISE if little else NOISE.byteswap()
    file = dicom(stored, 12)
    if character_set:
        file.SpecificCharacterSet = character_set
    data = bare(file, implicit, little)
    assert is_dicom(data[:132])
    decoded = decode_with_remarks(data)
    assert np.array_equal(decoded.pixels, decode(written(dicom(NOISE, 12))))
    assert decoded.remarks == (
        f"a DICOM data set without file meta information is read as {named}",
    )


def test_a_file_that_does_not_name_its_transfer_syntax_is_read_and_told():
    file = dicom(NOISE, 12)
    target = io.BytesIO()
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID
    del file.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(target, file, implicit_vr=True, little_endian=True)
    assert b"DICM" in target.getvalue()
    decoded = decode_with_remarks(target.getvalue())
    assert np.array_equal(decoded.pixels, decode(written(dicom(NOISE, 12))))
    assert "implicit VR little endian" in decoded.remarks[0]


def test_a_bare_data_set_with_compressed_pixels_is_refused():
    file = dicom(NOISE)
    file.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8"])
    file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    with pytest.raises(UnreadableImage, match=r"no file meta information.*as a DICOM file"):
        decode(bare(file, implicit=False))


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\0\x05\0" + b"\xff" * 200,  # an implausible length
        b"\x08\0\x08\0\x02\0\0\0ab" + b"\x08\0\x05\0" + bytes(50),  # descending
        b"\x08\0",
        b"\x89PNG\r\n\x1a\n" + bytes(124),
        b"II*\0\x08\0\0\0" + bytes(124),
        b"BM" + bytes(130),
        bytes(132),
    ],
)
def test_what_does_not_begin_as_a_data_set_is_none(data):
    assert not is_dicom(data)


def test_a_decimal_comma_is_read_as_a_point():
    elements = {
        "WindowCenter": b"2000,5", "WindowWidth": b"4000,0", "RescaleSlope": b"1,5",
        "RescaleIntercept": b"-10,25",
    }  # fmt: skip
    decoded = decode_with_remarks(written(as_text(dicom(NOISE, 12), **elements)))
    points = {name: value.replace(b",", b".") for name, value in elements.items()}
    expected = decode_with_remarks(written(as_text(dicom(NOISE, 12), **points)))
    assert np.array_equal(decoded.pixels, expected.pixels)
    assert (decoded.remarks, expected.remarks) == ((POINTS,), ())


def test_of_several_windows_with_commas_the_first_counts():
    comma = as_text(dicom(NOISE, 12), WindowCenter=rb"2000,5\40", WindowWidth=rb"4000,5\80")
    plain = dicom(NOISE, 12, WindowCenter=2000.5, WindowWidth=4000.5)
    assert np.array_equal(decode(written(comma)), decode(written(plain)))


@pytest.mark.parametrize("text", [b"40 HU ", b"nan ", b"1,000.5"])
def test_a_window_that_is_no_number_is_named(text):
    file = as_text(dicom(NOISE, 12), WindowCenter=text, WindowWidth=b"80")
    with pytest.raises(UnreadableImage, match=r"^the DICOM file's WindowCenter is not a number: "):
        decode(written(file))


def test_a_slope_of_zero_is_taken_as_one_and_told():
    decoded = decode_with_remarks(written(dicom(NOISE, 12, RescaleSlope=0, RescaleIntercept=5)))
    assert np.array_equal(decoded.pixels, decode(written(dicom(NOISE, 12))))
    assert decoded.remarks == (NO_SLOPE,)
    empty = as_text(dicom(NOISE, 12), RescaleSlope=b"", RescaleIntercept=b"")
    assert np.array_equal(decode(written(empty)), decoded.pixels)


def padded(value: int, dtype: type = np.int16) -> tuple[np.ndarray, np.ndarray]:
    """Draws values from 100 to 1100 with a border of padding, and returns its mask."""
    stored = np.random.default_rng(1).integers(100, 1100, (20, 30), endpoint=True)
    stored[5, 5:7] = 100, 1100
    where = np.ones(stored.shape, bool)
    where[3:-3, 3:-3] = False
    return np.where(where, value, stored).astype(dtype), where


def with_padding(stored: np.ndarray, kind: str, value: int, limit: int | None = None, **elements):
    file = dicom(stored, **elements)
    file.add_new("PixelPaddingValue", kind, value)
    if limit is not None:
        file.add_new("PixelPaddingRangeLimit", kind, limit)
    return written(file)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("dtype", "stored", "kind", "value"),
    [
        (np.int16, -2000, "SS", -2000),
        (np.int16, -32768, "SS", -32768),
        (np.uint16, 65535, "US", 65535),
        (np.uint16, 0, "US", 0),
        # written for the other representation
        (np.int16, -2000, "US", 63536),
        (np.uint16, 63536, "SS", -2000),
    ],
)
def test_padding_is_black_and_no_part_of_the_range(dtype, stored, kind, value, photometric):
    values, where = padded(stored, dtype)
    data = with_padding(values, kind, value, PhotometricInterpretation=photometric)
    decoded = decode_with_remarks(data)
    assert decoded.remarks == (PADDED,)
    assert not decoded.pixels[where].any()
    expected = (values[~where].astype(float) - 100) / 1000 * 65535
    if photometric == "MONOCHROME1":
        expected = 65535 - expected
    assert np.abs(decoded.pixels[~where] - expected).max() <= 1


def test_padding_is_black_within_a_window_too():
    values, where = padded(1100, np.uint16)
    window = {"WindowCenter": 600, "WindowWidth": 2000}
    pixels = decode(with_padding(values, "US", 1100, **window))
    assert not pixels[where].any()
    plain = decode(written(dicom(values, **window)))
    inside = ~where & (values != 1100)
    assert np.array_equal(pixels[inside], plain[inside])


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1900), (-1900, -2000)])
def test_a_range_of_padding(value, limit):
    values, where = padded(-2000)
    values[0, :6] = -1900, -1950, -1999, -1901, -1890, -2001
    data = with_padding(values, "SS", value, limit)
    decoded = decode_with_remarks(data)
    assert decoded.pixels[0, 0] == decoded.pixels[1, 1] == 0
    # two values of the border are outside the padding range
    low = decode(with_padding(np.where(where, -1950, values).astype(np.int16), "SS", value, limit))
    assert decoded.pixels[8, 8] > low[8, 8]


def test_padding_beyond_the_bits_that_are_stored():
    values, where = padded(-2000)
    values = np.where(where, -2000, values & 0x0FFF).astype(np.int16)
    decoded = decode_with_remarks(with_padding(values, "SS", -2000, bits=12, PixelRepresentation=1))
    assert not decoded.pixels[where].any()
    expected = (values[~where].astype(float) - 100) / 1000 * 65535
    assert np.abs(decoded.pixels[~where] - expected).max() <= 1


def test_an_image_of_padding_only_is_black():
    decoded = decode(with_padding(np.full((4, 5), -2000, np.int16), "SS", -2000))
    assert not decoded.any()


@pytest.mark.parametrize("compression", [None, RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_those_stored_are_left_out(compression, signed):
    values = NOISE if not signed else (NOISE.astype(np.int16) - 2048)
    expected = decode(written(dicom(values, 12)))
    bits = (values & 0x0FFF).astype(values.dtype)
    bits[4:9, 5:25] |= np.array(0x8000, np.uint16).astype(values.dtype)
    file = dicom(bits, 16)  # a precision at which the codec keeps every bit
    if compression is not None:
        file.compress(compression)
    file.BitsStored, file.HighBit = 12, 11
    decoded = decode_with_remarks(written(file))
    assert np.array_equal(decoded.pixels, expected)
    assert decoded.remarks == (MASKED,)


def test_values_in_the_upper_bits_of_their_words():
    file = dicom((NOISE << 4) | 5, 12, HighBit=15)
    decoded = decode_with_remarks(written(file))
    assert np.array_equal(decoded.pixels, decode(written(dicom(NOISE, 12))))
    assert decoded.remarks == ()


def test_signs_that_do_not_go_on_are_no_other_bits():
    values = NOISE.astype(np.int16) - 2048
    decoded = decode_with_remarks(written(dicom((values & 0x0FFF).astype(np.int16), 12)))
    assert np.array_equal(decoded.pixels, decode(written(dicom(values, 12))))
    assert decoded.remarks == ()


def test_outliers_of_an_image_without_a_window():
    values = np.random.default_rng(3).integers(1000, 1500, (64, 64), endpoint=True)
    values.flat[:2] = 1000, 1500
    expected = np.round((values - 1000) / 500 * 65535)
    values[9, 9], expected[9, 9] = 65535, 65535
    decoded = decode_with_remarks(written(dicom(values.astype(np.uint16))))
    assert decoded.remarks == (WITHOUT_OUTLIERS,)
    assert np.array_equal(decoded.pixels, expected)


def test_deep_colour_is_stretched_as_grey_is():
    colour = np.random.default_rng(2).integers(0, 4096, (6, 7, 3)).astype(np.uint16)
    colour[0, 0] = 0, 4095, 9
    pixels = decode(written(dicom(colour, PlanarConfiguration=0)))
    assert np.array_equal(pixels, np.round(colour / 4095 * 65535))
    planes = dicom(colour, PlanarConfiguration=1, PixelData=np.moveaxis(colour, 2, 0).tobytes())
    assert np.array_equal(decode(written(planes)), pixels)


def test_floating_point_pixels_are_named():
    file = dicom(NOISE)
    del file.PixelData
    file.FloatPixelData = NOISE.astype(np.float32).tobytes()
    with pytest.raises(UnreadableImage, match="pixels in floating point, which are not read"):
        decode(written(file))


def test_the_reader_is_told_of_how_many_images(tmp_path: Path):
    for number in range(12):
        stored = np.random.default_rng(number).integers(0, 4096, (6, 7)).astype(np.uint16)
        file = dicom(stored, 12)
        place = tmp_path / "scans" / "ab"[number % 2] / f"{number:02d}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bare(file) if number < 8 else written(file))
    notes = load(str(tmp_path / "scans"), 5, seed=0).notes
    line = (
        "a DICOM data set without file meta information is read as implicit VR little endian: "
        "8 of 12 images (a/00.dcm, a/02.dcm, ...)"
    )
    assert [note for note in notes if note.startswith("a DICOM data set")] == [line]
