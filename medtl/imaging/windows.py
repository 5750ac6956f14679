"""Windows: values of an image file in its own units to the range that a network gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from medtl.imaging.intensity_range import (
    NO_NUMBERS,
    by_value,
    percentile_range,
    unit_to_uint16,
)
from medtl.imaging.pixels import Decoded, UnreadableImage
from medtl.imaging.window_syntax import AUTO, PERCENTILES, LinearWindow, linear_windows

LOWER, UPPER = 0.01, 0.99
"""Ranks of the values that `window=percentiles` maps to black and white."""

UNIFORM = (
    "a window leaves an image all black or all white: is it in the units of the file (Hounsfield "
    "units with a rescale, else stored values)?"
)
NARROW_PERCENTILES = (
    "the 1st and the 99th percentile of an image are equal, so it is shown as with window=auto"
)


@dataclass(frozen=True)
class Values:
    """Values of an image file before a window.

    Attributes:
        stored: [H, W], or [H, W, 3] in colour.
        displayed: shows them as the file says, before inversion and padding.
        remarks: on assumptions of the decoder.
        meaning: function from stored values to those in the file's units, such as Hounsfield units.
        left_out: padding, bool [H, W], shown black; None for none.
        inverted: true if the smallest value is white.
        unit_remarks: remarks on the units, where a window in them is applied.
        no_units: reason why a window in the file's units cannot be applied; '' if it can.
    """

    stored: np.ndarray
    displayed: Callable[[], Decoded]
    remarks: tuple[str, ...] = ()
    meaning: Callable[[np.ndarray], np.ndarray] = np.asarray
    left_out: np.ndarray | None = None
    inverted: bool = False
    unit_remarks: tuple[str, ...] = ()
    no_units: str = ""


def windowed(values: Values, window: str) -> Decoded:
    """Applies a window (see `medtl.imaging.window_syntax`) to the values of a file.

    `auto` shows them as the file says. `percentiles` maps the 1st to the 99th percentile of the
    image, of all channels together, to 0..65535. One linear window gives [H, W], several give
    [H, W, 3], a channel each; the third of two is 0. Both are uint16.

    Raises:
        UnreadableImage: a linear window, and the file has no values in units.
    """
    if window == AUTO:
        shown = values.displayed()
    elif window == PERCENTILES:
        shown = _by_percentiles(values)
    elif values.no_units:
        raise UnreadableImage(
            f"window={window} needs grey values of more than 8 bits (DICOM, or PNG or TIFF of 16 "
            f"bits), and {values.no_units}"
        )
    else:
        shown = _by_windows(values, linear_windows(window))
    pixels = shown.pixels
    if values.inverted:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if values.left_out is not None:
        pixels[values.left_out] = 0
    return Decoded(pixels, values.remarks + shown.remarks)


def in_window(values: np.ndarray, window: LinearWindow) -> np.ndarray:
    """Maps values by a window to 0..65535, uint16.

    As DICOM's LINEAR function (PS3.3 C.11.2.1.2.1): up to centre - 0.5 - (width - 1) / 2 black,
    above centre - 0.5 + (width - 1) / 2 white, linear between them.
    """
    middle = window.centre - 0.5
    if window.width == 1:
        return np.where(values > middle, np.uint16(65535), np.uint16(0))
    return unit_to_uint16((values - middle) / (window.width - 1) + 0.5)


def _by_windows(values: Values, windows: tuple[LinearWindow, ...]) -> Decoded:
    channels = [_mapped(values, partial(in_window, window=each)) for each in windows]
    remarks = values.unit_remarks + channels[0].remarks
    if all(each.pixels.min() == each.pixels.max() for each in channels):
        remarks += (UNIFORM,)
    pixels = [each.pixels for each in channels]
    if len(pixels) == 1:
        return Decoded(pixels[0], remarks)
    pixels += [np.zeros_like(pixels[0])] * (3 - len(pixels))
    return Decoded(np.stack(pixels, axis=2), remarks)


def _by_percentiles(values: Values) -> Decoded:
    found = percentile_range(values.stored, values.meaning, values.left_out, LOWER, UPPER)
    if found is None or found[0] == found[1]:
        shown = values.displayed()
        return dataclasses.replace(shown, remarks=(*shown.remarks, NARROW_PERCENTILES))
    low, high = found
    return _mapped(values, lambda meant: unit_to_uint16((meant - low) / (high - low)))


def _mapped(values: Values, shown: Callable[[np.ndarray], np.ndarray]) -> Decoded:
    """Maps the values in units to uint16 of the same shape; NaN becomes 0, with a remark."""
    strange = False

    def mapped(stored: np.ndarray) -> np.ndarray:
        nonlocal strange
        meant = values.meaning(stored).astype(np.float64)
        unknown = np.isnan(meant)
        strange |= bool(unknown.any())
        meant[unknown] = -np.inf
        return shown(meant)

    pixels = by_value(values.stored, mapped)
    return Decoded(pixels, (NO_NUMBERS,) if strange else ())
