"""Layer probe: one-against-rest scores, and findings with unknown labels."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.tuning.linear_probe import fold_scores


def test_each_finding_is_probed_where_it_is_known():
    random = np.random.default_rng(0)
    patients = np.arange(200) // 2
    truth = (random.random((200, 2)) < (0.4, 0.1)).astype(np.int8)
    features = np.column_stack([truth[:, 0], random.normal(size=200)])
    labels = np.where(random.random((200, 2)) < 0.2, -1, truth).astype(np.int8)
    first = fold_scores(features, labels[:, :1], patients, seed=0)
    assert len(first) == 5
    assert (first == 1).all()
    both = fold_scores(features, labels, patients, seed=0)
    assert 0.6 < both.mean() < 0.9  # one is told perfectly, the other not at all
    lost = np.column_stack([labels[:, 0], np.full(200, -1)]).astype(np.int8)
    assert (fold_scores(features, lost, patients, seed=0) == 1).all()
    # images of which it is unknown teach nothing and are not asked about
    features[labels[:, 0] < 0, 0] = 5 * random.normal(size=(labels[:, 0] < 0).sum())
    assert (fold_scores(features, labels[:, :1], patients, seed=0) == 1).all()


@pytest.mark.parametrize("classes", [3, 4, 5])
def test_a_class_that_a_fold_does_not_learn_is_not_scored_by_the_column_of_another(classes):
    """Gives all cases of the first class one patient, so no fold has it in both parts."""
    labels = np.repeat(np.arange(classes), 40)
    patients = np.where(labels == 0, 0, 1 + np.arange(len(labels)) // 4)
    noise = np.random.default_rng(0).normal(size=(len(labels), classes))
    # the first class lacks the signal of the others
    features = np.eye(classes)[labels] * (labels > 0)[:, None] + 1e-3 * noise
    found = fold_scores(features, labels, patients, seed=0)
    assert len(found) == 2
    assert found.min() > 0.95
