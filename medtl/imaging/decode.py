"""Decoding of image files: pictures and DICOM; volumes are refused.

Needs numpy, Pillow and pydicom only, because the served model includes it.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin

from medtl.imaging import dicom, dicom_header
from medtl.imaging.decoding_limits import bits_of_jpeg_2000, check_effort
from medtl.imaging.intensity_range import full_range
from medtl.imaging.pixels import (
    SEVERAL,
    Decoded,
    UnreadableImage,
    check_size,
    frame_place,
    grey_if_grey,
)
from medtl.imaging.sixteen_bit_colour import (
    deep_colour,
    deep_stream_colour,
    is_deep_colour,
    keeps_upper_bytes,
    numbers,
    on_black,
)
from medtl.imaging.window_syntax import AUTO
from medtl.imaging.windows import Values, windowed

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
_HEADER = 348  # bytes of the header that NIfTI-1 has from ANALYZE 7.5
_HEADER_2 = 540  # bytes of the header of NIfTI-2
_MOST_TEXT = 4096  # bytes in which the text headers of NRRD and MetaImage name the extents


def volume_line(data: bytes) -> str | None:
    """Describes a volume by kind and number of slices, with a remedy; None for other files.

    Reads the header only, also of a compressed file.
    """
    found = _volume(_unpacked(data) if data[:2] == b"\x1f\x8b" else data)
    if found is None:
        return None
    kind, extents = found
    if len(extents) < 3:
        return f"{kind}, not an image; convert it to PNG or DICOM"
    size = " x ".join(map(str, extents))
    return (
        f"{kind} of {size}, not an image; convert its {extents[2]} slices to PNG or DICOM, "
        "a file each"
    )


def _volume(data: bytes) -> tuple[str, list[int]] | None:
    """Returns the kind and the extents (width, height, slices, ...) in the header of a volume."""
    for order in "<>":
        if data[344:347] in (b"n+1", b"ni1") or data[:4] == struct.pack(f"{order}i", _HEADER):
            kind = "a NIfTI volume" if data[344:345] == b"n" else "an ANALYZE volume"
            extents = _extents(data[40:56], f"{order}8h")
            if extents:
                return kind, extents
        if data[:4] == struct.pack(f"{order}i", _HEADER_2) and data[4:7] in (b"n+2", b"ni2"):
            return "a NIfTI volume", _extents(data[16:80], f"{order}8q")
    text = data[:_MOST_TEXT]
    if text.startswith(b"NRRD000"):
        return "an NRRD volume", _numbers(rb"^sizes:([\d ]+)", text)
    if re.search(rb"^(ObjectType|NDims)\s*=", text[:200], re.MULTILINE):
        return "a MetaImage volume", _numbers(rb"^DimSize\s*=([\d ]+)", text)
    return None


def _extents(field: bytes, layout: str) -> list[int]:
    """Returns the extents in a NIfTI header's `dim`, whose first is their count; [] if invalid."""
    if len(field) < struct.calcsize(layout):
        return []
    count, *extents = struct.unpack(layout, field)
    return extents[:count] if 1 <= count <= 7 and min(extents[:count]) > 0 else []


def _numbers(pattern: bytes, text: bytes) -> list[int]:
    found = re.search(pattern, text, re.MULTILINE)
    return [int(number) for number in found[1].split()] if found else []


def _unpacked(data: bytes) -> bytes:
    """Returns the beginning of a gzip file's content; empty if it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _MOST_TEXT)
    except zlib.error:
        return b""


_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NUMBERS = {1: "whole numbers", 2: "signed whole numbers", 3: "floating point"}
_COLOURS = {
    0: "grey",
    1: "grey",
    2: "colour",
    3: "palette colour",
    5: "CMYK colour",
    6: "YCbCr colour",
    8: "Lab colour",
    32803: "the raw values of a camera",
    34892: "the raw values of a camera",
}


def tiff_line(data: bytes) -> str | None:
    """Describes the first page of a TIFF, and a remedy; None for other files.

    Reads the first directory only.
    """
    if data[:4] not in _STARTS:
        return None
    try:
        tags = _first_directory(data)
        colour = _COLOURS.get(tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION], "other colour")
        channels = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
        bits = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        numbers = _NUMBERS.get(max(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))), "other numbers")
    # A damaged directory raises almost any exception.
    except Exception:
        return "a TIFF whose directory cannot be read: it is damaged"
    several = f"{channels} channels" if channels > 1 else "one channel"
    return (
        f"a TIFF of {several} ({colour}) in {numbers} of {bits} bits, which is not read; save it "
        "as grey or RGB, in whole numbers of 8 or 16 bits"
    )


def _first_directory(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    file = io.BytesIO(data)
    head = file.read(16 if data[2:4] in (b"+\0", b"\0+") else 8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    return tags


# Formats are named because Pillow also opens ones that start other programs (EPS). It looks
# only for imported plug-ins; Pillow does not preload the three below.
_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "DIB",
    "PPM",
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
)
_DEEP_MODES = ("I", "F")
_PHOTOMETRIC = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION

COLOUR = "this image is in colour"
SHALLOW = "this image has 8 bits a channel"
TRANSPARENT = "transparent pixels are put on black"
UPPER_BYTES = (
    "more than 8 bits a channel are read as their upper 8: save colour as PNG, or as TIFF with its "
    "channels interleaved, to have all"
)


def decode(data: bytes, frame: int = 1, window: str = AUTO) -> np.ndarray:
    """Decodes an image file and applies its EXIF orientation.

    Grey images are [H, W], colour images [H, W, 3]; a colour image with equal channels is grey.
    Up to 8 bits per channel give uint8. Deeper images and grey DICOM give uint16, stretched from
    their range (in DICOM the window, if any) to the full range, with one range for all colour
    channels; see `full_range`. Transparency is composed on black. `frame` (from 1) selects a frame
    of a DICOM file or a page of a TIFF file; other files give the first. With another `window` than
    `auto`, see `medtl.imaging.windows.windowed`.

    Raises:
        UnreadableImage: unsupported content (such as a volume), truncated data, missing frame,
            too many pixels, or a window on values without units; the message is one line.
    """
    return decode_with_remarks(data, frame, window).pixels


def decode_with_remarks(data: bytes, frame: int = 1, window: str = AUTO) -> Decoded:
    """Decodes as `decode`, and adds remarks on assumptions of the decoder."""
    return in_window(values_of(data, frame), window)


def in_window(values: Values, window: str) -> Decoded:
    """Applies a window as `decode` does.

    Raises:
        UnreadableImage: the values have no units that the window is in, or a header is malformed.
    """
    with _unreadable():
        decoded = windowed(values, window)
        return Decoded(grey_if_grey(decoded.pixels), decoded.remarks)


def values_of(data: bytes, frame: int = 1) -> Values:
    """Decodes an image file to its values before a window.

    Raises:
        UnreadableImage: as in `decode`.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    with _unreadable(data):
        check_effort(data)
        read = dicom.decode if dicom_header.is_dicom(data) else _decode_picture
        return read(data, frame)


@contextmanager
def _unreadable(data: bytes = b"") -> Iterator[None]:
    """Raises any error of a decoder as `UnreadableImage`; `data` is the file, if it is known."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(
            volume_line(data)
            or tiff_line(data)
            or "not an image in PNG, JPEG, TIFF, BMP, GIF, WebP, PNM, JPEG 2000 or DICOM format"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("the image has too many pixels") from error
    except MemoryError as error:
        raise UnreadableImage("there is not enough memory to decode the image") from error
    # Decoders answer malformed bytes with almost any exception.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"the image cannot be read ({reason[:200]})") from error


def pages(file: Path) -> int:
    """Returns the number of pages of a TIFF file; 1 for other and damaged files."""
    try:
        with Image.open(file, formats=("TIFF",)) as image:
            return image.n_frames if isinstance(image, TiffImagePlugin.TiffImageFile) else 1
    # Decoders answer malformed bytes with almost any exception.
    except Exception:
        return 1


def _decode_picture(data: bytes, frame: int) -> Values:
    def opened() -> ImageFile.ImageFile:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if isinstance(image, TiffImagePlugin.TiffImageFile) and frame > 1:
            image.seek(frame_place(frame, image.n_frames, "page"))
        return image

    with opened() as image:
        check_size(image.width, image.height)
        remarks: tuple[str, ...] = (SEVERAL,) if frame == 1 and _has_several(image) else ()
        deep_stream = image.format == "JPEG2000" and bits_of_jpeg_2000(data) > 8
        if is_deep_colour(image) or (deep_stream and not image.mode.startswith("I")):
            colour, opacity = deep_stream_colour(data) if deep_stream else deep_colour(opened)
            if opacity.min() < 65535:
                colour, remarks = on_black(colour, opacity), (*remarks, TRANSPARENT)
            stored = colour if deep_stream else grey_if_grey(colour)
            no_units = COLOUR if stored.ndim == 3 else ""
            return Values(stored, partial(full_range, stored), remarks, no_units=no_units)
        if keeps_upper_bytes(image):
            remarks += (UPPER_BYTES,)
        step = _step_of_grey(image, data)
        image.load()
        upright = ImageOps.exif_transpose(image)
        # Pillow turns such images of 8 bits, and leaves deeper ones as they are.
        zero_is_white = (
            isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
        )
    if upright.mode.startswith("I;16") or upright.mode in _DEEP_MODES:
        grey = np.asarray(upright)
        return Values(
            grey,
            partial(full_range, grey),
            remarks,
            meaning=np.asarray if step == 1 else partial(_in_steps, step),
            inverted=zero_is_white,
        )
    shallow, is_transparent = _eight_bits(upright)
    if is_transparent:
        remarks += (TRANSPARENT,)
    return Values(shallow, lambda: Decoded(shallow), remarks, no_units=SHALLOW)


def _eight_bits(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Returns an image as grey or RGB on black, uint8, and whether it has transparent pixels."""
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.array(image.convert("L")), False
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), False
    transparent = image.convert("RGBA")
    is_transparent = bool(np.asarray(transparent.getchannel("A")).min() < 255)
    black = Image.new("RGBA", transparent.size, (0, 0, 0, 255))
    return np.array(Image.alpha_composite(black, transparent).convert("RGB")), is_transparent


def _step_of_grey(image: Image.Image, data: bytes) -> float:
    """Returns the stored difference that Pillow gives as 1; not 1 where it scales to 16 bits."""
    if image.format == "PPM":
        return max(numbers(image), default=65535) / 65535
    # the bits of a JPEG 2000 are shifted to the upper end
    bits = bits_of_jpeg_2000(data) if image.format == "JPEG2000" else 16
    return 2.0 ** (bits - 16)


def _in_steps(step: float, values: np.ndarray) -> np.ndarray:
    return np.round(values * step)


def _has_several(image: Image.Image) -> bool:
    """Returns whether there are pages or frames after the first, readable or not."""
    try:
        return bool(getattr(image, "is_animated", False))
    # Decoders answer malformed bytes with almost any exception.
    except Exception:
        return True
