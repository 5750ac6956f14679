"""The code that a served model carries decodes every compression without this project's own."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from medtl.data.decode import decode
from medtl.tracking.carried import carry
from medtl.tracking.models import SCRIPT

# Eight by eight values of 12 bits, (37 x + 331 y + 5 x y) mod 4096, encoded by GDCM 3.2.6.
LOSSLESS_JPEG = """
/9j/wwALEAAIAAgBAREA/8QAFwABAQEBAAAAAAAAAAAAAAAABgcJEP/aAAgBAQABAADkqVKlSpUupapUqVKlSrUtev
Xr169fqW0aNGjRo01LcuXLly5c6lvnz58+fPtS6HQ6HQ6HQ6HqXSKRSKRSKRSP/9k=
"""
EXAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
ASK = """
import json, pathlib, sys
import medtl
from medtl.data.decode import decode
assert medtl.__file__.startswith(sys.argv[1]), medtl.__file__
for file in sys.argv[2:]:
    pixels = decode(pathlib.Path(file).read_bytes())
    print(json.dumps([str(pixels.dtype), pixels.tolist()]))
"""


def dicom(stored: np.ndarray, bits: int) -> pydicom.Dataset:
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    header.Rows, header.Columns = stored.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored = stored.dtype.itemsize * 8, bits
    header.HighBit, header.PixelRepresentation = bits - 1, 0
    header.PixelData = stored.tobytes()
    return header


def written(header: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


def encapsulated(header: pydicom.Dataset, frame: bytes, syntax: str) -> bytes:
    header.PixelData, header.file_meta.TransferSyntaxUID = encapsulate([frame]), syntax
    header["PixelData"].VR = "OB"
    return written(header)


def files() -> dict[str, tuple[bytes, bytes]]:
    """Of each compression a file, and the same image without it."""
    y, x = np.mgrid[:8, :8]
    stored = ((37 * x + 331 * y + 5 * x * y) % 4096).astype(np.uint16)
    noise = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
    runs, blocks, deflated = (dicom(noise, 12) for _ in range(3))
    runs.compress(RLELossless)
    blocks.compress(JPEG2000Lossless)
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    picture = io.BytesIO()
    Image.fromarray((noise >> 4).astype(np.uint8)).save(picture, "JPEG")
    shown = np.asarray(Image.open(picture))
    lossless = encapsulated(dicom(stored, 12), base64.b64decode(LOSSLESS_JPEG), JPEGLosslessSV1)
    plain = written(dicom(noise, 12))
    return {
        "lossless JPEG": (lossless, written(dicom(stored, 12))),
        "JPEG-LS": tuple(
            (EXAMPLES / name).read_bytes()
            for name in ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm")
        ),
        "JPEG 2000": (written(blocks), plain),
        "run lengths": (written(runs), plain),
        "deflated": (written(deflated), plain),
        "baseline JPEG": (
            encapsulated(dicom(shown, 8), picture.getvalue(), JPEGBaseline8Bit),
            written(dicom(shown, 8)),
        ),
    }


def test_every_compression_is_decoded_by_the_code_that_is_carried(tmp_path: Path):
    folder = tmp_path / "code"
    carry(SCRIPT, folder)
    places = []
    for name, (compressed, _) in files().items():
        places.append(tmp_path / f"{name}.dcm")
        places[-1].write_bytes(compressed)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, str(folder), *map(str, places)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    for (name, (_, plain)), (dtype, pixels) in zip(files().items(), answers, strict=True):
        expected = decode(plain)
        assert dtype == str(expected.dtype), name
        assert np.array_equal(pixels, expected), name
