"""Bounded reading of DICOM headers, with or without file meta information.

DICOM PS3.10 7: a file begins with a preamble and file meta information, which gives the transfer
syntax. Old archives and network dumps contain bare data sets (PS3.5 7.1), mostly in implicit VR
little endian, the default of the network protocol.
"""

from __future__ import annotations

import io
import math
import struct
import zlib

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from medtl.imaging.pixels import UnreadableImage

BARE = "a DICOM data set without file meta information is read as {}"
POINTS = "a decimal comma in a window or rescale of a DICOM file is read as a point"

_MOST_READS = 400_000
"""Limit on reads per header, one or two per element; more take seconds and fill the memory."""
_MOST_INFLATED = 256 * 2**20  # bytes
_FIRST_GROUPS = (0x0002, 0x0008)  # file meta information, and most data sets
_LONGEST_FIRST = 2**16  # bytes of the first element: a character set, a class or a date
_NUMBERS = ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept")


def is_dicom(data: bytes) -> bool:
    """Returns whether bytes begin like a DICOM file, with or without preamble, or a data set.

    The first 132 bytes suffice.
    """
    return data[128:132] == b"DICM" or any(_begins_data_set(data, order) for order in "<>")


def read_header(data: bytes) -> tuple[pydicom.FileDataset, tuple[str, ...]]:
    """Reads the elements of a file; returns them, and a remark if the transfer syntax was guessed.

    Raises:
        UnreadableImage: too many elements, too large after inflation, or compressed without a
            transfer syntax.
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
    """Replaces decimal commas by points in window and rescale; returns a remark.

    DICOM (PS3.5 6.2, VR DS) allows points only; some writers use the locale of their computer.
    """
    remarks: tuple[str, ...] = ()
    for name in _NUMBERS:
        element = header.get_item(name)
        if isinstance(element, RawDataElement) and element.value and b"," in element.value:
            header[element.tag] = element._replace(value=element.value.replace(b",", b"."))
            remarks = (POINTS,)
    return remarks


def number(header: pydicom.Dataset, name: str) -> float | None:
    """Returns the first number of an element; None if it has none.

    Raises:
        UnreadableImage: the value is not a number.
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
    return UnreadableImage(f"the DICOM file's {name} is not a number: {text.strip()[:40]}")


def _begins_data_set(data: bytes, order: str) -> bool:
    """Returns whether the bytes begin with two valid data elements in ascending order.

    A second element beyond the given bytes is not checked.
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
    """File with a limited number of reads."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise UnreadableImage("the DICOM file has too many elements")
        return super().read(size)


def _check_deflated(data: bytes) -> None:
    """Refuses a deflated data set that is too large after inflation."""
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
