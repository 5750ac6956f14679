"""What is minimised: PyTorch's own losses, and nothing of what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score, roc_auc_score

from medtl.training.losses import objective, valid_scores

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(40, 3)).astype(np.float32)
LABELS = RANDOM.integers(0, 2, (40, 3)).astype(np.int8)
MASKED = np.where(RANDOM.random((40, 3)) < 0.2, -1, LABELS).astype(np.int8)


@pytest.mark.parametrize("balance", ["none", "loss"])
def test_where_all_is_known_it_is_the_binary_cross_entropy_of_torch(balance):
    weights = None
    if balance == "loss":
        counts = LABELS.sum(axis=0)
        weights = torch.from_numpy((40 - counts) / counts).float()
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(LABELS)
    expected = F.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights)
    found = objective(LABELS, LABELS, balance, CPU).loss(logits, labels)
    torch.testing.assert_close(found, expected)


def test_what_is_unknown_has_no_loss_no_gradient_and_no_score():
    minimised = objective(MASKED, MASKED, "loss", CPU)
    logits = torch.from_numpy(LOGITS).requires_grad_()
    loss = minimised.loss(logits, torch.from_numpy(MASKED))
    loss.backward()
    unknown = MASKED < 0
    assert unknown.any()
    assert (logits.grad.numpy()[unknown] == 0).all()
    assert (logits.grad.numpy()[~unknown] != 0).all()
    changed = np.where(unknown, 9.0, LOGITS).astype(np.float32)
    assert minimised.loss(torch.from_numpy(changed), torch.from_numpy(MASKED)) == loss
    assert valid_scores(changed, MASKED) == valid_scores(LOGITS, MASKED)
    nothing = torch.full((2, 3), -1, dtype=torch.int8)
    assert minimised.loss(logits[:2], nothing) == 0


def test_an_epoch_is_measured_as_scikit_learn_does():
    found = valid_scores(LOGITS, MASKED)
    known = MASKED >= 0
    each = [(MASKED[here, k], LOGITS[here, k]) for k, here in enumerate(known.T)]
    assert found["valid_auroc"] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in each]))
    f1 = np.mean([f1_score(truth, scores >= 0) for truth, scores in each])
    assert found["valid_f1"] == pytest.approx(f1)
    assert found["valid_accuracy"] == pytest.approx(((LOGITS >= 0) == (MASKED == 1))[known].mean())


def test_a_class_that_nobody_has_is_left_out_of_the_mean():
    random = np.random.default_rng(0)
    labels = np.array([0, 1, 1, 0, 1, 0, 0])
    logits = random.normal(size=(7, 3)).astype(np.float32)
    shares = torch.from_numpy(logits).double().softmax(dim=1).numpy()

    found = valid_scores(logits, labels)

    each = [roc_auc_score(labels == place, shares[:, place]) for place in (0, 1)]
    assert found["valid_auroc"] == np.mean(each)
    assert all(
        np.isnan(valid_scores(logits[:, :count], labels * 0)["valid_auroc"]) for count in (2, 3)
    )


def test_a_finding_that_nobody_has_is_left_out_of_the_mean():
    labels = MASKED.copy()
    labels[:, 1] = 0
    others = valid_scores(LOGITS[:, [0, 2]], labels[:, [0, 2]])
    assert valid_scores(LOGITS, labels)["valid_auroc"] == pytest.approx(others["valid_auroc"])


@pytest.mark.parametrize("balance", ["none", "loss"])
@pytest.mark.parametrize("labels", [MASKED, np.abs(MASKED).sum(axis=1).astype(np.int64)])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts_by_their_weights(labels, balance):
    minimised = objective(labels, labels, balance, CPU)
    logits = torch.from_numpy(np.c_[LOGITS, LOGITS[:, :1]] if labels.ndim == 1 else LOGITS)
    truth = torch.from_numpy(labels)
    parts = [(logits[:7], truth[:7]), (logits[7:], truth[7:])]
    weights = torch.stack([minimised.weight(each) for _, each in parts])
    losses = torch.stack([minimised.loss(*part) for part in parts])
    torch.testing.assert_close(weights.sum(), minimised.weight(truth))
    expected = minimised.loss(logits, truth)
    torch.testing.assert_close((weights * losses).sum() / weights.sum(), expected)
