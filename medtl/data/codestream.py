"""Size in the header of a compressed frame, read before a decoder allocates memory."""

from __future__ import annotations

import re

from medtl.data.depth import UnreadableImage
from medtl.data.effort import check_effort

_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "  # a file around a JPEG 2000 codestream, which some writers leave
# Start of frame, of JPEG and of JPEG-LS (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2).
_FRAME_MARKERS = (
    *range(0xC0, 0xC4),
    *range(0xC5, 0xC8),
    *range(0xC9, 0xCC),
    *range(0xCD, 0xD0),
    0xF7,
)
_ALONE = (0x01, 0xFF, *range(0xD0, 0xD9))
"""Markers without a length, and the byte that may fill the room before a marker."""


def check_extents(frame: bytes, width: int, height: int) -> None:
    """Refuses a JPEG, JPEG-LS or JPEG 2000 frame whose size differs from the DICOM header.

    Decoders allocate by the size in the frame, and some abort the process if that fails. Other
    compressions are not checked.

    Raises:
        UnreadableImage: wrong or missing size, or decoding would cost too much.
    """
    if frame.startswith(_JPEG_2000):
        found = {_extents_of_jpeg_2000(frame, 0)}
    elif frame.startswith(_JP2):
        found = {_extents_of_jpeg_2000(frame, at.start()) for at in re.finditer(_JPEG_2000, frame)}
    elif frame.startswith(_JPEG):
        found = {_extents_of_jpeg(frame)}
    else:
        return
    if wrong := found - {(width, height)}:
        said = " and ".join(f"{each[0]} x {each[1]}" if each else "unknown" for each in wrong)
        raise UnreadableImage(
            f"the size of the compressed frame is {said}, that of the DICOM file {width} x {height}"
        )
    check_effort(frame)


def bits_of_jpeg_2000(data: bytes) -> int:
    """Returns the bit depth of the first channel of a JPEG 2000 codestream or file; else 0.

    ISO 15444-1 A.5.1.
    """
    begin = data.find(_JPEG_2000)
    return (data[begin + 42] & 0x7F) + 1 if 0 <= begin < len(data) - 42 else 0


def _extents_of_jpeg_2000(frame: bytes, begin: int) -> tuple[int, int]:
    """Those of the reference grid less its offset (ISO 15444-1 A.5.1)."""
    right, bottom, left, top = (_number(frame, begin + place, 4) for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _extents_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _FRAME_MARKERS:
            return _number(frame, place + 7, 2), _number(frame, place + 5, 2)
        if marker == 0xFF:
            place += 1
        else:
            place += 2 if marker in _ALONE else 2 + _number(frame, place + 2, 2)
    return None


def _number(data: bytes, place: int, length: int) -> int:
    return int.from_bytes(data[place : place + length], "big")
