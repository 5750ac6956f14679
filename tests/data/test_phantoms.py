"""Phantoms are drawn from a seed, and their classes are not told by single pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtl.data.loading import load
from medtl.data.sources.phantoms import chest_xray, ct_slice, datasets
from medtl.data.sources.phantoms.datasets import write_axial_phantoms, write_chest_phantoms
from medtl.imaging.decode import decode
from medtl.imaging.pixels import square


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("write", [write_chest_phantoms, write_axial_phantoms])
def test_the_seed_decides(tmp_path, write):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, seed=seed, patients=3, image_size=32)
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    assert contents(tmp_path / "first") != contents(tmp_path / "other")


def test_the_first_patients_do_not_depend_on_the_others(tmp_path):
    for name, patients in (("few", 2), ("more", 4)):
        (tmp_path / name).mkdir()
        write_chest_phantoms(tmp_path / name, patients=patients, image_size=32)
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    assert all(more[name] == few[name] for name in few if name.endswith(".png"))


def test_patients_have_several_images_and_classes_are_even(tmp_path):
    write_chest_phantoms(tmp_path, patients=60, image_size=16)
    table = pd.read_csv(tmp_path / "labels.csv")
    assert table.groupby("patient").size().between(2, 4).all()
    assert table["label"].value_counts(normalize=True).between(0.2, 0.5).all()
    assert (table.groupby("patient")["label"].nunique() > 1).any()
    assert tuple(sorted(set(table["label"]))) == chest_xray.CLASSES


def test_a_drawing_looks_alike_at_every_size(tmp_path):
    for size in (48, 96):
        (tmp_path / str(size)).mkdir()
        write_chest_phantoms(tmp_path / str(size), patients=2, image_size=size)
    for file in (tmp_path / "48").glob("*.png"):
        small = decode(file.read_bytes())
        large = square(decode((tmp_path / "96" / file.name).read_bytes()), 48)[0]
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("finding", ct_slice.CLASSES)
def test_cross_sections_are_neither_black_nor_white(finding):
    image = ct_slice.draw(np.random.default_rng(0), finding, 64)
    assert image.dtype == np.uint8
    assert 20 < image.mean() < 200
    assert image.std() > 25


def test_embedded_sets_are_read_like_any_other():
    dataset = load("phantoms", 24, seed=0)
    assert dataset.name == "phantoms"
    assert dataset.classes == chest_xray.CLASSES
    assert 800 < len(dataset.labels) < 1000
    frame = dataset.frame
    assert frame.groupby("patient")["split"].nunique().max() == 1
    # A linear classifier on pixels must not do: the phantoms are there for networks.
    pixels = dataset.images(np.arange(len(frame))).reshape(len(frame), -1) / 255
    train, test = dataset.splits["train"], dataset.splits["test"]
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000))
    linear.fit(pixels[train], dataset.labels[train])
    scores = linear.predict_proba(pixels[test])
    assert roc_auc_score(dataset.labels[test], scores, multi_class="ovr") < 0.75


MEANS = {
    datasets.TARGET: (57.7, 142.5, 89.1, 133.3),
    datasets.PRETRAINING: (120.8, 90.7),
    datasets.CASES: (39.1, 30.8, 41.0, 50.5),
    datasets.FINDINGS: (123.8, 93.2, 108.2, 106.0),
}
"""Mean greys of the first images, of sets drawn as `datasets.DRAWING` says."""


@pytest.mark.parametrize("name", datasets.NAMES)
def test_a_changed_drawing_needs_another_version(tmp_path, name):
    datasets.WRITERS[name](tmp_path, patients=2, image_size=32)
    images = [decode(file.read_bytes()) for file in sorted(tmp_path.glob("*.png"))[:4]]
    means = [float(image.mean()) for image in images]
    told = "give `DRAWING` another value, so that kept sets are drawn anew, and renew these means"
    assert means == pytest.approx(MEANS[name], abs=0.2), told
