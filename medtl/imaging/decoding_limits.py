"""Limits on the cost of decoding, checked on headers before decoding.

A few kilobytes can cost minutes of decoding: each scan of a JPEG may cover the whole image, and
parsers in Python visit every chunk.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from medtl.imaging.pixels import LARGEST, UnreadableImage

MOST_SCANS = 100  # of a JPEG; progressive ones have about ten
MOST_SCANNED = 20 * LARGEST  # pixels times scans
MOST_PIECES = 100_000  # segments of a JPEG, chunks of a PNG
MOST_VALUES = 1_000_000  # values of a TIFF tag: strips or tiles
MOST_TILES = 16_384  # of a JPEG 2000
PLAIN_PIXELS = 4_000_000
_PLAIN_BYTES = 32 * 2**20
_PLAIN_PIECES = 1_000
_PLAIN_SCANS = 4  # of a baseline JPEG: one per colour

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_JPEG_2000 = b"\xff\x4f\xff\x51"
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_BIG_TIFF = {b"II+\0": "<", b"MM\0+": ">"}
_PIECES_OF_TIFF = (273, 279, 324, 325)  # offsets and byte counts of strips and tiles
# JPEG markers with a length field (ISO 10918-1 B.1.1.2); entropy-coded data has none.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_BASELINE = (0xC0, 0xC1)
_SCAN, _END = 0xDA, 0xD9


def check_effort(data: bytes) -> None:
    """Refuses a picture or compressed DICOM frame that would be too costly to decode.

    Raises:
        UnreadableImage: too many JPEG scans, JPEG 2000 tiles, TIFF strips, or chunks and segments
            of any format.
    """
    if data.startswith(_PNG):
        for number, _ in enumerate(_chunks(data)):
            _check_count("PNG", number, MOST_PIECES, "chunks")
    elif data.startswith(_JPEG):
        _Jpeg.of(data).check()
    elif data[:4] in _TIFF or data[:4] in _BIG_TIFF:
        for count in _counts_of_tiff(data):
            _check_count("TIFF", count, MOST_VALUES, "strips or tiles")
    for stream in _streams_of_jpeg_2000(data):
        _check_count("JPEG 2000", _tiles(data, stream), MOST_TILES, "tiles")


def is_plain(data: bytes) -> bool:
    """Returns whether decoding is certainly fast: a small, simple PNG, JPEG or BMP.

    False means unknown, not slow.
    """
    if len(data) > _PLAIN_BYTES:
        return False
    if data.startswith(_PNG):
        return _plain_png(data)
    if data.startswith(_JPEG):
        return _Jpeg.of(data).plain
    return data.startswith(b"BM") and _plain_bmp(data)


@dataclass(frozen=True)
class _Jpeg:
    """Coding parameters of a JPEG."""

    frame: int  # marker of the frame header
    pixels: int
    scans: int
    pieces: int

    @classmethod
    def of(cls, data: bytes) -> _Jpeg:
        frame = pixels = scans = pieces = 0
        for marker, place in _segments(data):
            pieces += 1
            scans += marker == _SCAN
            if marker in _FRAMES and not frame:
                height, width = struct.unpack_from(">HH", data.ljust(place + 9), place + 5)
                frame, pixels = marker, height * width
            if pieces > MOST_PIECES:
                break
        return cls(frame, pixels, scans, pieces)

    @property
    def plain(self) -> bool:
        return (
            self.frame in _BASELINE
            and self.pixels <= PLAIN_PIXELS
            and self.scans <= _PLAIN_SCANS
            and self.pieces <= _PLAIN_PIECES
        )

    def check(self) -> None:
        _check_count("JPEG", self.pieces, MOST_PIECES, "segments")
        _check_count("JPEG", self.scans, MOST_SCANS, "scans")
        if self.scans > 1 and self.scans * self.pixels > MOST_SCANNED:
            raise UnreadableImage(
                f"the JPEG has {self.scans} scans of {self.pixels // 1_000_000} megapixels, more "
                "than are decoded; save it anew with fewer scans, or as PNG"
            )


def _check_count(kind: str, count: int, most: int, called: str) -> None:
    if count > most:
        raise UnreadableImage(
            f"the {kind} has more than {most:,} {called}; save it anew with fewer"
        )


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields marker and offset of each segment, to the end of the image."""
    place = 2
    while found := _MARKER.search(data, place):
        place = found.start()
        marker = data[place + 1]
        yield marker, place
        if marker == _END:
            return
        place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))


def _chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields name and offset of each chunk of a PNG."""
    place = len(_PNG)
    while place + 8 <= len(data):
        yield data[place + 4 : place + 8], place
        place += 12 + int.from_bytes(data[place : place + 4], "big")


def _plain_png(data: bytes) -> bool:
    width, height, bits, interlaced = struct.unpack_from(">IIB3xB", data.ljust(33), 16)
    if interlaced or bits > 8 or width * height > PLAIN_PIXELS:
        return False
    for number, (name, _) in enumerate(_chunks(data)):
        if name in (b"zTXt", b"iTXt") or number > _PLAIN_PIECES:
            return False
    return True


def _plain_bmp(data: bytes) -> bool:
    size, width, height, compression = struct.unpack_from("<Iii4xI", data.ljust(34), 14)
    # run-length compressions, 1 and 2, are decoded in Python
    return size >= 40 and abs(width * height) <= PLAIN_PIXELS and compression in (0, 3)


def _counts_of_tiff(data: bytes) -> Iterator[int]:
    """Yields the numbers of strips or tiles in the first directory."""
    order, big = _TIFF.get(data[:4]) or _BIG_TIFF[data[:4]], data[:4] in _BIG_TIFF
    at, head, entry = (
        (8, f"{order}Q", f"{order}HHQ8x") if big else (4, f"{order}I", f"{order}HHI4x")
    )
    number = f"{order}Q" if big else f"{order}H"
    try:
        (place,) = struct.unpack_from(head, data, at)
        (count,) = struct.unpack_from(number, data, place)
        place += struct.calcsize(number)
        for each in range(min(count, 2**16)):
            tag, _, values = struct.unpack_from(entry, data, place + each * struct.calcsize(entry))
            # the decoder reports counts beyond the end of the file
            if tag in _PIECES_OF_TIFF:
                yield min(values, len(data))
    except struct.error:
        return  # truncated, which the decoder reports


def _streams_of_jpeg_2000(data: bytes) -> Iterator[int]:
    if data.startswith(_JPEG_2000):
        yield 0
    elif data[4:8] == b"jP  ":
        yield from (at.start() for at in re.finditer(re.escape(_JPEG_2000), data))


def _tiles(data: bytes, begin: int) -> int:
    """Returns the number of tiles of a codestream (ISO 15444-1 A.5.1 and B.3)."""
    if len(data) < begin + 40:
        return 0
    right, bottom, _, _, wide, high, left, top = struct.unpack_from(">8I", data, begin + 8)
    return -(-(right - left) // max(1, wide)) * -(-(bottom - top) // max(1, high))


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
"""Markers without a length field, and the fill byte that may precede a marker."""


def check_extents(frame: bytes, width: int, height: int) -> None:
    """Refuses a JPEG, JPEG-LS or JPEG 2000 frame whose size differs from the DICOM header.

    Decoders allocate by the size in the frame, and some abort the process if that fails. Other
    compressions are not checked.

    Raises:
        UnreadableImage: wrong or missing size, or decoding would cost too much.
    """
    found: set[tuple[int, int] | None]
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
    """Returns width and height: the reference grid less its offset (ISO 15444-1 A.5.1)."""
    right, bottom, left, top = (_number(frame, begin + place, 4) for place in (8, 12, 16, 20))
    return right - left, bottom - top


def _extents_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    """Returns width and height in the frame header; None where there is none."""
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
