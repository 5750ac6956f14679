"""Error lines for TIFF files that Pillow cannot open."""

from __future__ import annotations

import io

from PIL import TiffImagePlugin

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
