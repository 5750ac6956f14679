"""Files that hold a whole volume (NIfTI, ANALYZE, NRRD, MetaImage): known, and turned away."""

from __future__ import annotations

import re
import struct
import zlib

SUFFIXES = (".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd")
_HEADER = 348  # bytes of the header that NIfTI-1 has from ANALYZE 7.5; its first number says so
_HEADER_2 = 540  # bytes of the header of NIfTI-2
_MOST_TEXT = 4096  # bytes in which the text headers of NRRD and MetaImage name the extents


def volume_line(data: bytes) -> str | None:
    """Of a volume: what it is, how many slices it has, and what to do; None of anything else.

    Only the header is read, of a compressed file too.
    """
    found = _volume(_unpacked(data) if data[:2] == b"\x1f\x8b" else data)
    if found is None:
        return None
    kind, extents = found
    if len(extents) < 3:
        return f"{kind}, not an image; convert it to PNG or DICOM"
    size = " x ".join(map(str, extents))
    return (
        f"{kind} of {size}, not an image; convert its {extents[2]} slices to PNG or DICOM, "
        "a file each"
    )


def _volume(data: bytes) -> tuple[str, list[int]] | None:
    """Its kind and its extents (width, height, slices, ...) as far as the header names them."""
    for order in "<>":
        if data[344:347] in (b"n+1", b"ni1") or data[:4] == struct.pack(f"{order}i", _HEADER):
            kind = "a NIfTI volume" if data[344:345] == b"n" else "an ANALYZE volume"
            extents = _extents(data[40:56], f"{order}8h")
            if extents:
                return kind, extents
        if data[:4] == struct.pack(f"{order}i", _HEADER_2) and data[4:7] in (b"n+2", b"ni2"):
            return "a NIfTI volume", _extents(data[16:80], f"{order}8q")
    text = data[:_MOST_TEXT]
    if text.startswith(b"NRRD000"):
        return "an NRRD volume", _numbers(rb"^sizes:([\d ]+)", text)
    if re.search(rb"^(ObjectType|NDims)\s*=", text[:200], re.MULTILINE):
        return "a MetaImage volume", _numbers(rb"^DimSize\s*=([\d ]+)", text)
    return None


def _extents(field: bytes, layout: str) -> list[int]:
    """What a NIfTI header's `dim` says: how many extents there are, then each; [] if it cannot."""
    if len(field) < struct.calcsize(layout):
        return []
    count, *extents = struct.unpack(layout, field)
    return extents[:count] if 1 <= count <= 7 and min(extents[:count]) > 0 else []


def _numbers(pattern: bytes, text: bytes) -> list[int]:
    found = re.search(pattern, text, re.MULTILINE)
    return [int(number) for number in found[1].split()] if found else []


def _unpacked(data: bytes) -> bytes:
    """The beginning of what was compressed by gzip; nothing where it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data, _MOST_TEXT)
    except zlib.error:
        return b""
