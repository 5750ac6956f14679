"""Stretching of deep images from their own range to 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medtl.imaging.pixels import Decoded

OUTLIERS = 1 / 1000
"""Largest share of outliers at each end of an image's values."""
NARROW = 1 / 8
"""Largest share of the range that the other values cover if outliers are excluded."""
EMPTY = 1 / 2
"""Least share of the range that is empty between outliers and other values."""

WITHOUT_OUTLIERS = "a few values far from all others are left out of the range of a deep image"
NARROW_RANGE = (
    "a deep image has 99.8 % of its values in an eighth of its range or less, which leaves it "
    "almost flat: mend single wrong pixels, or store it as it should be seen"
)
NO_NUMBERS = "values that are not a number are shown black"

_BLOCK = 4_000_000  # values converted to floating point at a time
_BINS = 1024

_Counted = tuple[np.ndarray, np.ndarray | None]  # values, and the count of each; None for once


def full_range(
    stored: np.ndarray,
    meaning: Callable[[np.ndarray], np.ndarray] = np.asarray,
    left_out: np.ndarray | None = None,
) -> Decoded:
    """Stretches values [H, W] or [H, W, 3] of any type from their range to 0..65535 (uint16).

    The range is from the smallest to the largest value without outliers, which are clipped.
    Outliers are at most `OUTLIERS` of the values at an end, separated by an empty part of at least
    `EMPTY` of the range, if all other values cover at most `NARROW` of it. Otherwise an image
    keeps its whole range; a remark follows if almost all values then lie within `NARROW`.

    A constant image becomes 0; NaN counts as the smallest value.

    Args:
        stored: stored values.
        meaning: function from stored values to the values to stretch.
        left_out: bool [H, W], values shown black without a remark; None for none.
    """

    def finite() -> Iterator[_Counted]:
        for values, counts in _counted(stored, left_out):
            known = np.isfinite(meant := meaning(values).astype(np.float64))
            yield meant[known], None if counts is None else counts[known]

    extremes, count = [], 0
    for values, counts in finite():
        extremes += [values.min(), values.max()] if values.size else []
        count += values.size if counts is None else int(counts.sum())
    expected = stored.size - (0 if left_out is None else np.count_nonzero(left_out))
    remarks = (NO_NUMBERS,) if count < expected else ()
    if not extremes:
        return Decoded(np.zeros(stored.shape, np.uint16), remarks)
    low, high, more = _without_outliers(finite, min(extremes), max(extremes), count)

    def stretched(values: np.ndarray) -> np.ndarray:
        meant = meaning(values).astype(np.float64)
        meant[~np.isfinite(meant)] = low
        return unit_to_uint16((meant - low) / max(high - low, 1e-12))

    pixels = by_value(stored, stretched)
    if left_out is not None:
        pixels[left_out] = 0
    return Decoded(pixels, remarks + more)


def percentile_range(
    stored: np.ndarray,
    meaning: Callable[[np.ndarray], np.ndarray],
    left_out: np.ndarray | None,
    lower: float,
    upper: float,
) -> tuple[float, float] | None:
    """Returns the values of two ranks (0 to 1, nearest rank); None without finite values.

    Of more than `_BLOCK` values of more than 16 bits, every n-th counts.

    Args:
        stored: as `full_range` takes them.
        meaning: function from stored values to those to rank.
        left_out: values that do not count, bool [H, W]; None for none.
        lower: rank of the first value, as 0.01 for the 1st percentile.
        upper: rank of the second.
    """
    step = 1 + stored.size // _BLOCK
    found, weights = [], []
    for values, counts in _counted(stored, left_out):
        if counts is None:
            values, counts = values[::step], np.ones(len(values[::step]), np.int64)
        known = np.isfinite(meant := meaning(values).astype(np.float64))
        found.append(meant[known])
        weights.append(counts[known])
    ranked = np.concatenate(found) if found else np.empty(0)
    if not ranked.size:
        return None
    order = np.argsort(ranked, kind="stable")
    reached = np.concatenate(weights)[order].cumsum()
    places = np.searchsorted(reached, np.array([lower, upper]) * reached[-1])
    low, high = ranked[order[places]].tolist()
    return low, high


def by_value(stored: np.ndarray, shown: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Maps each value of `stored` by `shown`: uint16 of the same shape.

    Works on blocks of rows, because intermediate floating point takes many times the memory of the
    image; with at most 16 bits, evaluates each possible value once.
    """
    whole = np.empty(stored.shape, np.uint16)
    if _has_few(stored):
        table, codes = shown(_every(stored.dtype)), _codes(stored)
        for rows in _blocks(stored):
            whole[rows] = table[codes[rows]]
    else:
        for rows in _blocks(stored):
            whole[rows] = shown(stored[rows])
    return whole


def unit_to_uint16(values: np.ndarray) -> np.ndarray:
    """Scales values in 0..1 to uint16; others are clipped."""
    return np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def _counted(stored: np.ndarray, left_out: np.ndarray | None) -> Iterator[_Counted]:
    """Yields the values without those left out: with counts up to 16 bits, else by rows."""
    few = _has_few(stored)
    each = _codes(stored) if few else stored
    counts = np.zeros(len(_every(stored.dtype)) if few else 0, np.int64)
    for rows in _blocks(stored):
        values = each[rows].ravel() if left_out is None else each[rows][~left_out[rows]]
        if few:
            counts += np.bincount(values, minlength=len(counts))
        else:
            yield values, None
    if few:
        yield _every(stored.dtype)[counts > 0], counts[counts > 0]


def _has_few(stored: np.ndarray) -> bool:
    return stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2


def _every(dtype: np.dtype) -> np.ndarray:
    """Returns all values of a type of 16 bits at most, in the order of their bits."""
    return np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}").view(
        dtype.newbyteorder("=")
    )


def _codes(stored: np.ndarray) -> np.ndarray:
    """Returns the index of each value in `_every`."""
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native.view(f"u{stored.dtype.itemsize}")


def _blocks(values: np.ndarray) -> Iterator[slice]:
    rows = max(1, _BLOCK // max(1, values[:1].size))
    return (slice(begin, begin + rows) for begin in range(0, len(values), rows))


def _without_outliers(
    finite: Callable[[], Iterator[_Counted]], low: float, high: float, count: int
) -> tuple[float, float, tuple[str, ...]]:
    """Returns the range of values from `low` to `high` without outliers, and a remark."""
    allowed = int(count * OUTLIERS)
    size = (high - low) / _BINS
    if not allowed or not size:
        return low, high, ()
    counts = np.zeros(_BINS)
    for values, each in finite():
        bins = np.minimum(((values - low) / size).astype(np.int64), _BINS - 1)
        counts += np.bincount(bins, each, minlength=_BINS)
    filled = np.flatnonzero(counts)
    # in `filled`, the bins of the smallest and the largest value that are not outliers by rank
    least = int((counts[filled].cumsum() > allowed).argmax())
    most = len(filled) - 1 - int((counts[filled][::-1].cumsum() > allowed).argmax())
    if filled[most] - filled[least] >= NARROW * _BINS:
        return low, high, ()
    below, begin = _widest_gap(filled[: least + 1])
    end, above = _widest_gap(filled[most:])
    lower = begin - below > EMPTY * (end - filled[0])
    upper = above - end > EMPTY * (filled[-1] - begin)
    width = int(end if upper else filled[-1]) - int(begin if lower else filled[0])
    if not (lower or upper) or width >= NARROW * _BINS:
        return low, high, (NARROW_RANGE,)
    # from the middle of one gap to the middle of the other
    cut_below = low + size * (below + begin + 1) / 2 if lower else low
    cut_above = low + size * (end + above + 1) / 2 if upper else high
    extremes = []
    for values, _ in finite():
        inside = values[(values >= cut_below) & (values <= cut_above)]
        extremes += [inside.min(), inside.max()] if inside.size else []
    if min(extremes) == max(extremes):
        return low, high, (NARROW_RANGE,)
    return min(extremes), max(extremes), (WITHOUT_OUTLIERS,)


def _widest_gap(filled: np.ndarray) -> tuple[int, int]:
    """Returns the two neighbours with the largest gap in ascending numbers; one number twice."""
    if len(filled) == 1:
        return int(filled[0]), int(filled[0])
    place = int(np.diff(filled).argmax())
    return int(filled[place]), int(filled[place + 1])
