from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medtl.tuning.cutoff_dictionary import Description, Entry, distance, nearest


def described(shift: float, features: int = 6) -> Description:
    generator = np.random.default_rng(0)
    return Description.of(generator.normal(shift, 1, (400, features)))


def entry(data: str, shift: float, score: float = 0.9, backbone: str = "b") -> Entry:
    return Entry(
        architecture="resnet18",
        weights="imagenet",
        backbone=backbone,
        data=data,
        fingerprint=data,
        cutoff="layer3",
        recipe={"optimizer": "adam", "lr": 1e-3},
        valid_auroc=score,
        curve={"layer3": 0.8},
        description=described(shift),
    )


def test_like_data_is_near_and_unlike_data_is_far():
    assert distance(described(0), described(0)) == 0
    assert distance(described(0), described(1)) < distance(described(0), described(3))
    assert distance(described(0), described(2)) == distance(described(2), described(0))


def test_distance_has_no_unit():
    one, other = described(0), described(1)
    scaled = [
        Description(tuple(10 * v for v in d.mean), tuple(10 * v for v in d.spread))
        for d in (one, other)
    ]
    assert distance(*scaled) == pytest.approx(distance(one, other))


def test_the_nearest_come_first_and_only_from_the_same_backbone():
    entries = [entry("far", 3), entry("near", 0.5), entry("alien", 0, backbone="other")]
    found = nearest(described(0), "b", entries, count=2)
    assert [neighbour.entry.data for neighbour in found] == ["near", "far"]


def test_of_several_searches_on_the_same_data_the_best_counts():
    better = dataclasses.replace(entry("near", 0, score=0.95), cutoff="layer2")
    found = nearest(described(0), "b", [entry("near", 0), better, entry("near", 0, 0.5)], 5)
    assert [neighbour.entry.cutoff for neighbour in found] == ["layer2"]


def test_long_features_are_described_in_few_numbers():
    assert len(described(0, features=1280).mean) == 512
