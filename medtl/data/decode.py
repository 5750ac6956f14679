"""Bytes of an image file to pixels: PNG, JPEG, TIFF, BMP, GIF, WebP and DICOM, of any mode.

Needs numpy, Pillow and pydicom only, because it travels inside the served model.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, WebPImagePlugin

from medtl.data import dicom
from medtl.data.depth import UnreadableImage, check_size, full_range, grey_if_grey

# Formats are named because Pillow also opens ones that start other programs (EPS). It looks
# only for plug-ins that are imported; the two below are not among those that it imports itself.
_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    *(plugin.format for plugin in (TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile)),
)
_DEEP_MODES = ("I", "F")


def decode(data: bytes) -> np.ndarray:
    """The pixels of an image file, turned upright as its EXIF orientation says.

    Grey images are [H, W], colour images [H, W, 3]; a colour image whose channels are all equal
    is grey. Up to 8 bits a channel is uint8. Deeper grey images and grey DICOM are uint16,
    stretched so that their range (in DICOM: the window, where there is one) is the whole range.
    Transparency is put on black. Of several frames or pages the first is taken.

    Raises:
        UnreadableImage: the bytes are no such image, are cut short, or hold too many pixels;
            the message is one line.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        pixels = dicom.decode(data) if dicom.is_dicom(data) else _decode_picture(data)
    except UnreadableImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(
            "not an image in PNG, JPEG, TIFF, BMP, GIF, WebP or DICOM format"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage("the image has too many pixels") from error
    # Decoders answer malformed bytes with almost any exception.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"the image cannot be read ({reason[:200]})") from error
    return grey_if_grey(pixels)


def _decode_picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        check_size(image.width, image.height)
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode in _DEEP_MODES:
        return full_range(np.asarray(upright))
    if upright.mode in ("1", "L") and "transparency" not in upright.info:
        return np.array(upright.convert("L"))
    if upright.has_transparency_data:
        colour = upright.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return np.array(Image.alpha_composite(black, colour).convert("RGB"))
    return np.array(upright.convert("RGB"))
