"""Damaged image files of every format and damaged CSV files, drawn from a seed.

The DICOM files are damaged copies of those in pydicom.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from medtl.data.sources import nih_chestxray14

Change = Callable[[np.random.Generator, bytes, bytes], bytes]

CSV = "CSV"
LARGEST = 2**20  # bytes of a damaged file
DICOM_FILES = {
    "DICOM plain": (
        "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "SC_rgb_small_odd.dcm",
        "rtdose_1frame.dcm", "rtdose.dcm", "MR_small_padded.dcm", "badVR.dcm",
        "SC_ybr_full_422_uncompressed.dcm", "no_meta.dcm",
    ),
    "DICOM RLE": ("MR_small_RLE.dcm", "SC_rgb_rle.dcm", "rtdose_rle.dcm", "SC_rgb_rle_16bit.dcm"),
    "DICOM JPEG": (
        "SC_rgb_small_odd_jpeg.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
        "JPGExtended.dcm", "SC_jpeg_no_color_transform.dcm",
    ),
    "DICOM JPEG-LS": (
        "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm", "MR_small_jpeg_ls_lossless.dcm",
    ),
    "DICOM JPEG 2000": (
        "SC_rgb_gdcm_KY.dcm", "JPEG2000.dcm", "693_J2KI.dcm", "MR_small_jp2klossless.dcm",
    ),
    "DICOM deflated": ("image_dfl.dcm",),
}  # fmt: skip
ELEMENTS = {
    "Rows": (0, 1, 2, 255, 65535), "Columns": (0, 1, 2, 255, 65535),
    "BitsAllocated": (0, 1, 7, 8, 12, 16, 24, 32, 64, 65535),
    "BitsStored": (0, 1, 8, 12, 16, 17, 32, 65535), "HighBit": (0, 7, 11, 15, 31, 65535),
    "PixelRepresentation": (0, 1, 2, 65535), "SamplesPerPixel": (0, 1, 2, 3, 4, 65535),
    "PlanarConfiguration": (0, 1, 2, 65535),
    "NumberOfFrames": ("0", "-1", "2", "1000000000", "", "1.5"),
    "PhotometricInterpretation": (
        "", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "PALETTE COLOR", "MONOCHROME1", "X" * 99,
        "MONO\nCHROME\x1b[31m",
    ),
    "WindowCenter": ("", "nan", "1e308", "-1e308", "1\\2", "abc"),
    "WindowWidth": ("", "0", "-1", "1e-300", "nan", "1\\2", "abc"),
    "RescaleSlope": ("", "0", "nan", "1e308", "abc"),
    "RescaleIntercept": ("", "nan", "-1e308", "1\\2"),
    "VOILUTFunction": ("", "SIGMOID", "LINEAR_EXACT", "OTHER"),
    "PixelData": (b"", b"\0", b"\xff" * 64),
    "TransferSyntaxUID": (
        "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201",
        "1.2.840.10008.1.2.5", "1.2.3", "",
    ),
}  # fmt: skip
"""Elements of a DICOM file that describe its pixels, with invalid values."""


@cache
def whole_files() -> dict[str, tuple[bytes, ...]]:
    """Returns undamaged files by kind."""
    random = np.random.default_rng(0)
    grey = Image.fromarray(random.integers(0, 256, (20, 30), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (20, 30), dtype=np.uint16))
    colour = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    real = Image.fromarray(random.random((20, 30), dtype=np.float32))
    clear = colour.convert("RGBA")
    clear.putalpha(grey)
    exif = Image.Exif()
    exif[274] = 6
    pictures: dict[str, list[tuple[Image.Image, Mapping[str, object]]]] = {
        "PNG": [(grey, {}), (deep, {}), (colour, {}), (clear, {}), (colour.quantize(16), {}),
                (grey.convert("1"), {}), (grey, {"exif": exif})],
        "JPEG": [(grey, {}), (colour, {}), (colour, {"progressive": True, "exif": exif}),
                 (colour.convert("CMYK"), {}), (colour, {"subsampling": 2, "quality": 30})],
        "TIFF": [(deep, {}), (real, {}), (clear, {}),
                 (grey, {"save_all": True, "append_images": [grey, grey]}),
                 (grey.convert("1"), {"compression": "group4"}),
                 *((colour, {"compression": f"tiff_{name}"}) for name in
                   ("lzw", "adobe_deflate", "jpeg")), (deep, {"compression": "packbits"})],
        "BMP": [(grey, {}), (colour, {}), (grey.convert("1"), {}), (clear, {})],
        "GIF": [(grey, {}), (grey, {"save_all": True, "append_images": [grey.rotate(90)]})],
        "WebP": [(colour, {}), (clear, {"lossless": True})],
    }  # fmt: skip
    files = {
        kind: tuple(_encoded(image, kind, **options) for image, options in images)
        for kind, images in pictures.items()
    }
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    for kind, names in DICOM_FILES.items():
        files[kind] = tuple((folder / name).read_bytes() for name in names)
    return files | {CSV: _tables()}


def damaged(number: int, seed: int) -> tuple[str, bytes]:
    """Returns kind and bytes of a damaged file, determined by number and seed."""
    files = whole_files()
    kinds = list(files)
    kind = kinds[number % len(kinds)]
    random = np.random.default_rng([seed, number])
    data = _one(random, files[kind])
    other = _one(random, files[kind if kind == CSV else _one(random, kinds)])
    changes = list(_CHANGES)
    if kind == "PNG":
        changes += [_in_checked_chunk] * 4
    elif kind.startswith("DICOM"):
        changes += [_other_element] * 4
    elif kind == CSV:
        changes += [_in_text] * 8
    for _ in range(random.integers(1, 4)):
        data = _one(random, changes)(random, data, other)[:LARGEST]
    return kind, data


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _tables() -> tuple[bytes, ...]:
    """Returns CSV files that list the images a.png to f.png."""
    names = [f"{letter}.png" for letter in "abcdef"]
    plain = [f"{name},{'xy'[n % 2]}" for n, name in enumerate(names)]
    whole = [
        f'"{name}",{"xy"[n % 2]},"p {n // 2}",{("train", "valid", "test")[n // 2]},{40 + n}'
        for n, name in enumerate(names)
    ]
    cases = [f"{name},{'xy'[n // 2 % 2]},c{n // 2},{'ab'[n % 2]}" for n, name in enumerate(names)]
    several = [
        f"{name},{'Mass|?Nodule' if n % 2 else 'No Finding'}" for n, name in enumerate(names)
    ]
    published = [
        f"{name},{'Mass' if n % 2 else 'No Finding'},{n // 2}" for n, name in enumerate(names)
    ]
    tables = (
        ["path,label", *plain],
        ["path,label,patient,split,age", *whole],
        ["path,label,case,modality", *cases],
        ["path,label", *several],
        [f"{nih_chestxray14.IMAGE},{nih_chestxray14.FINDINGS},Patient ID", *published],
    )
    return tuple(("\n".join(rows) + "\n").encode() for rows in tables)


def _one(random: np.random.Generator, things):
    return things[random.integers(len(things))]


def _place(random: np.random.Generator, data: bytes) -> int:
    """Draws a position: anywhere, or with probability 1/2 in the first 256 bytes (headers)."""
    most = len(data) if random.random() < 0.5 else min(len(data), 256)
    return int(random.integers(most + 1))


def _flipped(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.integers(1, 17)) if data else ():
        changed[min(_place(random, data), len(data) - 1)] ^= 1 << random.integers(8)
    return bytes(changed)


def _cut(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: _place(random, data)]


def _spliced(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: _place(random, data)] + other[_place(random, other) :]


def _inserted(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    place, begin = _place(random, data), _place(random, other)
    return data[:place] + other[begin : begin + random.integers(1, 200)] + data[place:]


def _removed(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    place = _place(random, data)
    return data[:place] + data[place + random.integers(1, 64) :]


def _repeated(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    place = _place(random, data)
    end = place + int(random.integers(1, 256))
    return data[:end] + data[place:end] * int(random.integers(1, 20)) + data[end:]


def _extreme(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Writes extreme numbers of 1, 2, 4 or 8 bytes, in either byte order."""
    changed = bytearray(data)
    for _ in range(random.integers(1, 4)):
        size = int(2 ** random.integers(4))
        top = 1 << (8 * size)
        number = _one(random, (0, 1, top - 1, top // 2, top // 2 - 1, top // 16, 65536 % top))
        place = _place(random, data)
        changed[place : place + size] = int(number).to_bytes(size, _one(random, ("little", "big")))
    return bytes(changed)


_CHANGES: tuple[Change, ...] = (
    _flipped, _cut, _spliced, _inserted, _removed, _repeated, _extreme, _extreme,
)  # fmt: skip


def _in_checked_chunk(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Changes a chunk of a PNG file and corrects its checksum, so that it is decoded."""
    chunks, place = [], 8
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return data
    chosen = int(random.integers(len(chunks)))
    name, body = chunks[chosen]
    if name == b"IDAT" and random.random() < 0.5:
        body = zlib.compress(_one(random, _CHANGES)(random, _inflated(body), other))
    else:
        body = _one(random, _CHANGES)(random, body, other)
    chunks[chosen] = (name, body)
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompress(body)
    except zlib.error:
        return body


def _other_element(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Sets an element of a DICOM file to an invalid value; leaves damaged files unchanged."""
    name = _one(random, list(ELEMENTS))
    value = _one(random, ELEMENTS[name])
    mode = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        header = pydicom.dcmread(io.BytesIO(data), force=True)
        encoding = header.original_encoding
        setattr(header.file_meta if name == "TransferSyntaxUID" else header, name, value)
        file = io.BytesIO()
        pydicom.dcmwrite(file, header, implicit_vr=encoding[0], little_endian=encoding[1])
        return file.getvalue()
    except Exception:  # pydicom cannot read a file with earlier damage
        return data
    finally:
        pydicom.config.settings.writing_validation_mode = mode


def _in_text(random: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """Damages a CSV file by separators, quotes, line ends, encodings and paths."""
    hostile = _one(random, (
        b"\0", b'"', b'""', b"\r", b"\r\n", b"\n\n", b",", b",,,", b"|", b"?", b";", b"\t", b"#",
        b"\xff", b"\xe4", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"../", b"/etc/passwd",
        b"/dev/zero", b".", b"~", b"=1+1", b"nan", b"path", b" path", b"label", b"a.png", b"{}%s",
        b"\x1b[31m", b"A" * 200_000, b"," * 5000, b"\n" * 5000,
    ))  # fmt: skip
    at = _one(random, [n for n, byte in enumerate(data) if byte in b",\n"] or [0])
    match random.integers(7):
        case 0:
            return data[:at] + hostile + data[at:]
        case 1:
            return data.replace(b",", hostile)
        case 2:
            return data.decode("utf-8", "replace").encode(
                _one(random, ("utf-16", "utf-32", "cp500")), "replace"
            )
        case 3:
            return data.replace(_one(random, (b"path", b"label", b"patient", b"split")), hostile)
        case 4:
            return data.replace(b"a.png", hostile)
        case 5:
            return b"\n".join(line + b"," + hostile for line in data.split(b"\n"))
        case _:
            return data.replace(b"x", hostile)
