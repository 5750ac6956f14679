"""Malicious and malformed image files and requests."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from benchmarks.crafted import (
    bmp,
    deflated,
    dicom,
    elements,
    encapsulated,
    gif,
    in_pieces,
    in_runs,
    interlaced,
    jpeg,
    jpeg_2000,
    jpeg_ls,
    long_text,
    picture,
    pixel_data,
    png,
    scanned,
    sequences,
    texts,
    tiff,
    tiled,
    tiled_jpeg_2000,
    written_large,
)
from benchmarks.served import JSON


@dataclass(frozen=True)
class Request:
    """Request to `/invocations`: body and content type."""

    body: bytes
    content_type: str | None = JSON


def hostile_files() -> dict[str, Callable[[], bytes]]:
    """Returns makers of image files that must be refused, named by their fault."""
    return {
        "no bytes": lambda: b"",
        "one byte": lambda: b"\x89",
        "EPS, which starts a program": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "SVG": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///'/></svg>",
        "PNG of 200 megapixels": lambda: png(20_000, 10_000, filled=True),
        "PNG of 3,600 megapixels": lambda: png(60_000, 60_000),
        "PNG of 2^31 - 1 squared": lambda: png(2**31 - 1, 2**31 - 1),
        "PNG, a text of 64 MiB within": lambda: png(8, 8, extra=long_text(), filled=True),
        "PNG of 1 x 100,000,000": lambda: png(1, 100_000_000, filled=True),
        "PNG of 100,000,000 x 1": lambda: png(100_000_000, 1, filled=True),
        "PNG of 200,000 chunks": lambda: in_pieces("PNG", 200_000),
        "JPEG of 81 megapixels, 5,000 scans": lambda: scanned(9_000, 9_000, 5_000),
        "JPEG of 81 megapixels, 60 scans": lambda: scanned(9_000, 9_000, 60),
        "JPEG of 200,000 segments": lambda: in_pieces("JPEG", 200_000),
        "TIFF of 1,210,000 tiles": lambda: tiled(1_100, 1),
        "TIFF of 3,600 megapixels": lambda: tiff(60_000, 60_000),
        "TIFF, a tag of 2^32 - 1 values": lambda: tiff(64, 64, counts=2**32 - 1),
        "TIFF, its directory is its own next": lambda: tiff(64, 64, counts=0, following=8),
        "GIF of 4,294 megapixels": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0),
        "BMP of 2^31 - 1 squared": lambda: bmp(2**31 - 1, 2**31 - 1),
        "JPEG of 4,294 megapixels": lambda: jpeg(65_535, 65_535),
        "JPEG, cut short": lambda: picture("JPEG")[:500],
        "PNG, cut short": lambda: picture("PNG")[:-40],
        "TIFF, cut short": lambda: picture("TIFF")[:-400],
        "DICOM, cut short": lambda: dicom()[:-400],
        "DICOM of 65,535 x 65,535": lambda: dicom(Rows=65_535, Columns=65_535),
        "DICOM without Rows": lambda: dicom(Rows=None),
        "DICOM, Rows 0": lambda: dicom(Rows=0),
        "DICOM, BitsAllocated 7": lambda: dicom(BitsAllocated=7, BitsStored=7),
        "DICOM, BitsAllocated 64": lambda: dicom(BitsAllocated=64),
        "DICOM, BitsStored above BitsAllocated": lambda: dicom(BitsStored=40),
        "DICOM of 65,535 samples a pixel": lambda: dicom(SamplesPerPixel=65_535),
        "DICOM said to have 10^9 frames": lambda: dicom(NumberOfFrames=10**9),
        "DICOM, no pixels": lambda: dicom(PixelData=None),
        "DICOM, sequences in sequences, 5,000": lambda: dicom(extra=sequences(5_000)),
        "DICOM, 250,000 elements": lambda: dicom(extra=elements(250_000), PixelData=None),
        "DICOM, deflated from 300 MiB": lambda: deflated(300),
        "DICOM, JPEG 2000 of 3,600 megapixels within": lambda: encapsulated(
            jpeg_2000(60_000, 60_000), JPEG2000Lossless
        ),
        "DICOM, JPEG of 4,294 megapixels within": lambda: encapsulated(
            jpeg(65_535, 65_535), JPEGBaseline8Bit
        ),
        "DICOM, JPEG of 5,000 scans within": lambda: encapsulated(
            scanned(9_000, 9_000, 5_000), JPEGBaseline8Bit, 9_000
        ),
        "DICOM, JPEG 2000 of 65,536 tiles within": lambda: encapsulated(
            tiled_jpeg_2000(9_984, 39), JPEG2000Lossless, 9_984
        ),
        "DICOM, JPEG 2000 of 16,384 colours within": lambda: encapsulated(
            tiled_jpeg_2000(64, 64, 16_384), JPEG2000Lossless
        ),
        "DICOM, JPEG-LS of 4,294 megapixels within": lambda: encapsulated(
            jpeg_ls(65_535, 65_535), JPEGLSLossless
        ),
        "DICOM, run lengths without end": lambda: encapsulated(
            struct.pack("<16I", 2, 64, 64, *[0] * 13) + b"\x81\x00" * 4_000_000, RLELossless
        ),
    }  # fmt: skip


def costly_files() -> dict[str, Callable[[], bytes]]:
    """Returns makers of files of high decoding cost, which must not slow other requests."""
    return {
        "JPEG of 81 megapixels, 24 scans": lambda: scanned(9_000, 9_000, 24),
        "JPEG of 16 megapixels, a restart a block": lambda: scanned(4_000, 4_000, 60, restarts=1),
        "PNG of 1,500 x 60,000": lambda: png(1_500, 60_000, filled=True),
        "PNG of 100 megapixels, interlaced": lambda: interlaced(10_000),
        "PNG, 63 texts of 1 MiB within": lambda: png(8, 8, extra=texts(63), filled=True),
        "PNG of 90,000 chunks": lambda: in_pieces("PNG", 90_000),
        "GIF of 100 megapixels, 100,000 frames": lambda: gif(10_000, 100_000),
        "TIFF of 810,000 tiles": lambda: tiled(9_000, 10),
        "TIFF of 100 megapixels, deflated": lambda: written_large(
            "TIFF", 10_000, compression="tiff_deflate"
        ),
        "WebP of 100 megapixels": lambda: written_large("WEBP", 10_000, lossless=True, method=0),
        "BMP of 16 megapixels, runs of one pixel": lambda: in_runs(4_000),
        "DICOM, JPEG 2000 of 64 megapixels within": lambda: encapsulated(
            written_large("JPEG2000", 8_000, no_jp2=True), JPEG2000Lossless, 8_000
        ),
    }


def odd_files() -> dict[str, Callable[[], bytes]]:
    """Returns makers of image files with harmless extra content, which must be read."""
    archive = b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(18)
    return {
        "JPEG and ZIP": lambda: picture("JPEG") + archive,
        "PNG and HTML": lambda: picture("PNG") + b"<script>alert(1)</script>",
        "GIF and a program": lambda: picture("GIF") + b"#!/bin/sh\n",
        "DICOM and TIFF": lambda: b"II*\x00" + struct.pack("<I", 8) + dicom()[8:],
        "DICOM and a program for Windows": lambda: b"MZ\x90\x00" + dicom()[4:],
        "DICOM, pixels said to be 4 GiB": lambda: dicom().replace(
            pixel_data(64 * 64 * 2), pixel_data(2**32 - 2)
        ),
        "TIFF said to be a JPEG": lambda: picture("TIFF"),
    }


def hostile_requests() -> dict[str, Callable[[], Request]]:
    """Returns makers of requests that must be refused as a whole, named by their fault."""
    image = base64.b64encode(picture("PNG")).decode("ascii")
    row = f'{{"dataframe_split": {{"columns": ["image"], "data": [["{image}"]]}}'.encode()
    return {
        "nothing": lambda: Request(b""),
        "no JSON": lambda: Request(b"junk"),
        "JSON, cut short": lambda: Request(row),
        "64 MiB that are no JSON": lambda: Request(b"[" + b"x" * 2**26),
        "no text": lambda: Request(b"\xff\xfe\xfd"),
        "a list": lambda: Request(b"[]"),
        "an empty object": lambda: Request(b"{}"),
        "both forms at once": lambda: Request(row + b', "dataframe_records": []}'),
        "no rows": lambda: sent({"dataframe_records": []}),
        "rows that are numbers": lambda: sent({"dataframe_records": [1, 2, 3]}),
        "a table that is a number": lambda: sent({"dataframe_split": 3}),
        "data that is a number": lambda: _split(["image"], 1),
        "more values than columns": lambda: _split(["image"], [["", ""]]),
        "columns that are a number": lambda: _split(3, [[""]]),
        "another column": lambda: sent({"dataframe_records": [{"picture": image}]}),
        "a parameter of another type": lambda: Request(
            row + b', "params": {"explain": "perhaps"}}'
        ),
        "parameters that are a list": lambda: Request(row + b', "params": [1]}'),
        "5,000 rows": lambda: sent({"dataframe_records": [{"image": ""}] * 5_000}),
        "a million rows, records": lambda: Request(
            b'{"dataframe_records": [' + b'{"image": ""},' * 1_000_000 + b'{"image": ""}]}'
        ),
        "a million rows, split": lambda: Request(
            b'{"dataframe_split": {"columns": ["image"], "data": ['
            + b'[""],' * 1_000_000 + b'[""]]}}'
        ),
        "ten million numbers beside": lambda: Request(
            row + b', "params": {"many": [' + b"1," * 10_000_000 + b"1]}}"
        ),
        "100,000 lists in each other": lambda: Request(b"[" * 100_000 + b"]" * 100_000),
        "2,000 objects in each other": lambda: Request(
            b'{"dataframe_records":' * 2_000 + b"1" + b"}" * 2_000
        ),
        "a number of 5,000 digits": lambda: Request(
            b'{"dataframe_records": [{"image": ' + b"9" * 5_000 + b"}]}"
        ),
        "CSV": lambda: Request(b"image\n" + image.encode(), "text/csv"),
        "Parquet": lambda: Request(b"PAR1", "application/vnd.apache.parquet"),
        "plain text": lambda: Request(row + b"}", "text/plain"),
        "of no content type": lambda: Request(row + b"}", None),
        "in Latin 1": lambda: Request(row + b"}", f"{JSON}; charset=latin-1"),
    }  # fmt: skip


def sent(body: object) -> Request:
    """Returns a request whose body is an object as JSON."""
    return Request(json.dumps(body).encode())


def rows_of(files: list[bytes], explain: bool = False) -> Request:
    """Returns a request with a row for each of these image files."""
    data = [[base64.b64encode(file).decode("ascii")] for file in files]
    return sent(
        {"dataframe_split": {"columns": ["image"], "data": data}, "params": {"explain": explain}}
    )


def _split(columns: object, data: object) -> Request:
    return sent({"dataframe_split": {"columns": columns, "data": data}})
