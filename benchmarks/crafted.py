"""Image files assembled byte by byte, with chosen extents, header fields and truncation."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian


def rewritten(file: bytes, kind: str) -> bytes:
    """Returns an image file in another format that Pillow writes, or as grey DICOM."""
    with Image.open(io.BytesIO(file)) as image:
        grey = image.convert("L")
    if kind == "DICOM":
        stored = np.asarray(grey).astype(np.uint16)
        return dicom(Rows=grey.height, Columns=grey.width, PixelData=stored.tobytes())
    written = io.BytesIO()
    grey.save(written, kind)
    return written.getvalue()


def picture(kind: str, side: int = 64, seed: int = 0) -> bytes:
    """Returns a smooth grey image in a format that Pillow writes."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((side, side)).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, extra: bytes = b"", filled: bool = False) -> bytes:
    """Returns a grey PNG of these extents, black if `filled`, else without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = _squeezed(width * height + height) if filled else b""
    chunks = _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(width: int, height: int, counts: int = 1, following: int = 0) -> bytes:
    """Returns a grey TIFF of one strip, said to have `counts` lengths; `following` is the next."""
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 0), (278, 4, 1, height), (279, 4, counts, 64)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)


def bmp(width: int, height: int) -> bytes:
    """Returns the header of a BMP of these extents."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + header + bytes(64)


def jpeg(width: int, height: int) -> bytes:
    """Encodes a 64 x 64 JPEG whose header claims this size."""
    whole = picture("JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def scanned(width: int, height: int, scans: int, restarts: int = 0) -> bytes:
    """Encodes a constant grey progressive JPEG with `scans` scans.

    The first scan codes the DC value of each block in one bit; the others skip thousands of empty
    blocks in two bytes each. `restarts` is the restart interval in blocks, 0 for none.
    """
    blocks = -(-width // 8) * -(-height // 8)
    table = b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\x01" * 64
    frame = b"\xff\xc2" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    means = _huffman(0x00, b"\x00")
    ends = _huffman(0x10, b"\xe0")  # a run of 2^14 blocks plus a 14-bit number of blocks
    interval = b"\xff\xdd" + struct.pack(">HH", 4, restarts) if restarts else b""
    parts = [restarts] * (blocks // restarts) if restarts else [blocks]
    if restarts and blocks % restarts:
        parts.append(blocks % restarts)
    first = _restarted([bytes(-(-part // 8)) for part in parts])
    if restarts:  # such short intervals need one end-of-block code per block
        ends = _huffman(0x10, b"\x00")
        later = _restarted([bytes(-(-part // 8)) for part in parts])
    else:
        runs = "".join(f"0{2**14 - 1:014b}" for _ in range(blocks // (2**15 - 1) + 1))
        later = int(runs.ljust(-(-len(runs) // 8) * 8, "0"), 2).to_bytes(-(-len(runs) // 8), "big")
        later = later.replace(b"\xff", b"\xff\x00")
    whole = b"\xff\xd8" + table + frame + means + ends + interval + _scan(0, 0, first)
    bands = [_scan(1 + number % 63, 1 + number % 63, later) for number in range(scans - 1)]
    return whole + b"".join(bands) + b"\xff\xd9"


def _huffman(place: int, symbol: bytes) -> bytes:
    """Encodes a Huffman table with the single code 0."""
    return b"\xff\xc4" + struct.pack(">HB", 20, place) + b"\x01" + bytes(15) + symbol


def _scan(first: int, last: int, coded: bytes) -> bytes:
    return b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, first, last, 0) + coded


def _restarted(parts: list[bytes]) -> bytes:
    marks = (b"\xff" + bytes([0xD0 + number % 8]) for number in range(len(parts)))
    return b"".join(part + mark for part, mark in zip(parts, marks, strict=True))[:-2]


def in_pieces(kind: str, count: int) -> bytes:
    """Encodes a PNG or JPEG with `count` empty chunks or segments before its pixels."""
    whole = picture(kind)
    if kind == "JPEG":
        return whole[:2] + b"\xff\xfe\x00\x02" * count + whole[2:]
    place = whole.index(b"IDAT") - 4
    return whole[:place] + _chunk(b"teXt", b"") * count + whole[place:]


def interlaced(side: int) -> bytes:
    """Encodes a black square PNG with Adam7 interlacing."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 1)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    size = 0
    for left, top, across, down in passes:
        wide, high = -(-(side - left) // across), -(-(side - top) // down)
        size += high * (wide + 1)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", _squeezed(size)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def texts(count: int) -> bytes:
    """Encodes a PNG with `count` compressed text chunks just under Pillow's 1 MiB limit."""
    return _chunk(b"zTXt", b"text\0\0" + _squeezed(2**20 - 1)) * count


def gif(side: int, frames: int) -> bytes:
    """Encodes a GIF with a wide canvas and many one-pixel frames."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b";"


def tiled(side: int, tile: int) -> bytes:
    """Encodes a grey TIFF whose tiles all point to the same bytes."""
    count = (-(-side // tile)) ** 2
    begin = 8 + 2 + 12 * 9 + 4
    pixels = begin + 8 * count
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (322, 4, 1, tile), (323, 4, 1, tile),
            (324, 4, count, begin), (325, 4, count, begin + 4 * count)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    lists = struct.pack("<I", pixels) * count + struct.pack("<I", tile * tile) * count
    head = b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + lists + bytes(tile * tile)


def written_large(kind: str, side: int, **options: object) -> bytes:
    """Encodes a constant grey square in a format that Pillow writes."""
    file = io.BytesIO()
    Image.new("L", (side, side), 7).save(file, kind, **options)
    return file.getvalue()


def in_runs(side: int) -> bytes:
    """Encodes a grey BMP in run lengths of one pixel, which Pillow decodes in Python."""
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    rows = (b"\x01\x07" * side + b"\x00\x00") * side + b"\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(rows), 0, 0, 256, 0)
    begin = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", begin + len(rows), 0, 0, begin) + header + palette + rows


def tiled_jpeg_2000(side: int, tile: int, components: int = 1) -> bytes:
    """Encodes a 64 x 64 JPEG 2000 whose header claims this size, tiling and components."""
    stream = bytearray(jpeg_2000(side, side))
    place = stream.index(b"\xff\x51") + 2
    struct.pack_into(">II", stream, place + 20, tile, tile)
    length = struct.unpack_from(">H", stream, place)[0]
    struct.pack_into(">H", stream, place, length + 3 * (components - 1))
    struct.pack_into(">H", stream, place + 36, components)
    more = b"\x07\x01\x01" * (components - 1)
    return bytes(stream[: place + length]) + more + bytes(stream[place + length :])


def jpeg_ls(width: int, height: int) -> bytes:
    """Returns the beginning of a grey JPEG-LS of these extents."""
    frame = struct.pack(">HHBHHBBBB", 0xFFF7, 11, 8, height, width, 1, 1, 0x11, 0)
    scan = struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 1, 0, 0, 0, 0)
    return b"\xff\xd8" + frame + scan + bytes(200) + b"\xff\xd9"


def jpeg_2000(width: int, height: int) -> bytes:
    """Encodes a 64 x 64 JPEG 2000 whose header claims this size for image and tile."""
    file = io.BytesIO()
    Image.open(io.BytesIO(picture("PNG"))).save(file, "JPEG2000", no_jp2=True)
    stream = bytearray(file.getvalue())
    place = stream.index(b"\xff\x51") + 6
    struct.pack_into(">II", stream, place, width, height)
    struct.pack_into(">II", stream, place + 16, width, height)
    return bytes(stream)


def dicom(extra: bytes = b"", **elements: object) -> bytes:
    """Encodes a grey 16-bit DICOM file of 64 x 64; elements set to None are left out.

    `extra` are bytes before its pixels.
    """
    header = _header()
    for name, value in elements.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    written = _written(header)
    if not extra:
        return written
    place = written.index(b"\xe0\x7f\x10\x00") if "PixelData" in header else len(written)
    return written[:place] + extra + written[place:]


def deflated(mebibytes: int) -> bytes:
    """Encodes a deflated DICOM file of black pixels, far more than its header claims."""
    header = _header()
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta = _written(header)
    begun = 144 + int.from_bytes(meta[140:144], "little")
    plain = dicom()
    data = plain[144 + int.from_bytes(plain[140:144], "little") : -64 * 64 * 2 - 12]
    compressor = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    parts = [compressor.compress(data + pixel_data(mebibytes * 2**20))]
    parts += [compressor.compress(bytes(2**20)) for _ in range(mebibytes)]
    return meta[:begun] + b"".join(parts) + compressor.flush()


def encapsulated(frame: bytes, syntax: str, side: int = 64) -> bytes:
    """Wraps a compressed frame in a square DICOM file."""
    header = _header()
    header.Rows = header.Columns = side
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    header.PixelData = pydicom.encaps.encapsulate([frame])
    header["PixelData"].VR = "OB"
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return _written(header)


def _header() -> pydicom.Dataset:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Rows = header.Columns = 64
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelData = np.arange(64 * 64, dtype=np.uint16).tobytes()
    return header


def _written(header: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def pixel_data(length: int) -> bytes:
    """Encodes the start of the PixelData element with a claimed length."""
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length)


def sequences(depth: int) -> bytes:
    """Returns a sequence of an item of a sequence of an item, of undefined lengths."""
    sequence = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 2**32 - 1)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 2**32 - 1)
    return (sequence + item) * depth


def elements(count: int) -> bytes:
    """Encodes private elements without values, each with another tag."""
    numbers = np.arange(count)
    elements = np.zeros(count, "<u2, <u2, S2, <u2")
    elements["f0"], elements["f1"] = 0x0041 + 2 * (numbers >> 15), 0x1000 + (numbers & 0x7FFF)
    elements["f2"] = b"LO"
    return elements.tobytes()


def long_text() -> bytes:
    """Returns a compressed text of 64 MiB within a PNG."""
    return _chunk(b"zTXt", b"text\0\0" + _squeezed(64 * 2**20))


def _squeezed(zeros: int) -> bytes:
    compressor = zlib.compressobj(1)
    whole, rest = divmod(zeros, 2**20)
    parts = [compressor.compress(bytes(2**20)) for _ in range(whole)]
    return b"".join(parts) + compressor.compress(bytes(rest)) + compressor.flush()


def _chunk(name: bytes, body: bytes) -> bytes:
    check = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)
