"""The layer probe of findings: each by itself, where it is known."""

from __future__ import annotations

import numpy as np

from medtl.search.probe import fold_scores


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
