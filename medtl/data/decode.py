"""Decoding of image files: the picture formats below and DICOM, of any mode.

Needs numpy, Pillow and pydicom only, because the served model includes it.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin

from medtl.data import dicom
from medtl.data.codestream import bits_of_jpeg_2000
from medtl.data.deep_colour import (
    deep_colour,
    deep_stream_colour,
    is_deep_colour,
    keeps_upper_bytes,
    on_black,
)
from medtl.data.depth import UnreadableImage, check_size, frame_place, grey_if_grey
from medtl.data.effort import check_effort
from medtl.data.remarks import SEVERAL, Decoded
from medtl.data.unread_tiff import tiff_line
from medtl.data.value_range import full_range
from medtl.data.volumes import volume_line

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

TRANSPARENT = "transparent pixels are put on black"
UPPER_BYTES = (
    "more than 8 bits a channel are read as their upper 8: save colour as PNG, or as TIFF with its "
    "channels interleaved, to have all"
)


def decode(data: bytes, frame: int = 1) -> np.ndarray:
    """Decodes an image file and applies its EXIF orientation.

    Grey images are [H, W], colour images [H, W, 3]; a colour image with equal channels is grey.
    Up to 8 bits per channel give uint8. Deeper images and grey DICOM give uint16, stretched from
    their range (in DICOM the window, if any) to the full range, with one range for all colour
    channels; see `full_range`. Transparency is composed on black. `frame` (from 1) selects a frame
    of a DICOM file or a page of a TIFF file; other files give the first.

    Raises:
        UnreadableImage: unsupported content (such as a volume), truncated data, missing frame, or
            too many pixels; the message is one line.
    """
    return decode_with_remarks(data, frame).pixels


def decode_with_remarks(data: bytes, frame: int = 1) -> Decoded:
    """Decodes as `decode`, and adds remarks on assumptions of the decoder."""
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        check_effort(data)
        read = dicom.decode if dicom.is_dicom(data) else _decode_picture
        decoded = read(data, frame)
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
    return Decoded(grey_if_grey(decoded.pixels), decoded.remarks)


def pages(file: Path) -> int:
    """Returns the number of pages of a TIFF file; 1 for other and damaged files."""
    try:
        with Image.open(file, formats=("TIFF",)) as image:
            return image.n_frames
    # Decoders answer malformed bytes with almost any exception.
    except Exception:
        return 1


def _decode_picture(data: bytes, frame: int) -> Decoded:
    def opened() -> Image.Image:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.format == "TIFF" and frame > 1:
            image.seek(frame_place(frame, image.n_frames, "page"))
        return image

    with opened() as image:
        check_size(image.width, image.height)
        remarks = (SEVERAL,) if frame == 1 and _has_several(image) else ()
        deep_stream = image.format == "JPEG2000" and bits_of_jpeg_2000(data) > 8
        if is_deep_colour(image) or (deep_stream and not image.mode.startswith("I")):
            colour, opacity = deep_stream_colour(data) if deep_stream else deep_colour(opened)
            if opacity.min() < 65535:
                colour, remarks = on_black(colour, opacity), (*remarks, TRANSPARENT)
            shown = full_range(colour)
            return Decoded(shown.pixels, remarks + shown.remarks)
        if keeps_upper_bytes(image):
            remarks += (UPPER_BYTES,)
        image.load()
        upright = ImageOps.exif_transpose(image)
        # Pillow turns such images of 8 bits, and leaves deeper ones as they are.
        zero_is_white = image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0
    if upright.mode.startswith("I;16") or upright.mode in _DEEP_MODES:
        shown = full_range(np.asarray(upright))
        pixels = 65535 - shown.pixels if zero_is_white else shown.pixels
        return Decoded(pixels, remarks + shown.remarks)
    if upright.mode in ("1", "L") and "transparency" not in upright.info:
        return Decoded(np.array(upright.convert("L")), remarks)
    if upright.has_transparency_data:
        colour = upright.convert("RGBA")
        if colour.getextrema()[3][0] < 255:
            remarks += (TRANSPARENT,)
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Decoded(np.array(Image.alpha_composite(black, colour).convert("RGB")), remarks)
    return Decoded(np.array(upright.convert("RGB")), remarks)


def _has_several(image: Image.Image) -> bool:
    """Returns whether there are pages or frames after the first, readable or not."""
    try:
        return bool(getattr(image, "is_animated", False))
    # Decoders answer malformed bytes with almost any exception.
    except Exception:
        return True
