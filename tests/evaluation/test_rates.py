"""Shares and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, t

from medtl.evaluation.confidence_intervals import rate, wilson
from medtl.evaluation.jackknife import score_bounds


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (5, 10), (83, 100), (1, 1)])
def test_wilson_as_scipy_has_it(hits, count):
    interval = wilson(hits / count, count)
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert interval.value == hits / count
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1e-6)


def test_wilson_of_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3: 81 of 263 and 0 of 20.
    first, second = wilson(81 / 263, 263), wilson(0.0, 20)
    assert (first.low, first.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (second.low, second.high) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_images_of_unknown_patients_count_one_each():
    happened = np.arange(20) < 7
    assert rate(happened, np.arange(20)) == wilson(0.35, 20)


def test_images_of_one_patient_that_fall_together_widen_the_interval():
    patients = np.repeat(np.arange(20), 5)
    together = patients < 8
    apart = np.arange(100) % 5 < 2
    wide, narrow = rate(together, patients), rate(apart, patients)
    assert wide.value == narrow.value == pytest.approx(0.4)
    assert wide.high - wide.low > 0.3
    # identical images of a patient carry the information of one independent image
    assert (narrow.low, narrow.high) == score_bounds(0.4, 100, t(19).ppf(0.975))


def test_the_effective_number_of_images_is_that_of_the_patients_where_all_fall_together():
    patients = np.repeat(np.arange(40), 5)
    found = rate(patients % 4 == 0, patients)
    error = np.std(np.arange(40) % 4 == 0, ddof=1) / np.sqrt(40)
    effective = 0.25 * 0.75 / error**2
    expected = score_bounds(0.25, effective, t(39).ppf(0.975))
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize("all_or_none", [0.0, 1.0])
def test_a_flawless_share_is_as_sure_as_its_patients_are_many(all_or_none):
    happened = np.full(100, bool(all_or_none))
    interval = rate(happened, np.repeat(np.arange(10), 10))
    assert interval == wilson(all_or_none, 10)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.high - interval.low > 0.25


def test_one_patient_has_no_bounds_and_no_image_has_no_share():
    interval = rate(np.array([True, False]), np.array([1, 1]))
    assert interval.value == 0.5
    assert np.isnan([interval.low, interval.high]).all()
    with pytest.raises(ValueError, match="no image"):
        rate(np.empty(0, bool), np.empty(0, int))
