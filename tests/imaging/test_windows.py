"""Windows: values in the file's units reach the network as DICOM defines it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medtl.imaging.decode import decode, decode_with_remarks
from medtl.imaging.dicom import NO_RESCALE
from medtl.imaging.intensity_range import NO_NUMBERS
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.window_syntax import LinearWindow, linear_windows
from medtl.imaging.windows import NARROW_PERCENTILES, UNIFORM, in_window
from tests.imaging.test_dicom import dicom, written

HOUNSFIELD = np.array([[-1024, -160, -159, 40], [39, 239, 240, 3071]], np.int16)


def by_hand(value: float, centre: float, width: float) -> float:
    """Returns the output, 0 to 65535, of the pseudo code of PS3.3 C.11.2.1.2.1."""
    if value <= centre - 0.5 - (width - 1) / 2:
        return 0.0
    if value > centre - 0.5 + (width - 1) / 2:
        return 65535.0
    return ((value - (centre - 0.5)) / (width - 1) + 0.5) * 65535.0


def of_hounsfield(centre: float, width: float) -> np.ndarray:
    shown = [[by_hand(value, centre, width) for value in row] for row in HOUNSFIELD.tolist()]
    return np.round(shown).astype(np.uint16)


def picture(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def slice_of(stored: np.ndarray, **elements: object) -> bytes:
    return written(dicom(stored, **{"Modality": "CT", **elements}))


STORED = {
    "DICOM, unsigned with an intercept": slice_of(
        (HOUNSFIELD + 1024).astype(np.uint16), RescaleSlope=1, RescaleIntercept=-1024
    ),
    "DICOM, signed with a slope": slice_of(
        HOUNSFIELD * 4, RescaleSlope=0.25, RescaleIntercept=0, WindowCenter=1, WindowWidth=2
    ),
    "TIFF, signed": picture(HOUNSFIELD.astype(np.int32), "TIFF"),
    "TIFF, floating point": picture(HOUNSFIELD.astype(np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", STORED)
def test_hounsfield_units_are_windowed_as_dicom_says(name):
    for centre, width in ((40, 400), (-600, 1500), (35.5, 80)):
        shown = decode(STORED[name], window=f"{centre}/{width}")
        assert np.array_equal(shown, of_hounsfield(centre, width))


def test_values_by_hand():
    assert by_hand(-160, 40, 400) == 0
    assert by_hand(39.5, 40, 400) == 65535 / 2
    assert by_hand(239, 40, 400) == 65535
    assert np.round(by_hand(-159, 40, 400)) == np.round(65535 / 399) == 164


@pytest.mark.parametrize(("offset", "window"), [(1024, "1064/400"), (32768, "32808/400")])
def test_png_is_windowed_in_its_stored_values(offset, window):
    file = picture((HOUNSFIELD.astype(np.int32) + offset).astype(np.uint16))
    assert np.array_equal(decode(file, window=window), of_hounsfield(40, 400))


def test_grey_that_pillow_scales_is_windowed_in_its_stored_values():
    import openjpeg

    stored = np.tile(np.array([[0, 1, 2000], [2001, 4000, 4095]], np.uint16), (16, 16))
    expected = decode(picture(stored), window="2000/1500")
    pgm = b"P5\n%d %d\n4095\n" % stored.shape[::-1] + stored.astype(">u2").tobytes()
    for file in (pgm, bytes(openjpeg.encode(stored, bits_stored=12))):
        assert np.array_equal(decode(file, window="2000/1500"), expected)


def test_several_windows_are_channels():
    file = STORED["DICOM, signed with a slope"]
    three = decode(file, window="40/400,-600/1500,300/1500")
    for channel, (centre, width) in enumerate(((40, 400), (-600, 1500), (300, 1500))):
        assert np.array_equal(three[..., channel], of_hounsfield(centre, width))
    two = decode(file, window="40/400,-600/1500")
    assert np.array_equal(two[..., :2], three[..., :2])
    assert not two[..., 2].any()


def test_monochrome1_is_inverted_and_padding_is_black():
    stored = (HOUNSFIELD + 1024).astype(np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    inverted = slice_of(stored, PhotometricInterpretation="MONOCHROME1", **rescale)
    assert np.array_equal(decode(inverted, window="40/400"), 65535 - of_hounsfield(40, 400))
    padded = slice_of(stored, PixelPaddingValue=4095, **rescale)
    assert decode(padded, window="40/400,-600/1500,0/1")[1, 3].tolist() == [0, 0, 0]


def test_a_window_of_one_is_a_threshold():
    assert in_window(np.array([38.0, 39.5, 40.0]), LinearWindow(40, 1)).tolist() == [0, 0, 65535]


def test_no_levels_are_lost():
    ramp = np.arange(2000, 2400, dtype=np.uint16)[None]
    shown = decode(picture(ramp), window="2200/401")
    assert len(np.unique(shown)) == ramp.size


def test_percentiles_go_from_black_to_white():
    stored = np.random.default_rng(0).permutation(10_000).reshape(100, 100).astype(np.uint16)
    shown = decode(picture(stored), window="percentiles")
    low, high = np.percentile(stored.astype(float), [1, 99], method="inverted_cdf")
    expected = np.round(np.clip((stored.astype(float) - low) / (high - low), 0, 1) * 65535)
    assert np.array_equal(shown, expected)
    for other in (stored.astype(np.int32), stored.astype(np.float32)):
        assert np.array_equal(decode(picture(other, "TIFF"), window="percentiles"), expected)
    colour = np.stack([stored // 100, stored // 200, stored % 100], axis=2).astype(np.uint8)
    assert decode(picture(colour), window="percentiles").max() == 65535


def test_percentiles_that_are_equal_leave_an_image_as_it_is_displayed():
    stored = np.zeros((100, 100), np.uint16)
    stored[:5, :5] = 60_000
    found = decode_with_remarks(picture(stored), window="percentiles")
    assert found.remarks == (NARROW_PERCENTILES,)
    assert np.array_equal(found.pixels, decode(picture(stored)))


def test_remarks_on_units():
    wrong = decode_with_remarks(picture(np.full((4, 4), 33_000, np.uint16)), window="40/400")
    assert wrong.remarks == (UNIFORM,)
    unscaled = decode_with_remarks(slice_of(HOUNSFIELD), window="40/400")
    assert unscaled.remarks == (NO_RESCALE,)
    assert decode_with_remarks(slice_of(HOUNSFIELD)).remarks == ()
    holed = HOUNSFIELD.astype(np.float32)
    holed[0, 3] = np.nan
    found = decode_with_remarks(picture(holed, "TIFF"), window="40/400")
    assert found.remarks == (NO_NUMBERS,)
    assert found.pixels[0, 3] == 0


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (picture(np.eye(4, dtype=np.uint8)), "this image has 8 bits a channel"),
        (picture(np.full((4, 4, 3), (1, 2, 3), np.uint8)), "this image has 8 bits a channel"),
        (written(dicom(np.full((2, 2, 3), (1, 2, 3), np.uint8), bits=8)), "in colour"),
    ],
)
def test_values_without_units_are_refused(file, reason):
    with pytest.raises(UnreadableImage, match=f"window=40/400 needs grey .*{reason}"):
        decode(file, window="40/400")


@given(st.text("0123456789/,.-einfa", max_size=20))
def test_any_text_is_windows_or_refused(text):
    try:
        found = linear_windows(text)
    except ValueError:
        return
    shown = [in_window(HOUNSFIELD.astype(float), each) for each in found]
    assert text in ("auto", "percentiles") or len(shown) in (1, 2, 3)
