"""Syntax of the parameters `window` and `fit`, and of linear windows `CENTRE/WIDTH`."""

from __future__ import annotations

from typing import NamedTuple

AUTO, PERCENTILES = "auto", "percentiles"
SQUASH, PAD, CROP = "squash", "pad", "crop"
FITS = (SQUASH, PAD, CROP)
BILINEAR = "bilinear"

LARGEST = 1e9
MOST_WINDOWS = 3
"""One for each channel of an image in colour."""
ALLOWED = (
    f"{AUTO}, {PERCENTILES}, or up to {MOST_WINDOWS} windows CENTRE/WIDTH of width 1 or more, as "
    "40/400,-600/1500"
)


class LinearWindow(NamedTuple):
    """Linear window of DICOM (PS3.3 C.11.2.1.2.1), in the units of the file."""

    centre: float
    width: float


def linear_windows(text: str) -> tuple[LinearWindow, ...]:
    """Parses a comma list of CENTRE/WIDTH; none for `auto` and `percentiles`.

    >>> linear_windows("40/400,-600/1500")
    (LinearWindow(centre=40.0, width=400.0), LinearWindow(centre=-600.0, width=1500.0))

    Raises:
        ValueError: another text, too many windows, or a width below 1.
    """
    if text in (AUTO, PERCENTILES):
        return ()
    windows = []
    for entry in text.split(","):
        centre, _, width = entry.partition("/")
        window = LinearWindow(float(centre), float(width))
        # a NaN is below no bound
        if not (abs(window.centre) <= LARGEST and 1 <= window.width <= LARGEST):
            raise ValueError(entry)
        windows.append(window)
    if len(windows) > MOST_WINDOWS:
        raise ValueError(text)
    return tuple(windows)
