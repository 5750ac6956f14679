"""A map is faithful where covering what it points at counts; equal maps agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from medtl.evaluation.heatmap_checks import agreement, deletion_scores, faithfulness, method_table
from medtl.evaluation.jackknife import Interval

SIDE = 32


def red(images: Tensor) -> Tensor:
    """One score: how much red there is in the upper left quarter of the last image of a case."""
    return images[:, -3, : SIDE // 2, : SIDE // 2].sum(dim=(1, 2))[:, None]


def drawn(count: int) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images with a red patch in that quarter, maps of the patch, and maps of where it is not."""
    images, right = torch.zeros(count, 3, SIDE, SIDE), np.zeros((count, SIDE, SIDE), np.float32)
    images[:, 0, 4:12, 4:12] = 1
    right[:, 4:12, 4:12] = 1
    return images, right, np.roll(right, SIDE // 2, axis=2)


def test_covering_what_counts_lowers_the_score_more_than_covering_elsewhere():
    images, right, wrong = drawn(6)
    classes = torch.zeros(6, dtype=torch.int64)
    faithful, not_so = (
        deletion_scores(red, images, classes, heats, seed=1) for heats in (right, wrong)
    )
    patch = 64 * (1 - 64 / SIDE**2)  # it is covered with the mean of the image
    assert faithful.hottest == pytest.approx(patch, rel=1e-5)
    assert (faithful.elsewhere < faithful.hottest).all()
    assert not not_so.hottest.any()
    case = torch.cat([torch.zeros_like(images), images], dim=1)
    beside = np.concatenate([np.zeros_like(right), right], axis=2)
    assert deletion_scores(red, case, classes, beside, 1).hottest == pytest.approx(patch, rel=1e-5)
    assert np.isnan(
        deletion_scores(red, images, classes, np.zeros_like(right), seed=1).hottest
    ).all()

    patients = np.arange(6)
    table = method_table(
        {"a": right, "b": wrong}, {"a": faithful, "b": not_so}, patients
    ).set_index("method")
    assert table.loc["a", "fall"] == pytest.approx(patch, rel=1e-5)
    assert table.loc["a", "fall_more_low"] > 0 >= table.loc["b", "fall_more"]
    assert table.loc["a", "agreement_a"] == pytest.approx(1)
    assert table.loc["a", "agreement_b"] == table.loc["b", "agreement_a"] < 0.1


def test_maps_without_heat_agree_with_none():
    _, right, wrong = drawn(4)
    right[0] = 0
    wrong[1] = 0
    found = agreement(right, wrong, np.arange(4))
    assert found.value == pytest.approx(agreement(right[2:], wrong[2:], np.arange(2)).value)


def test_faithfulness_in_words():
    assert "which may be chance" not in faithfulness(Interval(1.0, 0.5, 1.5))
    assert faithfulness(Interval(1.0, -0.5, 1.5)).endswith("which may be chance")
    assert "no" in faithfulness(Interval(np.nan, np.nan, np.nan))
