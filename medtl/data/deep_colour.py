"""Colour of sixteen bits a channel, of which Pillow keeps the upper eight: read with all bits.

Pillow has no mode for such pixels: its decoders hand numbers of two bytes to an unpacker, named by
the "raw mode" of a tile, that drops one of them. So an image is decoded twice: as Pillow does it,
and by the unpacker for the other order of bytes, which drops the other one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import openjpeg
from PIL import Image, ImageOps, TiffImagePlugin

from medtl.data.codestream import bits_of_jpeg_2000
from medtl.data.depth import UnreadableImage

_DEEP = ("RGB;16", "RGBX;16", "RGBA;16", "RGBa;16")
_GREY_WITH_ALPHA = "LA;16B"
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def keeps_upper_bytes(image: Image.Image) -> bool:
    """Whether Pillow, when it loads this opened image, drops the lower byte of each value."""
    if image.format == "PPM":
        # the largest value that a channel has, where it is not 255
        return image.mode == "RGB" and max(_numbers(image), default=0) > 255
    return ";16" in _raw_mode(image) and image.mode != "I" and not image.mode.startswith("I;16")


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an image, opened and not loaded, is one that `deep_colour` reads."""
    raw = _raw_mode(image)
    if not _has_planes(image):
        return raw == _GREY_WITH_ALPHA or raw[:-1] in _DEEP
    # A plane of its own for each channel; Pillow would take these values for those of one byte.
    return len(raw) == 1 and max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8


def deep_colour(opened: Callable[[], Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Reads the colour uint16 [H, W, 3] and opacity uint16 [H, W] of an image, turned upright.

    Colour that was stored multiplied by its opacity counts as opaque: it is as it looks on black.

    Args:
        opened: opens the image, at the page that is taken, each time anew.

    Raises:
        UnreadableImage: planes that are not red, green and blue.
    """
    with opened() as image:
        raw, mode = _raw_mode(image), image.mode
        planes = "L" if _has_planes(image) and image.tag_v2.prefix == b"II" else "B"
    if raw == _GREY_WITH_ALPHA:
        # four bytes a pixel: the upper and the lower one of grey, then those of opacity
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
    """Reads the same of a JPEG 2000 of more than 8 bits a channel, by OpenJPEG.

    Pillow rounds such values to 8 bits, and the brightest to black.

    Raises:
        UnreadableImage: neither RGB nor grey, with opacity or without.
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
    """Colour uint16 [H, W, 3] of such opacity, as it looks on black."""
    shown = colour.astype(np.uint32) * opacity[..., None]
    return ((shown + 32767) // 65535).astype(np.uint16)


def _raw_mode(image: Image.Image) -> str:
    """How the values of an opened image are stored, in Pillow's words; '' where it does not say."""
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
    """The bytes of an image whose tiles are given other raw modes than Pillow's."""
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
