"""Stored values of decoded DICOM words: significant bits and padding.

DICOM PS3.5 8.1.1: the unused bits of a word are undefined, and hold overlays in old files.
PS3.3 C.7.5.1.1.2: pixel padding is not part of the image.
"""

from __future__ import annotations

import numpy as np
import pydicom

MASKED = "bits beside those of a DICOM image's values, overlays say, are left out"
PADDED = "pixel padding is shown black and left out of the range"


def in_bits_stored(words: np.ndarray, header: pydicom.Dataset, packed: bool) -> np.ndarray:
    """Extracts the values from decoded words of any shape, signed according to the header.

    Args:
        words: decoded words, in the integer type of the header's BitsAllocated.
        header: header with BitsStored and HighBit, the position of the highest stored bit.
        packed: true for words from a codec, which ignores HighBit: the values are then in the
            lowest bits.
    """
    allocated, bits = words.dtype.itemsize * 8, int(header.BitsStored)
    if words.dtype.kind not in "iu" or not 0 < bits < allocated:
        return words
    high = int(header.get("HighBit", bits - 1))
    unused = allocated - (bits if packed or not bits <= high + 1 <= allocated else high + 1)
    # A right shift of signed numbers extends the sign.
    return np.right_shift(np.left_shift(words, unused), allocated - bits)


def holds_other_bits(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> bool:
    """Returns whether words have bits set beside these values, sign extension aside."""
    if words is values or int(header.get("HighBit", 0)) >= int(header.BitsStored):
        return False
    unsigned = words[words != values].view(f"u{words.dtype.itemsize}")
    return bool((unsigned >> int(header.BitsStored)).any())


def padding(words: np.ndarray, values: np.ndarray, header: pydicom.Dataset) -> np.ndarray | None:
    """Returns the padding of a grey image, bool [H, W]; None if the header defines none.

    Padding is PixelPaddingValue, or the range from it to PixelPaddingRangeLimit. Some writers use
    the other signedness, or values beyond the stored bits, so whole words are compared too.

    Args:
        words: decoded words.
        values: result of `in_bits_stored`.
        header: header of the file.
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
    """Returns a two-byte element of either signedness as an integer; None if empty."""
    value = header.get(name)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    return value if isinstance(value, int) else None


def _as_stored(number: int, dtype: np.dtype) -> int:
    """Reinterprets the bits of a number in an integer type."""
    return int(np.array(number & (2 ** (dtype.itemsize * 8) - 1), np.uint64).astype(dtype))
