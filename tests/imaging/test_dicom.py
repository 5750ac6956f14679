"""DICOM pixels go through rescale, window and inversion, in this order."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage


def dicom(stored: np.ndarray, bits: int = 16, **elements: object) -> FileDataset:
    """A small file around [H, W], [frames, H, W] or [H, W, 3] stored values."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    colour = stored.shape[-1] == 3 and stored.ndim == 3
    if stored.ndim == 3 and not colour:
        file.NumberOfFrames = stored.shape[0]
    file.Rows, file.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    file.BitsAllocated = stored.dtype.itemsize * 8
    file.BitsStored, file.HighBit = bits, bits - 1
    file.PixelRepresentation = int(stored.dtype.kind == "i")
    file.PixelData = stored.tobytes()
    for name, value in elements.items():
        setattr(file, name, value)
    return file


def written(file: FileDataset) -> bytes:
    target = io.BytesIO()
    file.save_as(target, enforce_file_format=True)
    return target.getvalue()


TWELVE = np.array([[0, 1000], [2000, 4000]], dtype=np.uint16)


def test_twelve_bits_in_sixteen_fill_the_whole_range():
    pixels = decode(written(dicom(TWELVE, bits=12)))
    assert pixels.dtype == np.uint16
    assert pixels.tolist() == [[0, 16384], [32768, 65535]]


def test_rescale_comes_before_the_window():
    file = dicom(TWELVE, bits=12, RescaleSlope=2, RescaleIntercept=-1000)
    file.WindowCenter, file.WindowWidth, file.VOILUTFunction = 2000, 4000, "LINEAR_EXACT"
    # -1000, 1000, 3000, 7000 in a window from 0 to 4000
    assert decode(written(file)).tolist() == [[0, 16384], [49151, 65535]]


def test_negative_slope_turns_dark_and_bright():
    file = dicom(TWELVE, bits=12, RescaleSlope=-1, RescaleIntercept=4000)
    assert decode(written(file)).tolist() == [[65535, 49151], [32768, 0]]


def test_linear_window_is_one_narrower_as_the_standard_says():
    values = np.array([[-1, 0, 1], [99, 100, 101]], dtype=np.int16)
    file = dicom(values, WindowCenter=50.5, WindowWidth=101)
    assert decode(written(file)).tolist() == [[0, 0, 655], [64880, 65535, 65535]]


def test_sigmoid_window_is_half_bright_at_its_centre():
    values = np.array([[-1000, 50, 1000]], dtype=np.int16)
    file = dicom(values, WindowCenter=50, WindowWidth=100, VOILUTFunction="SIGMOID")
    assert decode(written(file)).tolist() == [[0, 32768, 65535]]


def test_the_first_of_several_windows_counts():
    file = dicom(TWELVE, bits=12, VOILUTFunction="LINEAR_EXACT")
    file.WindowCenter, file.WindowWidth = [1000, 5], [2000, 5]
    assert decode(written(file)).tolist() == [[0, 32768], [65535, 65535]]


def test_a_window_without_width_is_not_used():
    file = dicom(TWELVE, bits=12, WindowCenter=5, WindowWidth=0)
    assert decode(written(file)).tolist() == [[0, 16384], [32768, 65535]]


def test_monochrome1_is_inverted_after_the_window():
    file = dicom(TWELVE, bits=12, PhotometricInterpretation="MONOCHROME1")
    file.WindowCenter, file.WindowWidth, file.VOILUTFunction = 1000, 2000, "LINEAR_EXACT"
    assert decode(written(file)).tolist() == [[65535, 32767], [0, 0]]


def test_lookup_table_comes_before_a_window():
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.LUTData = np.array([0, 255, 51, 102], dtype=np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    values = np.array([[0, 1], [2, 3]], dtype=np.uint16)
    file = dicom(values, WindowCenter=1, WindowWidth=2, VOILUTSequence=[table])
    assert decode(written(file)).tolist() == [[0, 65535], [13107, 26214]]


def test_the_first_frame_is_taken():
    frames = np.stack([TWELVE, TWELVE[::-1]])
    assert np.array_equal(decode(written(dicom(frames))), decode(written(dicom(TWELVE))))


def test_colour_is_eight_bits():
    colour = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(decode(written(dicom(colour, bits=8))), colour)


def test_run_length_compression_is_read():
    file = dicom(TWELVE, bits=12)
    file.compress(RLELossless)
    assert np.array_equal(decode(written(file)), decode(written(dicom(TWELVE, bits=12))))


def test_a_file_without_preamble_is_read():
    assert np.array_equal(decode(written(dicom(TWELVE))[132:]), decode(written(dicom(TWELVE))))


def test_a_file_without_pixels_is_refused():
    file = dicom(TWELVE)
    del file.PixelData
    with pytest.raises(UnreadableImage, match="no pixels"):
        decode(written(file))


def test_too_many_pixels_are_refused_by_the_header():
    with pytest.raises(UnreadableImage, match="megapixels"):
        decode(written(dicom(TWELVE, Rows=20_000, Columns=20_000)))


def test_pixels_cut_short_are_refused():
    with pytest.raises(UnreadableImage) as refusal:
        decode(written(dicom(TWELVE))[:-3])
    assert "\n" not in str(refusal.value)


def test_junk_in_a_compressed_file_is_refused_in_one_line():
    file = dicom(TWELVE)
    file.PixelData = pydicom.encaps.encapsulate([b"junk"])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(UnreadableImage) as refusal:
        decode(written(file))
    assert "\n" not in str(refusal.value)
