"""Linear heads: the optimum of the penalised loss, for classes and for findings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.training.linear_head import better, linear_layer, solve, solve_with_views


def drawn(count: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws features float32 [N, 12] of different scales, and noisy labels int64 [N]."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, 12)) * np.logspace(-2, 2, 12) + 5
    directions = (
        np.random.default_rng(99).normal(size=(12, classes)) / np.logspace(-2, 2, 12)[:, None]
    )
    scores = (features - 5) @ directions + random.gumbel(size=(count, classes))
    return features.astype(np.float32), scores.argmax(axis=1)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_scikit_learns_optimum_on_features_as_they_are(classes):
    (train, labels), (valid, valid_labels) = drawn(200, classes, 0), drawn(80, classes, 1)
    head = solve(train, labels, valid, valid_labels, "none")
    scaler = StandardScaler().fit(train)
    peer = LogisticRegression(C=head.c, max_iter=5000, tol=1e-8)
    peer.fit(scaler.transform(train).astype(float), labels)
    expected = peer.predict_proba(scaler.transform(valid).astype(float))
    logits = torch.from_numpy(head.logits(valid)).double()
    if classes == 2:
        found = torch.sigmoid(logits[:, 1] - logits[:, 0]).numpy()
        np.testing.assert_allclose(found, expected[:, 1], atol=2e-3)
    else:
        np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), expected, atol=2e-3)


def test_the_penalty_with_the_best_validation_auroc_is_chosen():
    (train, labels), (valid, valid_labels) = drawn(60, 3, 0), drawn(200, 3, 1)
    head = solve(train, labels, valid, valid_labels, "none")
    best = head.path.loc[head.path["chosen"]].iloc[0]
    assert best["valid_auroc"] == head.path["valid_auroc"].max() == head.valid_auroc
    assert head.path["c"].is_monotonic_increasing
    assert head.path["chosen"].sum() == 1
    again = solve(train, labels, valid, valid_labels, "none")
    assert np.array_equal(again.weight, head.weight)


def test_a_finding_is_solved_where_it_is_known():
    features, labels = drawn(150, 2, 0)
    valid, valid_labels = drawn(90, 2, 1)
    known = np.stack([labels, 1 - labels, np.zeros_like(labels)], axis=1).astype(np.int8)
    valid_known = np.stack([valid_labels, 1 - valid_labels, valid_labels], axis=1).astype(np.int8)
    known[:50, 0] = -1
    head = solve(features, known, valid, valid_known, "none")
    alone = solve(features[50:], known[50:, :1], valid, valid_known[:, :1], "none")
    scores = head.logits(valid)
    assert scores.shape == (90, 3)
    assert np.corrcoef(scores[:, 0], alone.logits(valid)[:, 0])[0, 1] > 0.95
    assert np.ptp(scores[:, 2]) == 0  # a finding of no training image
    assert scores[0, 2] < -3


def test_weights_of_rare_classes_count_more_where_balance_is_asked():
    features, labels = drawn(300, 2, 0)
    rare = np.flatnonzero((labels == 0) | (np.arange(300) % 10 == 0))
    valid, valid_labels = drawn(90, 2, 1)
    plain, balanced = (
        solve(features[rare], labels[rare], valid, valid_labels, how).logits(valid).argmax(axis=1)
        for how in ("none", "loss")
    )
    assert balanced.mean() > plain.mean()


def of_classes(labels: np.ndarray, seed: int) -> np.ndarray:
    """Draws features float32 [N, 12] around the means of three overlapping classes."""
    means = np.random.default_rng(7).normal(size=(3, 12))
    noise = np.random.default_rng(seed).normal(size=(len(labels), 12))
    return (means[labels] + 3 * noise).astype(np.float32)


def test_validation_decides_on_augmented_views():
    labels, valid_labels = np.arange(24) % 3, np.arange(150) % 3
    train, valid = of_classes(labels, 0), of_classes(valid_labels, 1)
    plain = solve(train, labels, valid, valid_labels, "none")
    assert plain.views == 0
    good = np.stack([of_classes(labels, seed) for seed in range(2, 6)])
    poor = np.stack([of_classes(np.roll(labels, 1), seed) for seed in range(2, 6)])
    known = labels, valid, valid_labels, "none"
    gained = better(plain, solve_with_views(plain, train, good, *known))
    assert gained.views == 4
    assert gained.valid_auroc == gained.path["valid_auroc"].max() > plain.valid_auroc
    assert gained.path["chosen"].sum() == 1
    same = better(plain, solve_with_views(plain, train, poor, *known))
    assert same.views == 0
    assert np.array_equal(same.weight, plain.weight)
    assert set(same.path["views"]) == {0, 4}


def test_an_image_and_its_views_weigh_as_one_image():
    (train, labels), (valid, valid_labels) = drawn(80, 3, 0), drawn(60, 3, 1)
    plain = solve(train, labels, valid, valid_labels, "loss")
    copies = np.stack([train] * 3)
    augmented = solve_with_views(plain, train, copies, labels, valid, valid_labels, "loss")
    assert augmented.views == 3
    losses, expected = (each.path.set_index("c")["valid_loss"] for each in (augmented, plain))
    assert 1 < len(losses) < len(expected)
    np.testing.assert_allclose(losses, expected[losses.index], rtol=1e-3)


@pytest.mark.parametrize(
    ("architecture", "linear"),
    [("small_resnet", True), ("mobilenet_v2", True), ("squeezenet1_0", True), ("resnet18", True)],
)
def test_linear_heads_are_known_and_others_are_not(architecture, linear):
    network = build(architecture, 3, 64, seed=0)
    head = cut(network, resolve(network, architecture, "head"), 64).suffix
    layer = linear_layer(head)
    assert isinstance(layer, nn.Linear) == linear
    whole = cut(network, resolve(network, architecture, "all"), 64).suffix
    assert linear_layer(whole) is None


def test_a_copied_head_gives_the_same_scores():
    (train, labels), (valid, valid_labels) = drawn(100, 3, 0), drawn(40, 3, 1)
    head, layer = solve(train, labels, valid, valid_labels, "none"), nn.Linear(12, 3)
    head.copy_to(layer)
    scores = layer(torch.from_numpy(valid)).detach().numpy()
    np.testing.assert_allclose(scores, head.logits(valid), rtol=1e-3, atol=1e-4)
