"""Familiar and strange images, by the distance of their features to those of training images."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import load, save
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from medtl.inference.out_of_distribution import (
    LAYOUT,
    NETWORK,
    DomainReference,
    conformal_limit,
    layout,
)


def cloud(count: int, centre: int, seed: int) -> np.ndarray:
    """Features about an axis of 32 dimensions, of any length."""
    generator = np.random.default_rng(seed)
    features = 0.3 * generator.normal(size=(count, 32))
    features[:, centre] += 2
    return (features * generator.uniform(0.5, 5, size=(count, 1))).astype(np.float32)


def clouds(count: int, centres: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """What the network reads of images, and their layout: two clouds."""
    return {
        NETWORK: cloud(count, centres[0], seed),
        LAYOUT: cloud(count, centres[1], seed + 100),
    }


@pytest.fixture
def reference() -> DomainReference:
    return DomainReference.fit(clouds(700, (0, 0), seed=1), clouds(200, (0, 0), seed=2), seed=3)


@pytest.mark.parametrize("centres", [(5, 0), (0, 5), (5, 5)])
def test_what_is_strange_in_either_is_strange(reference: DomainReference, centres: tuple[int, int]):
    familiar, strange = clouds(300, (0, 0), seed=4), clouds(300, centres, seed=5)
    assert reference.inside(familiar).mean() > 0.95
    assert not reference.inside(strange).any()
    distances = np.concatenate([reference.distance(familiar), reference.distance(strange)])
    assert roc_auc_score(np.repeat([0, 1], 300), distances) > 0.999


def test_the_distance_is_to_the_fifth_neighbour_on_the_sphere(reference: DomainReference):
    features, sample = cloud(20, 0, seed=6), reference.samples[NETWORK]
    kept = sample.features.astype(np.float32)
    on_the_sphere = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected, _ = NearestNeighbors(n_neighbors=5).fit(kept).kneighbors(on_the_sphere)
    np.testing.assert_allclose(sample.distance(features), expected[:, 4], atol=1e-3)
    longer = sample.distance(3 * features)
    np.testing.assert_allclose(longer, sample.distance(features), rtol=1e-4)


def test_one_validation_image_in_a_hundred_is_strange(reference: DomainReference):
    inside = reference.inside(clouds(200, (0, 0), seed=2))
    assert (~inside).sum() == 1  # the rank is 199 = 201 x 0.99 of 200
    assert reference.expected == 0.01


@pytest.mark.parametrize(("train", "valid", "expected"), [(60, 13, 1 / 74), (120, 26, 0.01)])
def test_of_few_images_as_many_are_called_strange_as_is_said(train, valid, expected):
    flagged = []
    for seed in range(40):
        together = clouds(train + valid + 200, (0, 0), seed=10 + seed)
        ends = [train, train + valid]
        parts = {name: np.split(each, ends) for name, each in together.items()}
        own, choosing, new = (
            {name: each[place] for name, each in parts.items()} for place in range(3)
        )
        fitted = DomainReference.fit(own, choosing, seed=0)
        assert fitted.expected == pytest.approx(expected)
        flagged.append(1 - fitted.inside(new).mean())
    assert 0.3 * expected < np.mean(flagged) < 1.5 * expected


def test_images_of_a_patient_do_not_speak_for_each_other():
    """Uses eight nearly equal images per patient, each compared with other patients."""
    random = np.random.default_rng(8)

    def patients(count: int, first: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        groups = np.repeat(np.arange(first, first + count), 8)
        each = clouds(count, (0, 0), seed=first)
        shake = 1 + 0.01 * random.normal(size=(8 * count, 32))
        return {name: np.repeat(one, 8, axis=0) * shake for name, one in each.items()}, groups

    (train, own), (valid, others), (new, _) = patients(40, 0), patients(10, 40), patients(300, 50)
    fitted = DomainReference.fit(train, valid, 0, own, others)
    alone = DomainReference.fit(train, valid, 0)
    assert fitted.expected == pytest.approx(1 / 51)
    assert 1 - fitted.inside(new).mean() < 0.05
    assert 1 - alone.inside(new).mean() > 0.5


def test_images_that_a_network_has_learned_do_not_set_a_limit_for_new_ones():
    """Simulates overfitting: training images are closer to each other than new ones are."""
    valid, new = (clouds(count, (0, 0), seed=seed) for count, seed in ((30, 2), (300, 3)))
    train = clouds(60, (0, 0), seed=1)
    middle = np.eye(32)[0] * np.linalg.norm(train[NETWORK], axis=1, keepdims=True)
    train[NETWORK] = 0.2 * train[NETWORK] + 0.8 * middle
    fitted = DomainReference.fit(train, valid, seed=0)
    assert 1 - fitted.inside(new).mean() < 0.04


def test_the_limit_is_a_rank_that_counts_the_new_one_and_weighs_groups():
    scores = np.random.default_rng(9).permutation(np.arange(1.0, 200.0))
    assert conformal_limit(scores, scores, 0.01) == (198.0, 0.01)
    assert conformal_limit(scores[:50], scores[:50], 0.01) == (scores[:50].max(), 1 / 51)
    assert conformal_limit(scores[:99], scores[:99], 0.01) == (scores[:99].max(), 0.01)
    # a patient with half of the images has the weight of any other
    many, one = np.arange(300.0), np.full(300, 1000.0)
    groups = np.concatenate([np.arange(300), np.full(300, 300)])
    limit, _ = conformal_limit(np.concatenate([many, one]), groups, 0.05)
    assert limit == 286


def test_the_sample_is_bounded_and_drawn_by_the_seed(reference: DomainReference):
    features = reference.samples[LAYOUT].features
    assert features.shape == (512, 32)
    assert features.dtype == np.float16
    data = clouds(700, (0, 0), seed=1), clouds(200, (0, 0), seed=2)
    again, other = (DomainReference.fit(*data, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.samples[LAYOUT].features, features)
    assert not np.array_equal(other.samples[LAYOUT].features, features)


def test_it_travels_as_tensors(reference: DomainReference):
    found = DomainReference.of_tensors(load(save(reference.tensors())))
    features = clouds(20, (0, 3), seed=7)
    np.testing.assert_array_equal(found.distance(features), reference.distance(features))
    assert found.expected == reference.expected == 0.01


def test_a_reference_without_a_layout_is_still_read(reference: DomainReference):
    tensors = reference.tensors()
    kept = {name: tensors[f"{NETWORK}.{name}"] for name in ("features", "threshold")}
    found = DomainReference.of_tensors(load(save(kept)))
    assert found.inside(clouds(50, (0, 5), seed=4)).mean() > 0.9
    assert found.expected is None
    assert not found.inside(clouds(50, (5, 0), seed=4)).any()


def test_few_images_and_broken_features():
    small = DomainReference.fit(clouds(3, (0, 0), seed=1), clouds(2, (0, 0), seed=2), seed=0)
    broken = np.stack([np.full(32, np.nan), np.zeros(32)])
    fine = cloud(2, 0, seed=2)
    assert not small.inside({NETWORK: broken, LAYOUT: fine}).any()
    assert not small.inside({NETWORK: fine, LAYOUT: broken}).any()


def test_the_layout_is_the_brightness_of_fields_whatever_the_depth():
    images = np.zeros((2, 1, 32, 32), np.uint8)
    images[:, :, :4, 4:8] = 255
    found = layout(images)
    assert found.shape == (2, 3 * 64)
    fields = found.reshape(2, 3, 8, 8)
    assert (fields[:, :, 0, 1] == 1).all()
    assert fields.sum() == 6
    np.testing.assert_allclose(layout(images * np.uint16(257)), found)
    np.testing.assert_array_equal(layout(np.repeat(images, 3, axis=1)), found)
    cases = np.stack([images, 255 - images], axis=1)
    np.testing.assert_allclose(layout(cases), np.concatenate([found, 1 - found], axis=1))
