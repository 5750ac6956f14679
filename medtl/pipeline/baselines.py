"""Baselines of a model's test scores, without fine-tuning.

A fine-tuned network should beat logistic regression on the features of the frozen backbone, and on
the coarse brightness of the images. If file properties alone come near its score, the labels can be
predicted from the way the images were made (`medtl.data.quality.shortcuts`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.manifest import EMBEDDED
from medtl.data.quality.shortcuts import forest_scores, sample_traces
from medtl.evaluation.calibration import fit_presence_temperature, fit_temperature
from medtl.evaluation.confidence_intervals import mean_score, paired_difference
from medtl.evaluation.jackknife import Difference, Interval
from medtl.inference.decisions import calibrated, presence
from medtl.inference.out_of_distribution import layout
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.tracking.lineage import test_baselines
from medtl.training.distributed import SINGLE_PROCESS
from medtl.training.learner import TransferLearner
from medtl.training.linear_head import LinearHead, solve
from medtl.training.loaders import PASS_BATCH

SAME = 0.0005  # AUROC; smaller differences are printed as none
FEATURES, BRIGHTNESS = "frozen features", "brightness of 8 x 8 fields"
FILES = "file properties"
METRICS = {  # prefix of each baseline's metrics
    FEATURES: "baseline",
    BRIGHTNESS: "baseline_brightness",
    FILES: "baseline_files",
}


@dataclass(frozen=True)
class Baseline:
    """Classifier on the same splits as a model, and the model's gain over it.

    Attributes:
        name: its input, a key of `METRICS`.
        auroc: test AUROC.
        gain: test AUROC of the model less that of the baseline, paired.
    """

    name: str
    auroc: Interval
    gain: Difference

    @property
    def beats(self) -> bool:
        """True if the model's AUROC is below the baseline's."""
        return self.gain.value <= -SAME

    def line(self) -> str:
        """Formats the AUROC and the model's gain as a line."""
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
        return f"{self.name}: auroc {self.auroc}; model {self._gain()}, {verdict}"

    def shortfall(self) -> str:
        """Formats the line of a model with a lower AUROC."""
        sure = self.gain.high < 0
        verdict = "is worse than" if sure else "is below"
        chance = "" if sure else ", which may be chance"
        return f"the model {verdict} the baseline on {self.name}: AUROC {self._gain()}{chance}"

    def warning(self) -> str:
        """Formats the same line with a remedy."""
        return f"{self.shortfall()}; {_REMEDIES[self.name]}"

    def _gain(self) -> str:
        return f"{self.gain.value:+.3f} ({self.gain.low:+.3f} to {self.gain.high:+.3f})"


_REMEDIES = {
    FEATURES: "cutoff=head epochs=0 trains that baseline",
    BRIGHTNESS: "an earlier cutoff, other weights or more images may help",
    FILES: "file properties predict the labels better than the images do: see data/report.html",
}


def baselines(
    transfer: TransferLearner, probabilities: np.ndarray, solved: LinearHead | None = None
) -> tuple[Baseline, ...]:
    """Fits the baselines of a model with `probabilities` [N, K] on the test split.

    Each is fitted on the training split: on the features before the head of the untrained backbone,
    on the images' coarse brightness, and on the properties of their files if these differ. `solved`
    is the first of them where the model itself is such a head. Only the first of several processes
    fits them.
    """
    transfer = dataclasses.replace(transfer, shared=transfer.activation_cache, team=SINGLE_PROCESS)
    dataset, seed = transfer.dataset, transfer.settings.seed
    indices = dataset.splits["test"]
    labels, groups = dataset.labels[indices], dataset.groups[indices]
    found = {FEATURES: by_features(transfer, solved), BRIGHTNESS: by_brightness(transfer)}
    if not without_files(transfer):
        found[FILES] = by_files(transfer)
    return tuple(
        Baseline(
            name,
            mean_score(labels, [own], groups, "auroc", seed),
            paired_difference(labels, own, probabilities, groups, "auroc", seed),
        )
        for name, own in found.items()
    )


def by_features(transfer: TransferLearner, solved: LinearHead | None = None) -> np.ndarray:
    """Predicts the test split [N, K] by logistic regression on the frozen backbone's features.

    `solved` is this regression if it is already fitted.
    """
    network = transfer.backbone.copy().to(transfer.device)
    point = resolve(network, transfer.backbone.architecture, "head")
    divided = cut(network, point, transfer.image_size)
    head = solved or transfer.linear_head(divided)
    return _predicted(transfer, head, *(transfer.features(divided, s) for s in ("valid", "test")))


def by_brightness(transfer: TransferLearner) -> np.ndarray:
    """Predicts the test split [N, K] by logistic regression on the brightness of 8 x 8 fields."""
    train, valid, test = (_brightness(transfer.dataset, s) for s in ("train", "valid", "test"))
    if transfer.rows is not None:
        train = train[transfer.rows]
    labels = transfer.targets(), transfer.labels("valid")
    head = solve(train, labels[0], valid, labels[1], transfer.settings.balance)
    return _predicted(transfer, head, valid, test)


def by_files(transfer: TransferLearner) -> np.ndarray:
    """Predicts the test split [N, K] from file properties by the data report's random forest."""
    dataset, traces = transfer.dataset, sample_traces(transfer.dataset)
    train, test = (traces[dataset.splits[split]] for split in ("train", "test"))
    if transfer.rows is not None:
        train = train[transfer.rows]
    labels, classes = transfer.labels("train"), len(dataset.classes)
    return forest_scores(train, labels, test, classes, transfer.settings.seed)


def without_files(transfer: TransferLearner) -> str:
    """Returns why there is no baseline on file properties; '' where there is one."""
    if transfer.settings.data in EMBEDDED:
        return f"no files, {transfer.settings.data} is drawn"
    traces = sample_traces(transfer.dataset)
    return "the same for all images" if (traces == traces[:1]).all() else ""


def table(found: tuple[Baseline, ...]) -> pd.DataFrame:
    """Builds a row a baseline: `baseline`, `auroc` and `gain` of the model over it, with bounds."""
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


def read_table(rows: pd.DataFrame) -> tuple[Baseline, ...]:
    """Reads a table of `table`; cells may be text."""
    numbers = rows.drop(columns="baseline").astype(float)
    return tuple(
        Baseline(
            name,
            Interval(each.auroc, each.auroc_low, each.auroc_high),
            Difference(each.gain, each.gain_low, each.gain_high, float("nan")),
        )
        for name, each in zip(rows["baseline"], numbers.itertuples(), strict=True)
    )


def lines_of_training(uri: str, own_test: bool) -> list[str]:
    """Returns lines on the baselines that were logged when a model was trained.

    `own_test` is True if the model is evaluated on its own test split.
    """
    rows = test_baselines(uri)
    if rows is None:
        return ["none: the run of this model has logged none"]
    lines = [each.line() for each in read_table(rows)]
    if own_test:
        return [f"{line} (as it was trained)" for line in lines]
    return [
        "none on these images: they are fitted on the model's training images",
        *(f"on the model's own test split, {line}" for line in lines),
    ]


def _predicted(
    transfer: TransferLearner, head: LinearHead, valid: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Calibrates a head on the validation split, and predicts the test split: [N, K]."""
    valid_logits, logits, labels = head.logits(valid), head.logits(test), transfer.labels("valid")
    if transfer.dataset.multi_label:
        return presence(logits, fit_presence_temperature(valid_logits, labels))
    return calibrated(logits, fit_temperature(valid_logits, labels))


def _brightness(dataset: Dataset, split: str) -> np.ndarray:
    """Computes the mean brightness of 8 x 8 fields of a split's images: float32 [N, F]."""
    indices = dataset.splits[split]
    starts = range(0, len(indices), PASS_BATCH)
    return np.concatenate(
        [layout(dataset.images(indices[start : start + PASS_BATCH])) for start in starts]
    )
