"""Values of any type and range to sixteen bits, by the range that an image's values have."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from medtl.data.remarks import Decoded

OUTLIERS = 1 / 1000
"""The largest share of an image's values at an end that its range is taken without."""
NARROW = 1 / 8
"""Of the range: all other values lie within this much of it where it is taken without outliers."""
EMPTY = 1 / 2
"""Of the range: outliers lie beyond at least this much of it that no value is in."""

WITHOUT_OUTLIERS = "a few values far from all others are left out of the range of a deep image"
NARROW_RANGE = (
    "a deep image has 99.8 % of its values in an eighth of its range or less, which leaves it "
    "almost flat: mend single wrong pixels, or store it as it should be seen"
)
NO_NUMBERS = "values that are no number are shown black"

_BLOCK = 4_000_000  # values that are floating point at a time
_BINS = 1024
_STEP = 16  # rows, of which one is looked at first


def full_range(
    stored: np.ndarray,
    meaning: Callable[[np.ndarray], np.ndarray] = np.asarray,
    left_out: np.ndarray | None = None,
) -> Decoded:
    """Stretches values [H, W] or [H, W, 3] of any type from their own range to 0..65535 (uint16).

    The range is from the smallest value to the largest. Outliers do not count for it and are
    clipped: at most `OUTLIERS` of the values at an end, beyond an empty part of at least `EMPTY`
    of the range, where all other values lie within `NARROW` of it. So an image keeps its whole
    range if more values lie that far away, if values lie in between, or if the others use more of
    the range; a remark says where that leaves almost all of them within `NARROW`.

    An image of one value becomes 0; a value that is no number counts as the smallest.

    Args:
        stored: the values as they are stored.
        meaning: makes of some rows of stored values those that are stretched.
        left_out: bool [H, W], where a value counts as no number without a remark; None for nowhere.
    """

    def values_of(rows: slice) -> np.ndarray:
        values = meaning(stored[rows]).astype(np.float64)
        if left_out is not None:
            values[left_out[rows]] = np.nan
        return values

    def finite() -> Iterator[np.ndarray]:
        for rows in _blocks(stored):
            values = values_of(rows)
            yield values[np.isfinite(values)]

    extremes, count = [], 0
    for values in finite():
        extremes += [values.min(), values.max()] if values.size else []
        count += values.size
    expected = stored.size - (0 if left_out is None else np.count_nonzero(left_out))
    remarks = (NO_NUMBERS,) if count < expected else ()
    if not extremes:
        return Decoded(np.zeros(stored.shape, np.uint16), remarks)
    low, high, more = min(extremes), max(extremes), ()
    if not _is_wide(values_of(slice(None, None, _STEP)), high - low, int(count * OUTLIERS)):
        low, high, more = _without_outliers(finite, low, high, int(count * OUTLIERS))

    def stretched(rows: slice) -> np.ndarray:
        values = values_of(rows)
        values[~np.isfinite(values)] = low
        return unit_to_uint16((values - low) / max(high - low, 1e-12))

    return Decoded(by_blocks(stored, stretched), remarks + more)


def by_blocks(stored: np.ndarray, shown: Callable[[slice], np.ndarray]) -> np.ndarray:
    """uint16 of the shape of `stored`: what `shown` makes of some rows of it after the other.

    The floating point in between takes many times the room of the image.
    """
    whole = np.empty(stored.shape, np.uint16)
    for rows in _blocks(stored):
        whole[rows] = shown(rows)
    return whole


def unit_to_uint16(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint16; what lies outside is clipped."""
    return np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def _blocks(values: np.ndarray) -> Iterator[slice]:
    rows = max(1, _BLOCK // max(1, values[:1].size))
    return (slice(begin, begin + rows) for begin in range(0, len(values), rows))


def _is_wide(some: np.ndarray, extent: float, allowed: int) -> bool:
    """Whether some rows of an image suffice to know that there is nothing to leave out.

    More values than can be outliers lie far from their median, and that is no outlier: they are
    too many.
    """
    if not allowed or not extent:
        return True
    some = some[np.isfinite(some)]
    away = abs(some - np.median(some)) > (NARROW + 2 / _BINS) * extent if some.size else some
    return np.count_nonzero(away) > 2 * allowed


def _without_outliers(
    finite: Callable[[], Iterator[np.ndarray]], low: float, high: float, allowed: int
) -> tuple[float, float, tuple[str, ...]]:
    """The range of values from `low` to `high` less so many outliers an end; and a remark."""
    size = (high - low) / _BINS
    counts = np.zeros(_BINS, np.int64)
    for values in finite():
        bins = np.minimum(((values - low) / size).astype(np.int64), _BINS - 1)
        counts += np.bincount(bins, minlength=_BINS)
    filled = np.flatnonzero(counts)
    # in `filled`, the bins of the smallest and the largest value that is no outlier by its rank
    least = int((counts[filled].cumsum() > allowed).argmax())
    most = len(filled) - 1 - int((counts[filled][::-1].cumsum() > allowed).argmax())
    if filled[most] - filled[least] >= NARROW * _BINS:
        return low, high, ()
    below, begin = _widest_gap(filled[: least + 1])
    end, above = _widest_gap(filled[most:])
    lower = begin - below > EMPTY * (end - filled[0])
    upper = above - end > EMPTY * (filled[-1] - begin)
    bins = (end if upper else filled[-1]) - (begin if lower else filled[0])
    if not (lower or upper) or bins >= NARROW * _BINS:
        return low, high, (NARROW_RANGE,)
    # from the middle of one gap to that of the other
    least = low + size * (below + begin + 1) / 2 if lower else low
    most = low + size * (end + above + 1) / 2 if upper else high
    extremes = []
    for values in finite():
        inside = values[(values >= least) & (values <= most)]
        extremes += [inside.min(), inside.max()] if inside.size else []
    if min(extremes) == max(extremes):
        return low, high, (NARROW_RANGE,)
    return min(extremes), max(extremes), (WITHOUT_OUTLIERS,)


def _widest_gap(filled: np.ndarray) -> tuple[int, int]:
    """Of ascending numbers the two neighbours that are furthest apart; of one, it twice."""
    if len(filled) == 1:
        return int(filled[0]), int(filled[0])
    place = int(np.diff(filled).argmax())
    return int(filled[place]), int(filled[place + 1])
