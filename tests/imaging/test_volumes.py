"""Volumes are known by their headers, counted in folders, and turned away in one line."""

from __future__ import annotations

import gzip
import struct

import pytest

from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage
from medtl.settings.data import Reading


def nifti(order: str = "<", magic: bytes = b"n+1\0") -> bytes:
    header = bytearray(struct.pack(f"{order}i", 348) + bytes(344))
    header[40:56] = struct.pack(f"{order}8h", 3, 240, 240, 155, 1, 1, 1, 1)
    header[344:348] = magic
    return bytes(header) + bytes(100)


def nifti_2() -> bytes:
    header = bytearray(struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(528))
    header[16:80] = struct.pack("<8q", 4, 64, 64, 30, 200, 1, 1, 1)
    return bytes(header)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (nifti(), "a NIfTI volume of 240 x 240 x 155, not an image; convert its 155 slices to PNG"),
        (nifti(">"), "a NIfTI volume of 240 x 240 x 155"),
        (gzip.compress(nifti(), mtime=0), "a NIfTI volume of 240 x 240 x 155"),
        (nifti(magic=b"\0\0\0\0"), "an ANALYZE volume of 240 x 240 x 155"),
        (nifti_2(), "a NIfTI volume of 64 x 64 x 30 x 200, not an image; convert its 30 slices"),
        (
            b"NRRD0004\n# a\ntype: short\ndimension: 3\nsizes: 9 8 7\n\n\0\1",
            "NRRD volume of 9 x 8 x 7",
        ),
        (b"ObjectType = Image\nNDims = 3\nDimSize = 9 8 7\n", "a MetaImage volume of 9 x 8 x 7"),
        (b"NRRD0004\n", "an NRRD volume, not an image; convert it to PNG or DICOM"),
        (gzip.compress(b"anything else", mtime=0), "not an image in PNG"),
        (b"\x1f\x8bjunk", "not an image in PNG"),
    ],
)
def test_a_volume_is_told_by_its_header(data, line):
    with pytest.raises(UnreadableImage, match=line) as refusal:
        decode(data)
    assert "\n" not in str(refusal.value)


def test_volumes_in_a_folder_are_counted_and_named(write_folder):
    root = write_folder({"a": 10, "b": 10})
    for number in range(2):
        (root / "a" / f"brain{number}.nii.gz").write_bytes(gzip.compress(nifti()))
    with pytest.raises(MedtlError, match=r"2 of 22 .*a/brain0.nii.gz: a NIfTI.* 155 slices"):
        load(str(root), 5, seed=0)
    dataset = load(str(root), 5, seed=0, reading=Reading(unreadable="skip"))
    assert len(dataset.frame) == 20
    assert any("brain1.nii.gz" in note and "skipped" in note for note in dataset.notes)
