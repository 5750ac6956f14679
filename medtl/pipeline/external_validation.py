"""Evaluation on data of another site."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import mlflow
import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.label_encoding import NOT_KNOWN, encode_findings
from medtl.data.splits import patient_groups
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.confidence_intervals import Measures, measure
from medtl.evaluation.external_validation import (
    ClassMapping,
    ExternalEvaluation,
    internal_and_external,
)
from medtl.evaluation.split_evaluation import SplitEvaluation
from medtl.inference.predictor import Predictor
from medtl.inference.training_record import learned_from
from medtl.pipeline.scoring import decided
from medtl.tracking.lineage import test_predictions, training_settings

SEEN_TAG = "medtl.seen"  # number of cases of a run in the model's training record


def class_mapping(
    uri: str, bundle: Predictor, dataset: Dataset, asked: Mapping[str, Sequence[str]]
) -> ClassMapping:
    """Maps the model's classes to the labels of the data.

    Raises:
        MedtlError: they differ, and no mapping is given.
        ParameterError: the mapping does not fit the labels and classes.
    """
    if asked and bundle.multi_label:
        raise ParameterError(
            "mapping", ",".join(asked), "empty where images have several labels: give positive"
        )
    if asked:
        return ClassMapping.of(asked, dataset.classes, bundle.classes)
    if dataset.classes != bundle.classes:
        raise MedtlError(
            f"{uri} has the classes {', '.join(bundle.classes)}, and {dataset.name} the labels "
            f"{', '.join(dataset.classes)}: map them with mapping=LABEL=CLASS,..."
        )
    return ClassMapping.same(bundle.classes)


def evaluate_external(
    uri: str,
    bundle: Predictor,
    dataset: Dataset,
    evaluation: SplitEvaluation,
    mapping: ClassMapping,
) -> ExternalEvaluation:
    """Compares the scores on other data with those on the model's own test split.

    Raises:
        MedtlError: as `internal_measures`.
    """
    internal = internal_measures(uri, bundle, mapping, dataset)
    return ExternalEvaluation(dataset.name, internal_and_external(internal, evaluation.measures))


def internal_measures(
    uri: str, bundle: Predictor, mapping: ClassMapping, dataset: Dataset
) -> Measures:
    """Measures a model on its own test split, with its classes mapped to the labels of other data.

    Cases of unmapped classes are left out, and findings without a known label in the other data.

    Raises:
        MedtlError: the run that made the model is gone.
    """
    table = test_predictions(uri)
    own = table[[f"probability_{name}" for name in bundle.classes]].to_numpy().astype(float)
    if bundle.multi_label:
        labels, kept = encode_findings(table["label"], bundle.classes), np.arange(len(table))
        labels[:, (dataset.labels < 0).all(axis=0)] = NOT_KNOWN
    else:
        classes = pd.Categorical(table["label"], bundle.classes).codes
        labels = mapping.labels_of_classes(classes)
        kept = np.flatnonzero(labels >= 0)
    return measure(
        labels[kept],
        mapping.probabilities(own[kept]),
        patient_groups(table)[kept],
        mapping.labels,
        int(str(training_settings(uri)["seed"])),
        decisions=_own_decisions(bundle, table, own, mapping)[kept],
    )


def _own_decisions(
    bundle: Predictor, table: pd.DataFrame, own: np.ndarray, mapping: ClassMapping
) -> np.ndarray:
    """Returns the decisions on the model's own test split, in the labels of other data.

    With the model's own classes they are those of the training: of out-of-fold predictions each
    fold decides by thresholds of its own, which are not those of the ensemble.
    """
    if mapping != ClassMapping.same(bundle.classes):
        return decided(bundle, own, mapping)
    if bundle.multi_label:
        return encode_findings(table["decision"], bundle.classes)
    return pd.Categorical(table["decision"], bundle.classes).codes.astype(np.int64)


def note_seen(bundle: Predictor, dataset: Dataset, indices: np.ndarray) -> None:
    """Logs how many of these cases are in the model's training record, and prints a note."""
    if bundle.seen is None:
        line = "the model has no training record: it may have been trained on these cases"
        mlflow.set_tag(SEEN_TAG, "unknown")
    else:
        count = int(learned_from(bundle.seen, dataset, indices).sum())
        mlflow.set_tag(SEEN_TAG, count)
        if not count:
            return
        line = (
            f"the model was trained on {count} of these {len(indices)} cases, or on their "
            "patients: the scores are biased upwards"
        )
    print(f"note: {line}", file=sys.stderr)
