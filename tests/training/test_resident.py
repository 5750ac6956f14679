"""Arrays on the device."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from medtl.training import resident
from medtl.training.resident import Rows, to_device

DEVICES = [
    "cpu",
    pytest.param(os.environ.get("GPU_TESTS_ON", "cuda"), marks=pytest.mark.gpu),
]


MEMORY = 10**9  # bytes


def pixels(dtype: type, images: int = 7) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.integers(0, np.iinfo(dtype).max, (images, 1, 4, 4), endpoint=True).astype(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_are_those_of_the_array(device: str, dtype: type) -> None:
    stored, rows = pixels(dtype), np.array([5, 0, 5])

    read = Rows(stored.__getitem__, len(stored)).on(torch.device(device), rows)

    assert read.device.type == device
    np.testing.assert_array_equal(read.cpu().numpy(), stored[rows])


@pytest.mark.parametrize("device", DEVICES)
def test_an_array_is_copied(device: str) -> None:
    array = np.arange(6.0).reshape(2, 3)

    np.testing.assert_array_equal(to_device(array, torch.device(device)).cpu().numpy(), array)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU, or the processor with the memory of one."""
    if request.param == "cpu":
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (MEMORY, MEMORY))
    return torch.device(request.param)


def test_the_least_recently_used_array_leaves_the_gpu(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, total = torch.cuda.mem_get_info(device)
    stored = pixels(np.uint8)
    monkeypatch.setattr(resident, "SHARE", 2.5 * stored.nbytes / total)
    first, second, third = (Rows(stored.__getitem__, len(stored)) for _ in range(3))
    for rows in (first, second, first, third):
        assert rows._fits(device)

    assert first in resident._HELD
    assert third in resident._HELD
    assert second not in resident._HELD
    np.testing.assert_array_equal(first._whole.cpu().numpy(), stored)


def test_an_array_that_does_not_fit_is_read_by_batches(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "SHARE", 0.0)
    stored = pixels(np.uint8)
    rows = Rows(stored.__getitem__, len(stored))

    assert not rows._fits(device)
    read = rows.on(device, np.array([3]))

    np.testing.assert_array_equal(read.cpu().numpy(), stored[[3]])
    assert rows not in resident._HELD
