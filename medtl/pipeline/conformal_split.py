"""Part of the validation split that is set aside for the thresholds of prediction sets."""

from __future__ import annotations

import dataclasses

import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.few_cases import CONFORMAL, VALID, few_cases
from medtl.data.splits import drawn_part
from medtl.errors import MedtlError
from medtl.evaluation.prediction_set_coverage import few_patients, least_patients

SHARE = 0.5  # of the validation split
_DRAW = 2  # of the seed: 0 and 1 draw the splits


def with_conformal_split(dataset: Dataset, coverage: float, seed: int) -> Dataset:
    """Moves about half of validation, by patient, to the part `conformal`; stratified by class.

    It is set aside before anything else uses the validation split: early stopping, penalty,
    temperature, thresholds and `in_domain` see the rest alone.

    Args:
        dataset: with one label a sample.
        coverage: of the prediction sets.
        seed: of the draw.

    Raises:
        MedtlError: the part has too few patients, or one of both halves lacks a class.
    """
    valid = dataset.splits["valid"]
    labels, groups = dataset.labels[valid], dataset.groups[valid]
    random = np.random.default_rng([seed, _DRAW])
    taken = drawn_part(labels, len(dataset.classes), groups, SHARE, random)
    count = len(np.unique(groups[taken]))
    if count < least_patients(coverage):
        reason = f"{dataset.name}: {few_patients(coverage, count)}"
        raise MedtlError(f"{reason} (half of the validation split is set aside for it)")
    lacking = set(range(len(dataset.classes))) - set(labels[~taken])
    if lacking:
        raise MedtlError(
            f"{dataset.name}: half of the validation split is set aside for coverage={coverage:g}, "
            f"and the rest has no image of {dataset.classes[min(lacking)]}; add images of it"
        )
    splits = dataset.splits | {"valid": valid[~taken], CONFORMAL: valid[taken]}
    parts = {name: splits[name] for name in (VALID, CONFORMAL)}
    before = few_cases(dataset.labels, dataset.classes, dataset.groups, {VALID: valid})
    own = len(np.unique(dataset.patients[valid[taken]]))
    whose = "patients" if dataset.has_patient.all() else "patients or images of unknown patients"
    notes = (
        *(note for note in dataset.notes if note not in before),
        f"{int(taken.sum())} of {len(valid)} images of validation, of {own} {whose}, are set "
        "aside for the thresholds of prediction sets",
        *few_cases(dataset.labels, dataset.classes, dataset.groups, parts),
    )
    return dataclasses.replace(dataset, splits=splits, notes=notes)


def check_patients(dataset: Dataset, coverage: float) -> None:
    """Checks that the folds have enough patients for prediction sets.

    Raises:
        MedtlError: there are too few.
    """
    pool = np.concatenate([dataset.splits["train"], dataset.splits["valid"]])
    count = len(np.unique(dataset.groups[pool]))
    if count < least_patients(coverage):
        raise MedtlError(f"{dataset.name}: {few_patients(coverage, count)}")
