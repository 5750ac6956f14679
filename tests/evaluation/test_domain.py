"""Familiar and strange images, by the distance of their features to those of training images."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load, save
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from medtl.evaluation.domain import DomainReference


def cloud(count: int, centre: int, seed: int) -> np.ndarray:
    """Features about an axis of 32 dimensions, of any length."""
    generator = np.random.default_rng(seed)
    features = 0.3 * generator.normal(size=(count, 32))
    features[:, centre] += 2
    return (features * generator.uniform(0.5, 5, size=(count, 1))).astype(np.float32)


@pytest.fixture
def reference() -> DomainReference:
    return DomainReference.fit(cloud(700, 0, seed=1), cloud(200, 0, seed=2), seed=3)


def test_strange_images_are_told_from_familiar_ones(reference: DomainReference):
    familiar, strange = cloud(300, 0, seed=4), cloud(300, 5, seed=5)
    assert reference.inside(familiar).mean() > 0.95
    assert not reference.inside(strange).any()
    distances = np.concatenate([reference.distance(familiar), reference.distance(strange)])
    assert roc_auc_score(np.repeat([0, 1], 300), distances) > 0.999


def test_the_distance_is_to_the_fifth_neighbour_on_the_sphere(reference: DomainReference):
    features = cloud(20, 0, seed=6)
    kept = reference.features.astype(np.float32)
    on_the_sphere = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected, _ = NearestNeighbors(n_neighbors=5).fit(kept).kneighbors(on_the_sphere)
    np.testing.assert_allclose(reference.distance(features), expected[:, 4], atol=1e-3)
    longer = reference.distance(3 * features)
    np.testing.assert_allclose(longer, reference.distance(features), rtol=1e-4)


def test_one_validation_image_in_a_hundred_is_strange(reference: DomainReference):
    assert reference.inside(cloud(200, 0, seed=2)).mean() == pytest.approx(0.99, abs=0.005)


def test_the_sample_is_bounded_and_drawn_by_the_seed(reference: DomainReference):
    assert reference.features.shape == (512, 32)
    assert reference.features.dtype == np.float16
    data = cloud(700, 0, seed=1), cloud(200, 0, seed=2)
    again, other = (DomainReference.fit(*data, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.features, reference.features)
    assert not np.array_equal(other.features, reference.features)


def test_it_travels_as_tensors(reference: DomainReference):
    found = DomainReference.of_tensors(load(save(reference.tensors())))
    np.testing.assert_array_equal(found.features, reference.features)
    assert found.threshold == reference.threshold


def test_few_images_and_broken_features():
    small = DomainReference.fit(cloud(3, 0, seed=1), cloud(2, 0, seed=2), seed=0)
    broken = np.stack([np.full(32, np.nan), np.zeros(32)])
    assert not small.inside(broken).any()
