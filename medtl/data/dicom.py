"""Pixels of a DICOM file as a radiologist sees them: decompressed, rescaled, windowed, dark air.

The order of the grey-scale pipeline is DICOM PS3.3 C.7.6.3.1.2 and PS3.4 N.2: modality LUT or
rescale, then VOI LUT or window, then the inversion that MONOCHROME1 asks for. Frames of enhanced
files have their own (C.7.6.16). GDCM decodes JPEG (8 bits, lossless), JPEG-LS and JPEG 2000,
OpenJPEG high-throughput JPEG 2000, pydicom run lengths.
"""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array
from pydicom.uid import JPEGExtended12Bit

from medtl.data.depth import UnreadableImage, check_size, frame_place, full_range, unit_to_uint16


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does, with its preamble or without."""
    return data[128:132] == b"DICM" or data[:4] in (b"\x02\x00\x00\x00", b"\x08\x00\x05\x00")


def decode(data: bytes, frame: int = 1) -> np.ndarray:
    """A frame, counted from 1: uint16 [H, W] if grey, uint8 [H, W, 3] if colour.

    A file of one frame gives that one.

    Raises:
        UnreadableImage: no pixels, too many, no such frame, or a compression without a decoder
            here.
    """
    header = pydicom.dcmread(io.BytesIO(data), force=True)
    if "PixelData" not in header:
        raise UnreadableImage("the DICOM file holds no pixels")
    check_size(int(header.Columns), int(header.Rows))
    place = frame_place(frame, int(header.get("NumberOfFrames") or 1), "frame")
    try:
        stored = pixel_array(header, index=place)
    except (NotImplementedError, RuntimeError) as error:
        raise UnreadableImage(_undecodable(header)) from error
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colour = apply_color_lut(stored, header)
        return _eight_bits(colour, colour.dtype.itemsize * 8)
    if stored.ndim == 3:
        return _eight_bits(stored, int(header.BitsStored))
    _take_groups_of(header, place)
    shown = _window(apply_modality_lut(stored, header), header)
    return 65535 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown


def _undecodable(header: pydicom.Dataset) -> str:
    syntax = header.file_meta.TransferSyntaxUID
    remedy = "convert it to an uncompressed transfer syntax"
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        # Its only well-kept decoder is under the GPL, so the user has to choose it.
        remedy += ", or install pylibjpeg-libjpeg"
    return f"the DICOM file's pixels cannot be decoded ({syntax.name}); {remedy}"


def _take_groups_of(header: pydicom.Dataset, place: int) -> None:
    """Puts the rescale and window of one frame of an enhanced file where a plain file has them."""
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    for group in (*shared[:1], *own[place : place + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or ())[:1]:
                header.update(item)


def _eight_bits(colour: np.ndarray, bits: int) -> np.ndarray:
    return colour if colour.dtype == np.uint8 else (colour >> max(0, bits - 8)).astype(np.uint8)


def _window(values: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """VOI LUT, else the first window, else the whole range of the image: uint16 [H, W]."""
    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0]
        bits = int(table.LUTDescriptor[2])
        # A rescaled image is floating point; a table is looked up at whole numbers.
        values = np.round(values).astype(np.int64)
        return unit_to_uint16(apply_voi(values, header).astype(np.float64) / (2**bits - 1))
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction", "LINEAR") or "LINEAR"
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return full_range(values)
    values = values.astype(np.float64)
    if function == "SIGMOID":
        return unit_to_uint16(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR":
        # PS3.3 C.11.2.1.2.1: the window covers `width` whole values, so its ramp is one shorter.
        centre, width = centre - 0.5, width - 1
    return unit_to_uint16((values - centre) / width + 0.5)


def _first(element: object) -> float | None:
    """The first of an element's values, None where it has none."""
    if element is None or element == "":
        return None
    return float(element[0] if isinstance(element, pydicom.multival.MultiValue) else element)
