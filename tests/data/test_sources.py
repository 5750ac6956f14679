"""A source of data is one file in `medtl/data/sources/`, and nothing else names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.data import sources as package
from medtl.data.loading import load
from medtl.data.manifest import EMBEDDED, data_name, read_table
from medtl.data.sources import registry
from medtl.data.sources.phantoms import datasets

LAYOUT_FILE = '''
"""Slides as the hospital of this test stores them: NUMBER-LABEL.bmp beside `slides.index`."""

from pathlib import Path

import pandas as pd

from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.settings.data import Reading


def recognises(place: Path) -> bool:
    return (place / "slides.index").is_file()


def read(place: Path, reading: Reading) -> Rows:
    names = sorted(file.name for file in place.glob("*.bmp"))
    parts = [Path(name).stem.split("-") for name in names]
    frame = pd.DataFrame(
        {
            "path": names,
            "label": [label for _, label in parts],
            "patient": [number for number, _ in parts],
            "split": "",
        }
    )
    return Rows(place, frame, ("slides of this test",))


SOURCE = Source("slides", LAYOUT, recognises, read)
'''


@pytest.fixture
def added_layout(tmp_path, monkeypatch) -> Iterator[None]:
    """A source in a folder of its own beside those of the package."""
    folder = tmp_path / "more_sources"
    folder.mkdir()
    (folder / "slides_of_a_test.py").write_text(LAYOUT_FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    registry.sources.cache_clear()
    yield
    registry.sources.cache_clear()
    sys.modules.pop("medtl.data.sources.slides_of_a_test", None)


@pytest.fixture
def slides(tmp_path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "slides.index").touch()
    random = np.random.default_rng(0)
    for number in range(24):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number // 2:02d}-{'xy'[number % 2]}.bmp")
    return folder


@pytest.mark.usefixtures("added_layout")
def test_a_layout_is_added_by_one_file(slides):
    assert registry.source_of(slides).name == "slides"
    assert data_name(str(slides)) == "hospital"
    table = read_table(str(slides))
    assert table.classes == ("x", "y")
    assert table.frame["patient"].nunique() == 12
    dataset = load(str(slides), 8, seed=0)
    assert "slides of this test" in dataset.notes
    assert all(len(rows) for rows in dataset.splits.values())


def test_without_that_file_the_folder_is_read_as_any_other(slides):
    assert registry.source_of(slides).name == "folder"


def test_layouts_come_before_tables_and_those_before_folders():
    priorities = [source.priority for source in registry.sources()]
    assert priorities == sorted(priorities, reverse=True)
    assert [source.name for source in registry.sources()][-2:] == ["table", "folder"]


def test_embedded_sets_are_found_like_sources():
    assert {*datasets.NAMES, "digits"} == set(EMBEDDED)


def test_kept_phantoms_of_earlier_releases_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "get_or_create", lambda folder, write: folder)
    assert [datasets.phantoms_table(name).parent.name for name in datasets.NAMES] == [
        "15af468064475f230d19e345",
        "2d0b6bc1d235cd8df5138271",
        "147db1da46561f222b44f871",
        "a22781026f76211dfb88c991",
    ]
