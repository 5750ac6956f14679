"""Training on shares of readers equals training on the label of each with a part of the weight."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medtl.errors import ParameterError
from medtl.training.classical_head import ClassicalHead, select_classical_head
from medtl.training.linear_head import solve, weighted_rows
from medtl.training.losses import class_counts, draw_chances, objective, train_loss

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
READERS = 4
VOTES = RANDOM.integers(0, 3, (60, READERS))
"""Class that each reader gives an image."""
SHARES = np.eye(3)[VOTES].mean(axis=1).astype(np.float32)
LOGITS = RANDOM.normal(size=(60, 3)).astype(np.float32)
VALID = np.arange(60) % 3
FEATURES = RANDOM.normal(size=(60, 5)) + 0.7 * SHARES @ RANDOM.normal(size=(3, 5))


@pytest.mark.parametrize("balance", ["none", "loss"])
def test_the_loss_of_shares_is_that_of_all_readers(balance):
    minimised = objective(SHARES, VALID, balance, CPU)
    of_readers = objective(VOTES.ravel(), VALID, balance, CPU)
    logits = torch.from_numpy(LOGITS).requires_grad_()
    found = minimised.loss(logits, torch.from_numpy(SHARES))
    repeated = logits.repeat_interleave(READERS, dim=0)
    expected = of_readers.loss(repeated, torch.from_numpy(VOTES.ravel()))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("balance", ["none", "loss"])
def test_the_loss_of_findings_leaves_out_readers_who_do_not_know(balance):
    seen = (VOTES[..., None] == np.arange(3)).astype(np.int8)  # [N, readers, findings]
    seen[:7, :, 1] = -1
    shares = seen.mean(axis=1).astype(np.float32)
    minimised = objective(shares, seen[:, 0], balance, CPU)
    of_readers = objective(seen.reshape(-1, 3), seen[:, 0], balance, CPU)
    logits = torch.from_numpy(LOGITS)
    found = minimised.loss(logits, torch.from_numpy(shares))
    repeated = logits.repeat_interleave(READERS, dim=0)
    torch.testing.assert_close(
        found, of_readers.loss(repeated, torch.from_numpy(seen.reshape(-1, 3)))
    )
    assert train_loss(LOGITS, shares, multi_label=True) == pytest.approx(
        train_loss(repeated.numpy(), seen.reshape(-1, 3), multi_label=True)
    )


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts_by_their_weights(balance, multi_label):
    minimised = objective(SHARES, SHARES if multi_label else VALID, balance, CPU)
    logits, shares = torch.from_numpy(LOGITS), torch.from_numpy(SHARES)
    parts = [(logits[:7], shares[:7]), (logits[7:], shares[7:])]
    total = sum(minimised.weight(part[1]) * minimised.loss(*part) for part in parts)
    torch.testing.assert_close(total / minimised.weight(shares), minimised.loss(logits, shares))


def test_shares_of_one_are_labels():
    whole = np.eye(3, dtype=np.float32)[VALID]
    np.testing.assert_array_equal(class_counts(whole), class_counts(VALID))
    np.testing.assert_allclose(draw_chances(whole), draw_chances(VALID), rtol=1e-6)
    expected = F.cross_entropy(torch.from_numpy(LOGITS).double(), torch.from_numpy(VALID)).item()
    assert train_loss(LOGITS, whole, multi_label=False) == pytest.approx(expected)


def test_classes_are_drawn_equally_often_by_shares():
    skewed = np.concatenate([SHARES, np.eye(3, dtype=np.float32)[np.zeros(100, int)]])
    np.testing.assert_allclose(draw_chances(skewed).sum(), 1)
    # an image of one reader a class is drawn as a half of each
    drawn = (skewed / class_counts(skewed)).sum(axis=1) / 3
    np.testing.assert_allclose(draw_chances(skewed), drawn, rtol=1e-6)


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_solved_head_is_the_optimum_over_all_readers(balance, classes):
    votes, valid = np.minimum(VOTES, classes - 1), np.minimum(VALID, classes - 1)
    shares = np.eye(classes)[votes].mean(axis=1).astype(np.float32)
    head = solve(FEATURES, shares, FEATURES, valid, balance)
    peer = peer_of_readers(head.c, votes, balance)
    logits = torch.from_numpy(head.logits(FEATURES)).double()
    scaled = StandardScaler().fit_transform(FEATURES)
    np.testing.assert_allclose(
        torch.softmax(logits, 1).numpy(), peer.predict_proba(scaled), atol=2e-3
    )


def test_a_solved_finding_is_the_optimum_over_all_readers_who_know_it():
    shares, valid = SHARES.copy(), np.eye(3, dtype=np.int8)[VALID]
    shares[:7, 0] = -1
    head = solve(FEATURES, shares, FEATURES, valid, "none")
    scaled = StandardScaler().fit_transform(FEATURES)
    for finding, known in ((0, slice(7, None)), (1, slice(None))):
        seen = (VOTES[known] == finding).ravel().astype(int)
        peer = LogisticRegression(C=head.c, max_iter=5000, tol=1e-8)
        peer.fit(scaled[known].repeat(READERS, axis=0), seen, np.full(len(seen), 1 / READERS))
        found = torch.sigmoid(torch.from_numpy(head.logits(FEATURES))[:, finding]).numpy()
        np.testing.assert_allclose(found, peer.predict_proba(scaled)[:, 1], atol=2e-3)


def peer_of_readers(strength: float, votes: np.ndarray, balance: str) -> LogisticRegression:
    """Fits a row a reader, each with the weight of one reader."""
    scaled = StandardScaler().fit_transform(FEATURES).repeat(READERS, axis=0)
    weight = "balanced" if balance == "loss" else None
    peer = LogisticRegression(C=strength, max_iter=5000, tol=1e-8, class_weight=weight)
    return peer.fit(scaled, votes.ravel(), np.full(votes.size, 1 / READERS))


def test_a_hybrid_is_fitted_to_all_readers():
    rows, labels, weights = weighted_rows(SHARES, "none")

    def fitted(name: str, components: int) -> ClassicalHead:
        known = FEATURES, labels, FEATURES, SHARES.argmax(axis=1)
        return select_classical_head(name, components, *known, "none", 0, (rows, weights))

    logistic = fitted("logistic", 0)
    scaled = StandardScaler().fit_transform(FEATURES)
    strength = float(logistic.path.loc[logistic.path["chosen"], "value"].iloc[0])
    expected = peer_of_readers(strength, VOTES, "none").predict_proba(scaled)
    np.testing.assert_allclose(np.exp(logistic.valid_logits), expected, atol=2e-3)
    for name in ("svm", "forest"):
        assert fitted(name, 3).head.logits(FEATURES).shape == (60, 3)
    with pytest.raises(ParameterError, match="readers=soft: k-NN"):
        fitted("knn", 0)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"epochs": 1}, {"transfer": "hybrid"}])
def test_a_learner_trains_on_shares_and_measures_labels(transfer, settings):
    """Shares of the labels themselves train the same model, others another one."""
    plain = transfer(**settings)
    dataset = plain.dataset
    whole = np.eye(len(dataset.classes), dtype=np.float32)[dataset.labels]
    parted = np.where(whole == 1, 0.6, 0.4 / (whole.shape[1] - 1)).astype(np.float32)

    def of(shares: np.ndarray | None):
        learner = dataclasses.replace(
            plain,
            dataset=dataclasses.replace(dataset, shares=shares),
            shared=plain.activation_cache,
        )
        if "transfer" in settings:
            return learner.train_hybrid("head")
        return learner.train("head", learner.recipe("adam", 1e-2))

    same, hard, soft = (of(shares) for shares in (whole, None, parted))
    np.testing.assert_allclose(same.fit.valid_logits, hard.fit.valid_logits, atol=1e-3)
    assert same.fit.best.train_loss == pytest.approx(hard.fit.best.train_loss, rel=1e-3)
    assert same.fit.best.valid_auroc == pytest.approx(hard.fit.best.valid_auroc)
    assert np.abs(soft.fit.valid_logits - hard.fit.valid_logits).max() > 1e-3
    assert soft.fit.best.train_loss != pytest.approx(hard.fit.best.train_loss, rel=1e-4)
