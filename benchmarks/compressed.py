"""DICOM files in every supported compression, each with the same image uncompressed.

The JPEG-LS file is one of pydicom's test files, as no dependency can encode JPEG-LS.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

# Eight by eight values of 12 bits, (37 x + 331 y + 5 x y) mod 4096, encoded by GDCM 3.2.6.
LOSSLESS_JPEG = """
/9j/wwALEAAIAAgBAREA/8QAFwABAQEBAAAAAAAAAAAAAAAABgcJEP/aAAgBAQABAADkqVKlSpUupapUqVKlSrUtev
Xr169fqW0aNGjRo01LcuXLly5c6lvnz58+fPtS6HQ6HQ6HQ6HqXSKRSKRSKRSP/9k=
"""
_EXAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"


def plain(stored: np.ndarray, bits: int) -> pydicom.Dataset:
    """Builds an uncompressed data set of stored values [H, W] or [H, W, 3]."""
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Rows, header.Columns = stored.shape[:2]
    header.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    header.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        header.PlanarConfiguration = 0
    header.BitsAllocated, header.BitsStored = stored.dtype.itemsize * 8, bits
    header.HighBit, header.PixelRepresentation = bits - 1, 0
    header.PixelData = stored.tobytes()
    return header


def written(header: pydicom.Dataset) -> bytes:
    """Encodes a data set as a DICOM file."""
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def encapsulated(header: pydicom.Dataset, frame: bytes, syntax: str) -> bytes:
    """Encodes a data set as a DICOM file with a frame from another encoder."""
    header.PixelData, header.file_meta.TransferSyntaxUID = encapsulate([frame]), UID(syntax)
    header["PixelData"].VR = "OB"
    return written(header)


def compressed_files() -> dict[str, tuple[bytes, bytes]]:
    """Returns a compressed file and its uncompressed counterpart by name of the compression."""
    y, x = np.mgrid[:8, :8]
    stored = ((37 * x + 331 * y + 5 * x * y) % 4096).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    runs, blocks, deflated = (plain(noise, 12) for _ in range(3))
    runs.compress(RLELossless)
    blocks.compress(JPEG2000Lossless)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    picture = io.BytesIO()
    Image.fromarray((noise >> 4).astype(np.uint8)).save(picture, "JPEG")
    shown = np.asarray(Image.open(picture))
    lossless = encapsulated(plain(stored, 12), base64.b64decode(LOSSLESS_JPEG), JPEGLosslessSV1)
    whole = written(plain(noise, 12))
    return {
        "lossless JPEG": (lossless, written(plain(stored, 12))),
        "JPEG-LS": (
            (_EXAMPLES / "MR_small_jpeg_ls_lossless.dcm").read_bytes(),
            (_EXAMPLES / "MR_small.dcm").read_bytes(),
        ),
        "JPEG 2000": (written(blocks), whole),
        "run lengths": (written(runs), whole),
        "deflated": (written(deflated), whole),
        "baseline JPEG": (
            encapsulated(plain(shown, 8), picture.getvalue(), JPEGBaseline8Bit),
            written(plain(shown, 8)),
        ),
    }
