"""Decoding of DICOM pixels as displayed: decompressed, rescaled, windowed, with dark air.

The order of the grey-scale pipeline is DICOM PS3.3 C.7.6.3.1.2 and PS3.4 N.2: modality LUT or
rescale, then VOI LUT or window, then the inversion that MONOCHROME1 asks for. Frames of enhanced
files have their own (C.7.6.16). Pillow decodes JPEG of 8 bits, OpenJPEG JPEG 2000, pydicom run
lengths, and GDCM, in a process of its own, lossless JPEG and JPEG-LS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, get_decoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medtl.imaging.decoding_limits import check_extents
from medtl.imaging.dicom_header import number, read_header, with_points
from medtl.imaging.gdcm_client import pixels_apart
from medtl.imaging.intensity_range import by_value, full_range, unit_to_uint16
from medtl.imaging.pixels import Decoded, UnreadableImage, check_size, frame_place
from medtl.imaging.windows import Values

# DICOM PS3.5 8.1.1: the unused bits of a word are undefined, and hold overlays in old files.
# PS3.3 C.7.5.1.1.2: pixel padding is not part of the image.


MASKED = "bits beside those of a DICOM image's values, overlays say, are left out"
PADDED = "pixel padding is shown black and left out of the range"


def in_bits_stored(words: np.ndarray, header: pydicom.Dataset, packed: bool) -> np.ndarray:
    """Extracts the values from decoded words of any shape, signed according to the header.

    Args:
        words: decoded words, in the integer type of the header's BitsAllocated.
        header: header with BitsStored and HighBit, the position of the highest stored bit.
        packed: true for words from a codec, which ignores HighBit: the values are then in the
            lowest bits.
    """
    allocated, bits = words.dtype.itemsize * 8, int(header.BitsStored)
    if words.dtype.kind not in "iu" or not 0 < bits < allocated:
        return words
    high = int(header.get("HighBit", bits - 1))
    unused = allocated - (bits if packed or not bits <= high + 1 <= allocated else high + 1)
    # A right shift of signed numbers extends the sign.
    return np.right_shift(np.left_shift(words, unused), allocated - bits)


def holds_other_bits(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> bool:
    """Returns whether words have bits set beside these values, sign extension aside."""
    if words is values or int(header.get("HighBit", 0)) >= int(header.BitsStored):
        return False
    unsigned = words[words != values].view(f"u{words.dtype.itemsize}")
    return bool((unsigned >> int(header.BitsStored)).any())


def padding(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> np.ndarray | None:
    """Returns the padding of a grey image, bool [H, W]; None if the header defines none.

    Padding is PixelPaddingValue, or the range from it to PixelPaddingRangeLimit. Some writers use
    the other signedness, or values beyond the stored bits, so whole words are compared too.

    Args:
        words: decoded words.
        values: result of `in_bits_stored`.
        header: header of the file.
    """
    ends = [
        _as_stored(number, values.dtype)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if (number := _whole_number(header, name)) is not None
    ]
    if not ends or "PixelPaddingValue" not in header or values.dtype.kind not in "iu":
        return None
    low, high = min(ends), max(ends)
    found = (values >= low) & (values <= high)
    return found if words is values else found | ((words >= low) & (words <= high))


def _whole_number(header: pydicom.Dataset, name: str) -> int | None:
    """Returns a two-byte element of either signedness as an integer; None if empty."""
    value = header.get(name)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    return value if isinstance(value, int) else None


def _as_stored(number: int, dtype: np.dtype) -> int:
    """Reinterprets the bits of a number in an integer type."""
    return int(np.array(number & (2 ** (dtype.itemsize * 8) - 1), np.uint64).astype(dtype))


# A damaged frame ends the process that GDCM runs in, so other decoders are preferred.
_DECODERS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEG2000: "pylibjpeg",
    JPEG2000Lossless: "pylibjpeg",
}
_GDCM_ALONE = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
NO_SLOPE = "a rescale slope of 0 is taken as 1"


COLOUR = "this DICOM file is in colour"
NO_RESCALE = "CT without a rescale: a window is taken to be in stored values"


def decode(data: bytes, frame: int = 1) -> Values:
    """Decodes a frame, counted from 1; displayed, it is uint16 [H, W], in colour uint8 [H, W, 3].

    Colour of more than 8 bits gives uint16, stretched like grey without a window.

    Raises:
        UnreadableImage: no pixels, too many, missing frame, unsupported compression, or a window
            or rescale that is not a number.
    """
    header, remarks = read_header(data)
    if "PixelData" not in header:
        floating = "FloatPixelData" in header or "DoubleFloatPixelData" in header
        held = "pixels in floating point, which are not read" if floating else "no pixels"
        raise UnreadableImage(f"the DICOM file holds {held}")
    check_size(int(header.Columns), int(header.Rows))
    count = int(header.get("NumberOfFrames") or 1)
    place = frame_place(frame, count, "frame")
    packed = _compressed_by_frame(header)
    if packed:
        own = get_frame(header.PixelData, place, number_of_frames=count)
        check_extents(own, int(header.Columns), int(header.Rows))
    try:
        words = _words(data, header, place)
    except (NotImplementedError, RuntimeError) as error:
        raise UnreadableImage(_undecodable(header)) from error
    stored = in_bits_stored(words, header, packed)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colour = _eight_bits(apply_color_lut(stored, header))
        return Values(colour, lambda: Decoded(colour), remarks, no_units=COLOUR)
    if holds_other_bits(words, stored, header):
        remarks += (MASKED,)
    if stored.ndim == 3:
        is_deep = stored.dtype != np.uint8
        display = partial(full_range, stored) if is_deep else lambda: Decoded(stored)
        return Values(stored, display, remarks, no_units=COLOUR)
    _take_groups_of(header, place)
    remarks += with_points(header)
    padded = padding(words, stored, header)
    if padded is not None and padded.any():
        remarks += (PADDED,)
    rescaled, from_rescale = _rescale(header)
    is_unscaled = rescaled is np.asarray and header.get("Modality") == "CT"
    return Values(
        stored,
        partial(_displayed, stored, header, rescaled, padded),
        remarks + from_rescale,
        meaning=rescaled,
        left_out=padded,
        inverted=header.PhotometricInterpretation == "MONOCHROME1",
        unit_remarks=(NO_RESCALE,) if is_unscaled else (),
    )


def _words(data: bytes, header: pydicom.Dataset, place: int) -> np.ndarray:
    """Returns the stored words of a frame, with all bits."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _GDCM_ALONE:
        return pixels_apart(data, place)
    lossy_twelve = syntax == JPEGExtended12Bit and header.BitsStored > 8
    words, _ = get_decoder(syntax).as_array(
        header,
        index=place,
        decoding_plugin="" if lossy_twelve else _DECODERS.get(syntax, ""),
        correct_unused_bits=False,  # type: ignore[arg-type]  # pydicom's type of its options
    )
    return words


def _compressed_by_frame(header: pydicom.Dataset) -> bool:
    syntax = header.file_meta.TransferSyntaxUID
    return syntax.is_encapsulated and syntax != RLELossless


def _undecodable(header: pydicom.Dataset) -> str:
    syntax = header.file_meta.TransferSyntaxUID
    remedy = "convert it to an uncompressed transfer syntax"
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        # Its only well-kept decoder is under the GPL, so the user has to choose it.
        remedy += ", or install pylibjpeg-libjpeg"
    return f"the DICOM file's pixels cannot be decoded ({syntax.name}); {remedy}"


def _take_groups_of(header: pydicom.Dataset, place: int) -> None:
    """Copies the rescale and window of one frame of an enhanced file to the top of its header."""
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    for group in (*shared[:1], *own[place : place + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or ())[:1]:
                header.update(item)


def _eight_bits(colour: np.ndarray) -> np.ndarray:
    """Returns the entries of a palette, which use the whole range of their type."""
    return (colour >> (colour.dtype.itemsize - 1) * 8).astype(np.uint8)


def _displayed(
    stored: np.ndarray,
    header: pydicom.Dataset,
    rescaled: Callable[[np.ndarray], np.ndarray],
    padded: np.ndarray | None,
) -> Decoded:
    """Applies the VOI LUT, else the first window, else the full range: uint16 [H, W]."""
    if header.get("VOILUTSequence"):
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])

        def looked_up(values: np.ndarray) -> np.ndarray:
            # A rescaled image is floating point; a table is looked up at whole numbers.
            whole = np.round(rescaled(values)).astype(np.int64)
            return unit_to_uint16(apply_voi(whole, header).astype(np.float64) / (2**bits - 1))

        return Decoded(by_value(stored, looked_up))
    centre, width = (number(header, name) for name in ("WindowCenter", "WindowWidth"))
    function = header.get("VOILUTFunction", "LINEAR") or "LINEAR"
    if centre is None or width is None or width <= (1 if function == "LINEAR" else 0):
        return full_range(stored, rescaled, padded)
    if function == "LINEAR":
        # PS3.3 C.11.2.1.2.1: the window covers `width` whole values, so its ramp is one shorter.
        centre, width = centre - 0.5, width - 1

    def windowed(values: np.ndarray) -> np.ndarray:
        meant = rescaled(values).astype(np.float64)
        if function == "SIGMOID":
            steepness = np.clip(-4 * (meant - centre) / width, -700, 700)
            return unit_to_uint16(1 / (1 + np.exp(steepness)))
        return unit_to_uint16((meant - centre) / width + 0.5)

    return Decoded(by_value(stored, windowed))


def _rescale(
    header: pydicom.Dataset,
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...]]:
    """Returns the modality LUT or rescale as a function of stored values, and remarks."""
    slope, intercept = (number(header, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if header.get("ModalityLUTSequence"):
        return lambda stored: apply_modality_lut(stored, header), ()
    if slope is None and intercept is None:
        return np.asarray, ()
    factor = 1.0 if slope is None else slope or 1.0
    return lambda stored: stored * factor + (intercept or 0.0), (NO_SLOPE,) if slope == 0 else ()
