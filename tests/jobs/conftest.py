"""Small chest phantoms as a data set of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtl.data.phantoms import write_chest_phantoms


@pytest.fixture(scope="session")
def small_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CSV of 60 phantom patients at 64 px, about 180 images."""
    folder = tmp_path_factory.mktemp("phantoms") / "wards"
    folder.mkdir()
    write_chest_phantoms(folder, seed=1, patients=60, image_size=64)
    return folder / "labels.csv"
