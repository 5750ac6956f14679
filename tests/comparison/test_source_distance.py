"""The distance of a study's sources from its target: the alike one is the nearer one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medtl.comparison.runner import SharedResources
from medtl.comparison.source_distance import source_distances
from medtl.comparison.study_registry import plan_of
from medtl.data.sources.phantoms.datasets import write_axial_phantoms, write_chest_phantoms
from medtl.pipeline.pretraining import pretrained
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import PretrainSettings

SMALL = {"architecture": "small_resnet", "image_size": 48, "epochs": 1}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """Backbones pretrained on other chests and on cross-sections: name to URI."""
    uris = {}
    for name, write in (("chests", write_chest_phantoms), ("slices", write_axial_phantoms)):
        folder = tmp_path / name
        folder.mkdir()
        write(folder, seed=7, patients=42, image_size=48)
        _, uris[name] = pretrained(PretrainSettings(data=str(folder / "labels.csv"), **SMALL))
    return uris


@pytest.mark.slow
def test_every_backbone_sees_the_alike_source_nearer(sources, small_phantoms, tmp_path, capsys):
    settings = CompareSettings(
        data=str(small_phantoms),
        weights=",".join(["random", *sources.values()]),
        cutoffs="head",
        **SMALL,
    )
    plan = plan_of(settings)
    found = source_distances(SharedResources(settings, plan), plan.cells)
    assert len(found) == 3 * 2
    assert set(found["data"]) == {"chests", "slices"}
    assert (found["distance"] > 0).all()
    nearest = found.loc[found.groupby("seen_by")["distance"].idxmin(), "data"]
    assert set(nearest) == {"chests"}

    shutil.rmtree(tmp_path / "slices")
    left = source_distances(SharedResources(settings, plan), plan.cells)
    assert set(left["data"]) == {"chests"}
    assert f"no distance from {sources['slices']}" in capsys.readouterr().err


def test_weights_that_were_not_trained_here_have_no_source(small_phantoms):
    settings = CompareSettings(data=str(small_phantoms), weights="random", cutoffs="head", **SMALL)
    plan = plan_of(settings)
    assert source_distances(SharedResources(settings, plan), plan.cells).empty
