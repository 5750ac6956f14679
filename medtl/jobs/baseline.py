"""Baselines beside a model's test scores: logistic regression without any fine-tuning.

A fine-tuned network that does not beat logistic regression on the features of the frozen backbone,
or on a coarse layout of light and dark, has not earned its cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.evaluation.calibration import calibrated, fit_temperature
from medtl.evaluation.domain import layout
from medtl.evaluation.intervals import Difference, Interval, mean_score, paired_difference
from medtl.evaluation.presence import fit_presence_temperature, presence
from medtl.networks.cut import cut
from medtl.networks.cutpoints import resolve
from medtl.training.feeds import PASS_BATCH
from medtl.training.linear_head import LinearHead, solve
from medtl.training.transfer import Transfer

SAME = 0.0005  # of AUROC: below that the line shows no difference
FEATURES, BRIGHTNESS = "frozen features", "brightness of 8 x 8 fields"


@dataclass(frozen=True)
class Baseline:
    """Logistic regression on the same splits as a model, and the model's gain over it.

    Attributes:
        name: features that it reads.
        auroc: on the test split.
        gain: test AUROC of the model less that of the baseline, paired.
    """

    name: str
    auroc: Interval
    gain: Difference

    def line(self) -> str:
        """Formats a line on whether the model is better."""
        bounds = f"({self.gain.low:+.3f} to {self.gain.high:+.3f})"
        if abs(self.gain.value) < SAME:
            verdict = "no difference"
        elif self.gain.high < 0:
            verdict = "the model is worse"
        elif self.gain.value < 0:
            verdict = "the model is below it"
        elif self.gain.low > 0:
            verdict = "the model is better"
        else:
            verdict = "the difference may be chance"
        return f"{self.name}: auroc {self.auroc}; model {self.gain.value:+.3f} {bounds}, {verdict}"


def baselines(transfer: Transfer, probabilities: np.ndarray) -> tuple[Baseline, ...]:
    """Fits the baselines of a model with `probabilities` [N, K] on the test split.

    Each is fitted on the training split, its penalty chosen on the validation split: one on the
    features before the head of the backbone as it was, one on the images' coarse brightness.
    """
    network = transfer.backbone.copy().to(transfer.device)
    point = resolve(network, transfer.backbone.architecture, "head")
    divided = cut(network, point, transfer.image_size)
    frozen = transfer.linear_head(divided)
    rows = {split: _brightness(transfer.dataset, split) for split in ("train", "valid", "test")}
    train = rows["train"] if transfer.rows is None else rows["train"][transfer.rows]
    labels = transfer.labels("train"), transfer.labels("valid")
    bright = solve(train, labels[0], rows["valid"], labels[1], transfer.settings.balance)
    return (
        _measured(FEATURES, transfer, frozen, transfer.features(divided, "valid"),
                  transfer.features(divided, "test"), probabilities),
        _measured(BRIGHTNESS, transfer, bright, rows["valid"], rows["test"], probabilities),
    )  # fmt: skip


def table(found: tuple[Baseline, ...]) -> pd.DataFrame:
    """A row a baseline: `baseline`, `auroc` and `gain` of the model over it, with bounds."""
    return pd.DataFrame(
        [
            {
                "baseline": each.name,
                "auroc": each.auroc.value,
                "auroc_low": each.auroc.low,
                "auroc_high": each.auroc.high,
                "gain": each.gain.value,
                "gain_low": each.gain.low,
                "gain_high": each.gain.high,
            }
            for each in found
        ]
    )


def _measured(
    name: str,
    transfer: Transfer,
    head: LinearHead,
    valid: np.ndarray,
    test: np.ndarray,
    probabilities: np.ndarray,
) -> Baseline:
    dataset, seed = transfer.dataset, transfer.settings.seed
    indices = dataset.splits["test"]
    labels, groups = dataset.labels[indices], dataset.groups[indices]
    valid_logits, logits = head.logits(valid), head.logits(test)
    if dataset.multi_label:
        temperature = fit_presence_temperature(valid_logits, transfer.labels("valid"))
        own = presence(logits, temperature)
    else:
        temperature = fit_temperature(valid_logits, transfer.labels("valid"))
        own = calibrated(logits, temperature)
    return Baseline(
        name,
        mean_score(labels, [own], groups, "auroc", seed),
        paired_difference(labels, own, probabilities, groups, "auroc", seed),
    )


def _brightness(dataset: Dataset, split: str) -> np.ndarray:
    """Computes the mean brightness of 8 x 8 fields of a split's images: float32 [N, F]."""
    indices = dataset.splits[split]
    starts = range(0, len(indices), PASS_BATCH)
    return np.concatenate(
        [layout(dataset.images(indices[start : start + PASS_BATCH])) for start in starts]
    )
