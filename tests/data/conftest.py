"""Small data sets of noise for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]
WriteFolder = Callable[..., Path]


def _write_image(file: Path, seed: int, shape: tuple[int, ...] = (6, 7)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def write_image() -> WriteImage:
    """Writes noise of a seed to a file: equal seeds and shapes give identical pixels."""
    return _write_image


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes a folder `scans` of so many different images for each class (or `split/class`)."""

    def write(classes: dict[str, int]) -> Path:
        root = tmp_path / "scans"
        names = [(kind, number) for kind, count in classes.items() for number in range(count)]
        for seed, (kind, number) in enumerate(names):
            _write_image(root / kind / f"{number:03d}.png", seed)
        return root

    return write
