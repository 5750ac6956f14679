"""Input example of a logged model: synthetic, and valid for its signature."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.imaging.decode import decode
from medtl.tracking.logged_model import example_images


@pytest.mark.parametrize("side", [8, 64, 300])
@pytest.mark.parametrize(("channels", "shape"), [(1, ()), (3, (3,))])
def test_drawings_have_size_mode_and_number_of_the_images(side, channels, shape):
    drawn = [decode(file) for file in example_images(side, channels, count=2)]
    assert [image.shape for image in drawn] == [(side, side, *shape)] * 2
    assert all(image.dtype == np.uint8 and image.std() > 10 for image in drawn)
    assert not np.array_equal(*drawn)


def test_drawings_are_always_the_same():
    assert example_images(64, 1, 2) == example_images(64, 1, 2)
