"""Pixels of a DICOM file as a radiologist sees them: decompressed, rescaled, windowed, dark air.

The order of the grey-scale pipeline is DICOM PS3.3 C.7.6.3.1.2 and PS3.4 N.2: modality LUT or
rescale, then VOI LUT or window, then the inversion that MONOCHROME1 asks for. Frames of enhanced
files have their own (C.7.6.16). Pillow decodes JPEG of 8 bits, OpenJPEG all of JPEG 2000, pydicom
run lengths, and GDCM, in a process of its own, lossless JPEG and JPEG-LS.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, pixel_array
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medtl.data.apart import pixels_apart
from medtl.data.codestream import check_extents
from medtl.data.depth import (
    UnreadableImage,
    by_blocks,
    check_size,
    frame_place,
    full_range,
    unit_to_uint16,
)

# Damaged frames end the process that GDCM is in, so others decode what they can.
_DECODERS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
}
_GDCM_ALONE = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
_MOST_READS = 400_000
"""Of a header, one or two an element: one with more would take seconds, and fill the memory."""
_MOST_INFLATED = 256 * 2**20  # bytes


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
    _check_deflated(data)
    header = pydicom.dcmread(_Bounded(data), force=True)
    if "PixelData" not in header:
        raise UnreadableImage("the DICOM file holds no pixels")
    check_size(int(header.Columns), int(header.Rows))
    count = int(header.get("NumberOfFrames") or 1)
    place = frame_place(frame, count, "frame")
    if _compressed_by_frame(header):
        own = get_frame(header.PixelData, place, number_of_frames=count)
        check_extents(own, int(header.Columns), int(header.Rows))
    try:
        stored = _stored(data, header, place)
    except (NotImplementedError, RuntimeError) as error:
        raise UnreadableImage(_undecodable(header)) from error
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colour = apply_color_lut(stored, header)
        return _eight_bits(colour, colour.dtype.itemsize * 8)
    if stored.ndim == 3:
        return _eight_bits(stored, int(header.BitsStored))
    _take_groups_of(header, place)
    shown = _window(stored, header)
    return 65535 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown


def _stored(data: bytes, header: pydicom.Dataset, place: int) -> np.ndarray:
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax in _GDCM_ALONE:
        return pixels_apart(data, place)
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        return pixel_array(header, index=place)
    return pixel_array(header, index=place, decoding_plugin=_DECODERS.get(syntax, ""))


class _Bounded(io.BytesIO):
    """A file of which only so many pieces are read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise UnreadableImage("the DICOM file has too many elements")
        return super().read(size)


def _check_deflated(data: bytes) -> None:
    """Refuses a file whose data set was compressed as a whole, and is too large without that."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:1024]:
        return
    file = io.BytesIO(data)
    file.seek(132)
    read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    inflating, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    while rest:
        size += len(inflating.decompress(rest, 2**20))
        rest = inflating.unconsumed_tail
        if size > _MOST_INFLATED:
            raise UnreadableImage(
                f"the deflated DICOM file holds more than {_MOST_INFLATED >> 20} MiB; store it "
                "without that compression"
            )


def _compressed_by_frame(header: pydicom.Dataset) -> bool:
    syntax = header.file_meta.get("TransferSyntaxUID")
    return syntax is not None and syntax.is_encapsulated and syntax != RLELossless


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


def _window(stored: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    """VOI LUT, else the first window, else the whole range of the rescaled image: uint16 [H, W]."""

    def rescaled(block: np.ndarray) -> np.ndarray:
        return apply_modality_lut(block, header)

    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])

        def looked_up(block: np.ndarray) -> np.ndarray:
            # A rescaled image is floating point; a table is looked up at whole numbers.
            values = np.round(rescaled(block)).astype(np.int64)
            return unit_to_uint16(apply_voi(values, header).astype(np.float64) / (2**bits - 1))

        return by_blocks(stored, looked_up)
    centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction", "LINEAR") or "LINEAR"
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return full_range(stored, rescaled)
    if function == "LINEAR":
        # PS3.3 C.11.2.1.2.1: the window covers `width` whole values, so its ramp is one shorter.
        centre, width = centre - 0.5, width - 1

    def windowed(block: np.ndarray) -> np.ndarray:
        values = rescaled(block).astype(np.float64)
        if function == "SIGMOID":
            steepness = np.clip(-4 * (values - centre) / width, -700, 700)
            return unit_to_uint16(1 / (1 + np.exp(steepness)))
        return unit_to_uint16((values - centre) / width + 0.5)

    return by_blocks(stored, windowed)


def _first(element: object) -> float | None:
    """The first of an element's values, None where it has none."""
    if element is None or element == "":
        return None
    return float(element[0] if isinstance(element, pydicom.multival.MultiValue) else element)
