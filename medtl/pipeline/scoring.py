"""Scores of a trained model on a split, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medtl.data.dataset import Dataset
from medtl.evaluation.calibration import calibration_gain
from medtl.evaluation.confidence_intervals import Measures, measure
from medtl.evaluation.external_validation import ClassMapping
from medtl.inference.predictor import Predictor
from medtl.pipeline.heatmap_gallery import SplitPredictions, explain
from medtl.pipeline.run_logging import log_calibration, log_scores
from medtl.pipeline.scores_without_duplicates import without_twins
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess
from medtl.training.loaders import PASS_BATCH

HEADLINES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")


@dataclass(frozen=True)
class Scored:
    """Calibrated probabilities and decisions of a model on one split, with their metrics."""

    split: str
    unit: str  # that intervals are over, as `Dataset.unit` has it
    positive: str  # the class that metrics of two classes are of, else ''
    probabilities: np.ndarray  # [N, K], calibrated
    decisions: np.ndarray  # at the operating point, as `Predictor.decisions` has them
    measures: Measures
    maps: str  # what the check of its heat maps says, or why there are none
    twins: str = ""  # a line on test images that were learned from, with scores without them

    def summary(self) -> str:
        """Returns the headline scores as lines for the console."""
        count = len(self.probabilities)
        findings = self.decisions.shape[1] if self.decisions.ndim == 2 else 0
        of = f", of the class {self.positive}" if self.positive else ""
        means = f", means over {findings} findings" if findings else ""
        lines = [
            f"{self.split} scores   (95 % intervals over {self.unit}, {count} images{of}{means})"
        ]
        for name in HEADLINES:
            lines.append(f"  {name.replace('_', ' '):<20}{self.measures.summary[name]}")
        if self.twins:
            lines.append(f"twins         {self.twins}")
        return "\n".join(lines)


def score(
    bundle: Predictor,
    dataset: Dataset,
    split: str,
    seed: int,
    mapping: ClassMapping,
    team: SingleProcess = SINGLE_PROCESS,
    maps: Sequence[str] = (),
) -> Scored:
    """Scores a split (or `all`) with a model, and logs metrics, pictures and tables.

    `mapping` says what the labels of the data are among the model's classes, `maps` the methods
    that draw its heat maps, none for the one that is for this kind of model.
    """
    indices = indices_of(dataset, split)
    logits = in_batches(bundle.scores, dataset, indices, team)
    own = bundle.probabilities(logits, bundle.temperature)
    probabilities = mapping.probabilities(own)
    decisions = decided(bundle, own, mapping)
    labels, groups = dataset.labels[indices], dataset.groups[indices]
    measures = measure(labels, probabilities, groups, dataset.classes, seed, decisions=decisions)
    uncalibrated = mapping.probabilities(bundle.probabilities(logits, 1.0))
    log_scores(dataset, split, indices, probabilities, uncalibrated, decisions, measures)
    log_calibration(calibration_gain(labels, uncalibrated, probabilities, groups, seed), split)
    said = SplitPredictions(indices, own, probabilities, decisions)
    checked = explain(bundle, dataset, split, said, mapping, seed, maps)
    untaught = without_twins(dataset, probabilities, decisions, seed) if split == "test" else None
    return Scored(
        split,
        dataset.unit,
        dataset.positive,
        probabilities,
        decisions,
        measures,
        checked,
        untaught.line() if untaught else "",
    )


def decided(bundle: Predictor, own: np.ndarray, mapping: ClassMapping) -> np.ndarray:
    """Decides by a model's own probabilities [N, J], in the labels of the data."""
    if bundle.multi_label:
        return bundle.decisions(own)
    return mapping.decisions(own, np.array(bundle.thresholds))


def indices_of(dataset: Dataset, split: str) -> np.ndarray:
    """Returns the samples of a split, or of `all`: int64 [n]."""
    return np.arange(len(dataset.labels)) if split == "all" else dataset.splits[split]


def in_batches(
    function: Callable[[np.ndarray], np.ndarray],
    dataset: Dataset,
    indices: np.ndarray,
    team: SingleProcess = SINGLE_PROCESS,
) -> np.ndarray:
    """Applies `function` to stored pixels [B, C, S, S] of the images `indices`, and joins.

    Of several processes each passes its share.
    """
    own = indices[team.local_rows(np.arange(len(indices)))]
    parts = [
        function(dataset.images(own[start : start + PASS_BATCH]))
        for start in range(0, len(own), PASS_BATCH)
    ]
    return team.all_gather(torch.from_numpy(np.concatenate(parts)), len(indices)).numpy()


def compared_in_batches(
    bundle: Predictor, dataset: Dataset, indices: np.ndarray, team: SingleProcess = SINGLE_PROCESS
) -> dict[str, np.ndarray]:
    """`Predictor.compared` of all the images of `indices`, [N, F] each."""
    widths: dict[str, int] = {}

    def side_by_side(images: np.ndarray) -> np.ndarray:
        compared = bundle.compared(images)
        widths.update({name: each.shape[1] for name, each in compared.items()})
        return np.concatenate(list(compared.values()), axis=1)

    together = in_batches(side_by_side, dataset, indices, team)
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(together, ends, axis=1), strict=True))
