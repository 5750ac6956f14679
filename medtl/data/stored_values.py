"""The numbers that a DICOM file's decoded words stand for: their bits, and which are padding.

DICOM PS3.5 8.1.1: the bits of a word above those stored hold anything, overlays in old files.
PS3.3 C.7.5.1.1.2: pixel padding is no part of the image.
"""

from __future__ import annotations

import numpy as np
import pydicom

MASKED = "bits beside those of a DICOM image's values, overlays say, are left out"
PADDED = "pixel padding is shown black and left out of the range"


def in_bits_stored(words: np.ndarray, header: pydicom.Dataset, packed: bool) -> np.ndarray:
    """The values in decoded words of any shape, signed as the header says.

    Args:
        words: as they were decoded, in the integer type of the header's BitsAllocated.
        header: says BitsStored, and HighBit, the place of the highest of these bits.
        packed: whether a codec wrote the words, which knows of no HighBit: the values are then in
            the lowest bits.
    """
    allocated, bits = words.dtype.itemsize * 8, int(header.BitsStored)
    if words.dtype.kind not in "iu" or not 0 < bits < allocated:
        return words
    high = int(header.get("HighBit", bits - 1))
    unused = allocated - (bits if packed or not bits <= high + 1 <= allocated else high + 1)
    # A shift to the right of signed numbers repeats the sign.
    return np.right_shift(np.left_shift(words, unused), allocated - bits)


def holds_other_bits(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> bool:
    """Whether words hold more than these values in their lowest bits, signs that go on aside."""
    if words is values or int(header.get("HighBit", 0)) >= int(header.BitsStored):
        return False
    unsigned = words[words != values].view(f"u{words.dtype.itemsize}")
    return bool((unsigned >> int(header.BitsStored)).any())


def padding(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> np.ndarray | None:
    """Where a grey image [H, W] is padding (bool [H, W]); None where the header names none.

    PixelPaddingValue, or all from it to PixelPaddingRangeLimit. Some writers give them unsigned
    where the pixels are signed, or the other way round, or beyond the bits that are stored: they
    are compared with the whole words too.

    Args:
        words: as they were decoded.
        values: as `in_bits_stored` makes them.
        header: of the file.
    """
    ends = [
        _as_stored(number, values.dtype)
        for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if (number := _whole_number(header, name)) is not None
    ]
    if not ends or "PixelPaddingValue" not in header or values.dtype.kind not in "iu":
        return None
    low, high = min(ends), max(ends)
    found = (values >= low) & (values <= high)
    return found if words is values else found | ((words >= low) & (words <= high))


def _whole_number(header: pydicom.Dataset, name: str) -> int | None:
    """An element of two bytes, whatever type it was written with; None where it holds none."""
    value = header.get(name)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    return value if isinstance(value, int) else None


def _as_stored(number: int, dtype: np.dtype) -> int:
    """The number that has the same bits in an integer type."""
    return int(np.array(number & (2 ** (dtype.itemsize * 8) - 1), np.uint64).astype(dtype))
