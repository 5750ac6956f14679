"""The header of a DICOM file, read within bounds, whether it has file meta information or not.

DICOM PS3.10 7: a file begins with a preamble and file meta information, which names the transfer
syntax. Old archives and network dumps hold bare data sets (PS3.5 7.1), mostly in implicit VR little
endian, which is the default of the network protocol.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import pydicom
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from medtl.data.depth import UnreadableImage

BARE = "a DICOM data set without file meta information is read as {}"
POINTS = "a decimal comma in a window or rescale of a DICOM file is read as a point"

_MOST_READS = 400_000
"""Of a header, one or two an element: one with more would take seconds, and fill the memory."""
_MOST_INFLATED = 256 * 2**20  # bytes
_FIRST_GROUPS = (0x0002, 0x0008)  # of file meta information, and of most data sets
_LONGEST_FIRST = 2**16  # bytes of the first element: it names a character set, a class or a date
_NUMBERS = ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does, with its preamble, without, or as a data set.

    The first 132 bytes suffice.
    """
    return data[128:132] == b"DICM" or any(_begins_data_set(data, order) for order in "<>")


def read_header(data: bytes) -> tuple[pydicom.FileDataset, tuple[str, ...]]:
    """The elements of a file, its transfer syntax among them, and a remark where it was guessed.

    Raises:
        UnreadableImage: too many elements, too large when it is inflated, or compressed in a way
            that is not named.
    """
    _check_deflated(data)
    header = pydicom.dcmread(_Bounded(data), force=True)
    if header.file_meta.get("TransferSyntaxUID"):
        return header, ()
    if "PixelData" in header and header["PixelData"].is_undefined_length:
        raise UnreadableImage(
            "the DICOM data set has no file meta information, which says how its pixels are "
            "compressed; store it as a DICOM file"
        )
    implicit, little = header.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    syntax = ImplicitVRLittleEndian if implicit else explicit
    header.file_meta.TransferSyntaxUID = syntax
    return header, (BARE.format(syntax.name.lower().replace("vr", "VR")),)


def with_points(header: pydicom.Dataset) -> tuple[str, ...]:
    """Puts a point for each decimal comma in the numbers of window and rescale; and a remark.

    DICOM (PS3.5 6.2, VR DS) knows points only; some writers go by the language of their computer.
    """
    remarks: tuple[str, ...] = ()
    for name in _NUMBERS:
        element = header.get_item(name)
        if element is not None and isinstance(element.value, bytes) and b"," in element.value:
            header[element.tag] = element._replace(value=element.value.replace(b",", b"."))
            remarks = (POINTS,)
    return remarks


def number(header: pydicom.Dataset, name: str) -> float | None:
    """The first of an element's numbers; None where it has none.

    Raises:
        UnreadableImage: it is no number.
    """
    try:
        value = header.get(name)
        if isinstance(value, pydicom.multival.MultiValue):
            value = value[0] if value else None
        found = None if value is None or value == "" else float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise _no_number(header, name) from error
    if found is not None and not math.isfinite(found):
        raise _no_number(header, name)
    return found


def _no_number(header: pydicom.Dataset, name: str) -> UnreadableImage:
    element = header.get_item(name)
    value = element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return UnreadableImage(f"the DICOM file's {name} is no number: {text.strip()[:40]}")


def _begins_data_set(data: bytes, order: str) -> bool:
    """Whether the bytes begin with two elements as a data set has them, in ascending order.

    Of a second that lies beyond the bytes nothing is known.
    """
    if len(data) < 12:
        return False
    first = struct.unpack_from(f"{order}HH", data)
    code = data[4:6].decode("latin-1")
    if first[0] not in _FIRST_GROUPS:
        return False
    if code in STANDARD_VR:
        long = code in EXPLICIT_VR_LENGTH_32
        begin, layout, place = (12, "I", 8) if long else (8, "H", 6)
    elif order == "<":
        begin, layout, place = 8, "I", 4
    else:
        return False
    (length,) = struct.unpack_from(f"{order}{layout}", data, place)
    if length > _LONGEST_FIRST:
        return False
    if len(data) < begin + length + 4:
        return True
    return struct.unpack_from(f"{order}HH", data, begin + length) > first


class _Bounded(io.BytesIO):
    """A file of which only so many pieces are read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise UnreadableImage("the DICOM file has too many elements")
        return super().read(size)


def _check_deflated(data: bytes) -> None:
    """Refuses a file whose data set was compressed as a whole, and is too large without that."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:1024]:
        return
    file = io.BytesIO(data)
    file.seek(132)
    read_dataset(file, False, True, stop_when=lambda tag, *_: tag.group != 2)
    inflating, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    while rest:
        size += len(inflating.decompress(rest, 2**20))
        rest = inflating.unconsumed_tail
        if size > _MOST_INFLATED:
            raise UnreadableImage(
                f"the deflated DICOM file holds more than {_MOST_INFLATED >> 20} MiB; store it "
                "without that compression"
            )
