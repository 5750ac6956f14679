"""A compressed frame that is larger than its file says is refused before it is decoded."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.crafted import jpeg, jpeg_2000, jpeg_ls, picture
from medtl.imaging.decoding_limits import check_extents
from medtl.imaging.pixels import UnreadableImage


def encoded(kind: str, **options: object) -> bytes:
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, kind, **options)
    return file.getvalue()


FRAMES = {
    "JPEG": encoded("JPEG"),
    "progressive JPEG with a comment": encoded("JPEG", progressive=True, comment=b"\xff\xc0" * 30),
    "JPEG-LS": jpeg_ls(30, 20),
    "JPEG 2000": encoded("JPEG2000", no_jp2=True),
    "JPEG 2000 in a file of its own": encoded("JPEG2000"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_the_extents_that_a_frame_has_are_found(name: str):
    check_extents(FRAMES[name], 30, 20)
    with pytest.raises(UnreadableImage, match="frame is 30 x 20, that of the DICOM file 20 x 30"):
        check_extents(FRAMES[name], 20, 30)


@pytest.mark.parametrize("frame", [jpeg(65_000, 65_000), jpeg_2000(60_000, 60_000)])
def test_a_frame_that_claims_more_is_refused(frame: bytes):
    with pytest.raises(UnreadableImage, match="of the DICOM file 64 x 64"):
        check_extents(frame, 64, 64)


@pytest.mark.parametrize("length", [2, 3, 5, 21, 80])
def test_a_frame_cut_short_is_refused(length: int):
    with pytest.raises(UnreadableImage, match="frame is unknown"):
        check_extents(FRAMES["JPEG"][:length], 30, 20)


def test_of_other_compressions_nothing_is_said():
    check_extents(picture("PNG"), 1, 1)
    check_extents(b"", 1, 1)
