"""Decoding of 16-bit colour, of which Pillow keeps the upper 8 bits, with all bits.

Pillow has no mode for such pixels: its decoders pass 2-byte values to an unpacker, named by the
"raw mode" of a tile, that drops the lower byte. So an image is decoded twice: as usual, and with
the unpacker for the other byte order, which drops the upper byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openjpeg
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from medtl.imaging.decoding_limits import bits_of_jpeg_2000
from medtl.imaging.pixels import UnreadableImage

_DEEP = ("RGB;16", "RGBX;16", "RGBA;16", "RGBa;16")
_GREY_WITH_ALPHA = "LA;16B"
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def keeps_upper_bytes(image: Image.Image) -> bool:
    """Returns whether Pillow would drop the lower byte of each value of this opened image."""
    if image.format == "PPM":
        # the maximum value of a channel, unless it is 255
        return image.mode == "RGB" and max(numbers(image), default=0) > 255
    return ";16" in _raw_mode(image) and image.mode != "I" and not image.mode.startswith("I;16")


def is_deep_colour(image: Image.Image) -> bool:
    """Returns whether `deep_colour` reads this image, opened and not loaded."""
    raw = _raw_mode(image)
    if not _has_planes(image):
        return raw == _GREY_WITH_ALPHA or raw[:-1] in _DEEP
    # Planar configuration; Pillow would read these values as single bytes.
    return len(raw) == 1 and max(_tags(image).get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8


def deep_colour(opened: Callable[[], ImageFile.ImageFile]) -> tuple[np.ndarray, np.ndarray]:
    """Reads colour uint16 [H, W, 3] and opacity uint16 [H, W], with EXIF orientation applied.

    Premultiplied colour counts as opaque, since it already looks as on black.

    Args:
        opened: opens the image anew at the selected page.

    Raises:
        UnreadableImage: planes other than red, green and blue.
    """
    with opened() as image:
        raw, mode = _raw_mode(image), image.mode
        little = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.prefix == b"II"
        planes = "L" if _has_planes(image) and little else "B"
    if raw == _GREY_WITH_ALPHA:
        # four bytes per pixel: upper and lower byte of grey, then of opacity
        parts = np.moveaxis(_unpacked(opened, lambda _: "RGBA"), 2, 0)
        return np.stack([_joined(*parts[:2])] * 3, axis=2), _joined(*parts[2:])
    if len(raw) == 1:
        if mode != "RGB":
            raise UnreadableImage(
                "a TIFF of more than 8 bits with a plane for each channel, which is not read; "
                "save it with its channels interleaved (PlanarConfiguration 1)"
            )
        halves = [_unpacked(opened, f"{{}};16{half}".format) for half in (planes, _OTHER[planes])]
    else:
        first = raw.replace("RGBa", "RGBA")
        second = first[:-1] + _OTHER[first[-1]]
        halves = [_unpacked(opened, name.format) for name in (first, second)]
    values = _joined(*halves)
    opaque = np.broadcast_to(np.uint16(65535), values.shape[:2])
    return values[..., :3], values[..., 3] if raw.startswith("RGBA") else opaque


def deep_stream_colour(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Reads colour and opacity of a JPEG 2000 of more than 8 bits per channel by OpenJPEG.

    Pillow rounds such values to 8 bits, and the brightest to black.

    Raises:
        UnreadableImage: neither RGB nor grey, with or without opacity.
    """
    values = openjpeg.decode(data)
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.dtype.kind != "u" or values.dtype.itemsize > 2 or channels > 4:
        raise UnreadableImage(
            f"a JPEG 2000 of {channels} channels of {values.dtype}, which is not read; save it as "
            "grey or RGB of 8 or 16 bits"
        )
    most = 2 ** bits_of_jpeg_2000(data) - 1
    values = (np.atleast_3d(values) * (65535 / most) + 0.5).astype(np.uint16)
    opaque = np.full(values.shape[:2], 65535, np.uint16)
    opacity = opaque if channels % 2 else values[..., -1]
    return np.broadcast_to(values[..., : channels - 1 + channels % 2], (*opaque.shape, 3)), opacity


def on_black(colour: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Composes colour uint16 [H, W, 3] with its opacity on black."""
    shown = colour.astype(np.uint32) * opacity[..., None]
    return ((shown + 32767) // 65535).astype(np.uint16)


def _raw_mode(image: Image.Image) -> str:
    """Returns Pillow's raw mode of an opened image; '' if it has none."""
    arguments = _arguments(image)
    return str(arguments[0]) if arguments else ""


def numbers(image: Image.Image) -> list[int]:
    """Returns the numbers that the decoder of the first tile is given; of PNM the largest value."""
    return [each for each in _arguments(image) if isinstance(each, int)]


def _arguments(image: Image.Image) -> tuple[object, ...]:
    """Returns the arguments of the decoder of the first tile; the first is the raw mode."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ()
    arguments = image.tile[0].args
    return arguments if isinstance(arguments, tuple) else (arguments or "",)


def _has_planes(image: Image.Image) -> bool:
    return _tags(image).get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _unpacked(
    opened: Callable[[], ImageFile.ImageFile], renamed: Callable[[str], str]
) -> np.ndarray:
    """Returns the bytes of an image decoded with renamed raw modes of its tiles."""
    with opened() as image:
        image.tile = [tile._replace(args=_renamed(tile.args, renamed)) for tile in image.tile]
        image.load()
        return np.asarray(ImageOps.exif_transpose(image))


def _renamed(
    arguments: tuple[Any, ...] | str | None, renamed: Callable[[str], str]
) -> tuple[Any, ...] | str | None:
    if isinstance(arguments, tuple) and arguments:
        return (renamed(arguments[0]), *arguments[1:])
    return renamed(arguments if isinstance(arguments, str) else "")


def _joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Joins the upper and lower bytes of values to uint16."""
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    return values
