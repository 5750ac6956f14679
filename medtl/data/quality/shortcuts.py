"""Shortcut check: can the label be predicted from how an image was made?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from medtl.data.dataset import Dataset
from medtl.data.image_files import suffix
from medtl.data.label_encoding import PRESENT, stratification_key
from medtl.data.quality.thumbnails import ImageRows, Looks, image_rows
from medtl.data.splits import nested_share

_FRAME = re.compile(r"#\d+$")  # of a file with several, see `medtl.data.manifest`


def file_traces(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Reads size, aspect ratio, mode, format and file size of N images, float64 [N, F] each.

    `frame` has `path`, `width`, `height`, `mode` (grey, deep grey, colour) and `bytes`. A missing
    image of a case has zeros, and a mode of its own.
    """
    size = frame[["width", "height"]].to_numpy(float)
    formats = frame["path"].map(lambda path: suffix(_FRAME.sub("", str(path))))
    there = size[:, 1:] > 0
    return {
        "width and height": size,
        "aspect ratio": np.divide(size[:, :1], size[:, 1:], np.zeros((len(size), 1)), where=there),
        "mode": pd.get_dummies(frame["mode"]).to_numpy(float),
        "format": pd.get_dummies(formats).to_numpy(float),
        "file size": frame[["bytes"]].to_numpy(float),
    }


def sample_traces(dataset: Dataset) -> np.ndarray:
    """Joins the `file_traces` of the images of each sample: float64 [N, M x F]."""
    values = np.concatenate(list(file_traces(image_rows(dataset)).values()), axis=1)
    return values.reshape(len(dataset.labels), -1)


MOST = 2000  # scored images; of more, whole groups are drawn
FOLDS = 5
TREES = 30
LEAF = 5  # images of a leaf, at least
ALL = "all together"


@dataclass(frozen=True)
class Shortcuts:
    """Scores of N images by traces of their making.

    Attributes:
        labels: int64 [N]; of findings int8 [N, K].
        groups: int64 [N], equal for images that training and scoring may not share.
        probabilities: for each trace, and for `ALL`, probabilities [N, K] by models that have not
            seen the group; None where the trace is the same in all images.
    """

    labels: np.ndarray
    groups: np.ndarray
    probabilities: Mapping[str, np.ndarray | None]


def shortcuts_of(
    images: ImageRows, looks: Looks, groups: np.ndarray, seed: int
) -> Shortcuts | None:
    """Predicts the label from size, shape, mode, format, file size and border brightness alone.

    A network may learn the scanner instead of the disease if patients of one class were imaged on
    another machine (DeGrave et al. 2021, "AI for radiographic COVID-19 detection selects shortcuts
    over signal", Nature Machine Intelligence 3:610). A small cross-validated random forest measures
    how well such traces predict the label.

    Args:
        images: N images.
        looks: of these images.
        groups: int [N], equal for images of one patient, and for copies of each other.
        seed: of the draw, the folds and the forest.

    Returns:
        None if there is one class only, or a class has fewer than two groups; for findings, if all
        images have one or none has. An unknown finding counts as absent in training and is not
        scored.
    """
    labels = images.labels
    chosen = np.arange(len(labels))
    if len(labels) > MOST:
        chosen = nested_share(stratification_key(labels), groups, MOST / len(labels), seed)
    labels, groups = labels[chosen], groups[chosen]
    # for findings, folds are stratified by the presence of any: rare ones are not in every fold
    strata = labels if labels.ndim == 1 else (labels == PRESENT).any(axis=1).astype(int)
    pairs = pd.DataFrame({"label": strata, "group": groups}).drop_duplicates()
    of_each = pairs["label"].value_counts()
    folds = min(FOLDS, int(of_each.min()))
    if len(of_each) < 2 or folds < 2:
        return None
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(split.split(strata, strata, groups))
    of_all = file_traces(images.frame) | {"border brightness": looks.borders.astype(float)}
    traces = {name: values[chosen] for name, values in of_all.items()}
    traces[ALL] = np.concatenate(list(traces.values()), axis=1)
    classes = labels.shape[1] if labels.ndim == 2 else int(images.labels.max()) + 1
    return Shortcuts(
        labels,
        groups,
        {name: _scored(values, labels, classes, parts, seed) for name, values in traces.items()},
    )


def forest_scores(
    values: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, seed: int
) -> np.ndarray:
    """Predicts probabilities [M, K] of `queries` [M, F] by a small random forest.

    It is fitted on `values` [N, F] and `labels` int [N], or int8 [N, K] of findings, of which an
    unknown one counts as absent.
    """
    forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)
    if labels.ndim == 2:
        there = labels == PRESENT
        forest.fit(values, there if classes > 1 else there[:, 0])
        return _of_findings(forest, queries)
    probabilities = np.zeros((len(queries), classes))
    forest.fit(values, labels)
    probabilities[:, forest.classes_] = forest.predict_proba(queries)
    return probabilities


def _scored(
    values: np.ndarray,
    labels: np.ndarray,
    classes: int,
    parts: list[tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> np.ndarray | None:
    if (values == values[:1]).all():
        return None
    probabilities = np.zeros((len(labels), classes))
    for others, these in parts:
        probabilities[these] = forest_scores(
            values[others], labels[others], values[these], classes, seed
        )
    return probabilities


def _of_findings(forest: RandomForestClassifier, values: np.ndarray) -> np.ndarray:
    """Predicts the probability of each finding, [N, K], with one forest."""
    found, known = forest.predict_proba(values), forest.classes_
    if not isinstance(found, list):  # of a single finding
        found, known = [found], [known]
    return np.stack(
        [each @ np.asarray(there, float) for each, there in zip(found, known, strict=True)],
        axis=1,
    )
