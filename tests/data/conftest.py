"""Small data sets of noise for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

WriteDicom = Callable[..., Path]


@pytest.fixture
def write_dicom() -> WriteDicom:
    """Writes grey noise of a seed to a DICOM file of so many frames, with the elements given."""

    def write(file: Path, seed: int, frames: int = 1, **elements: object) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 4096, (frames, 6, 7), dtype=np.uint16)
        header = pydicom.Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        header.SOPInstanceUID = f"1.2.3.{seed}"
        header.NumberOfFrames, header.Rows, header.Columns = noise.shape
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.PixelRepresentation = 0
        header.PixelData = noise.tobytes()
        for name, value in elements.items():
            setattr(header, name, value)
        header.save_as(file, enforce_file_format=True)
        return file

    return write
