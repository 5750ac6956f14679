"""Decoding of 16-bit colour, of which Pillow keeps the upper 8 bits, with all bits.

Pillow has no mode for such pixels: its decoders pass 2-byte values to an unpacker, named by the
"raw mode" of a tile, that drops the lower byte. So an image is decoded twice: as usual, and with
the unpacker for the other byte order, which drops the upper byte.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import openjpeg
from PIL import Image, ImageOps, TiffImagePlugin

from medtl.imaging.decoding_limits import bits_of_jpeg_2000
from medtl.imaging.pixels import UnreadableImage

_DEEP = ("RGB;16", "RGBX;16", "RGBA;16", "RGBa;16")
_GREY_WITH_ALPHA = "LA;16B"
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def keeps_upper_bytes(image: Image.Image) -> bool:
    """Returns whether Pillow would drop the lower byte of each value of this opened image."""
    if image.format == "PPM":
        # the maximum value of a channel, unless it is 255
        return image.mode == "RGB" and max(_numbers(image), default=0) > 255
    return ";16" in _raw_mode(image) and image.mode != "I" and not image.mode.startswith("I;16")


def is_deep_colour(image: Image.Image) -> bool:
    """Returns whether `deep_colour` reads this image, opened and not loaded."""
    raw = _raw_mode(image)
    if not _has_planes(image):
        return raw == _GREY_WITH_ALPHA or raw[:-1] in _DEEP
    # Planar configuration; Pillow would read these values as single bytes.
    return len(raw) == 1 and max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8


def deep_colour(opened: Callable[[], Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Reads colour uint16 [H, W, 3] and opacity uint16 [H, W], with EXIF orientation applied.

    Premultiplied colour counts as opaque, since it already looks as on black.

    Args:
        opened: opens the image anew at the selected page.

    Raises:
        UnreadableImage: planes other than red, green and blue.
    """
    with opened() as image:
        raw, mode = _raw_mode(image), image.mode
        planes = "L" if _has_planes(image) and image.tag_v2.prefix == b"II" else "B"
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
        halves = [
            _unpacked(opened, lambda plane, end=end: f"{plane};16{end}")
            for end in (planes, _OTHER[planes])
        ]
    else:
        first = raw.replace("RGBa", "RGBA")
        second = first[:-1] + _OTHER[first[-1]]
        halves = [_unpacked(opened, lambda _, name=name: name) for name in (first, second)]
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
    arguments = image.tile[0].args if image.tile else None
    return str(arguments if isinstance(arguments, str) or not arguments else arguments[0])


def _numbers(image: Image.Image) -> list[int]:
    arguments = image.tile[0].args if image.tile else None
    if not isinstance(arguments, tuple):
        return []
    return [each for each in arguments if isinstance(each, int)]


def _has_planes(image: Image.Image) -> bool:
    return getattr(image, "tag_v2", {}).get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2


def _unpacked(opened: Callable[[], Image.Image], renamed: Callable[[str], str]) -> np.ndarray:
    """Returns the bytes of an image decoded with renamed raw modes of its tiles."""
    with opened() as image:
        image.tile = [
            tile._replace(
                args=renamed(tile.args)
                if isinstance(tile.args, str)
                else (renamed(tile.args[0]), *tile.args[1:])
            )
            for tile in image.tile
        ]
        image.load()
        return np.asarray(ImageOps.exif_transpose(image))


def _joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    return values
