"""Predictors of trained networks: calibration, operating point, training record, domain."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import nn

from medtl.data.few_cases import CONFORMAL
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.prediction_set_coverage import fit_prediction_sets
from medtl.inference.label_record import LabelRecord
from medtl.inference.out_of_distribution import DomainReference, sampled
from medtl.inference.prediction_sets import VALIDATION
from medtl.inference.predictor import Predictor
from medtl.inference.sklearn_head import SklearnHead
from medtl.inference.training_record import TrainingRecord
from medtl.pipeline.scoring import compared_in_batches, in_batches
from medtl.training.learner import Trained, TransferLearner


def trained_predictor(transfer: TransferLearner, trained: Trained) -> Predictor:
    """Returns a trained network with what was learned from the validation split.

    Thresholds of its prediction sets are set on the part `conformal`, where there is one.
    """
    dataset = transfer.dataset
    labels = dataset.labels[dataset.splits["valid"]]
    calibration = Calibration.fit(trained.fit.valid_logits, labels, transfer.settings.sensitivity)
    network = trained.network.eval()
    predictor = calibrated_predictor(
        transfer, network, trained.cut.point.name, calibration, trained.tail
    )
    predictor = with_domain(transfer, predictor, dataset.splits["train"], dataset.splits["valid"])
    return with_sets(transfer, predictor) if CONFORMAL in dataset.splits else predictor


def with_sets(transfer: TransferLearner, predictor: Predictor) -> Predictor:
    """Returns the predictor with prediction sets, set on the part `conformal` of its data."""
    dataset, settings = transfer.dataset, transfer.settings
    indices = dataset.splits[CONFORMAL]
    logits = in_batches(predictor.scores, dataset, indices, transfer.team)
    sets = fit_prediction_sets(
        dataset.labels[indices],
        predictor.probabilities(logits, predictor.temperature),
        dataset.groups[indices],
        settings.coverage,
        settings.seed,
        VALIDATION,
    )
    return dataclasses.replace(predictor, sets=sets)


def calibrated_predictor(
    transfer: TransferLearner,
    network: nn.Module,
    cutoff: str,
    calibration: Calibration,
    tail: SklearnHead | None = None,
    members: int = 0,
) -> Predictor:
    """Returns a network with its calibration and origin, without a domain reference.

    Args:
        transfer: its training record covers the train and valid splits of its data set.
        network: trained, in eval mode; an `Ensemble` for several networks.
        cutoff: name of the first layer that was trained.
        calibration: of cases that the network was not trained on.
        tail: classifier of a hybrid.
        members: as in `Predictor`.
    """
    dataset, backbone, settings = transfer.dataset, transfer.backbone, transfer.settings
    return Predictor(
        architecture=backbone.architecture,
        classes=dataset.classes,
        preprocessing=backbone.preprocessing,
        weights=backbone.weights,
        cutoff=cutoff,
        hidden=settings.hidden,
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        multi_label=dataset.multi_label,
        modalities=dataset.modalities,
        missing=settings.missing,
        members=members,
        temperature=calibration.temperature,
        thresholds=tuple(calibration.thresholds.tolist()),
        sensitivity=settings.sensitivity,
        network=network,
        tail=tail,
        seen=None
        if transfer.seen_before is None
        else (*transfer.seen_before, TrainingRecord.of(dataset)),
        labels=LabelRecord.of(dataset),
        ordinal=dataset.ordinal,
    )


def with_domain(
    transfer: TransferLearner, predictor: Predictor, learned: np.ndarray, unseen: np.ndarray
) -> Predictor:
    """Returns the predictor with a domain reference.

    Args:
        transfer: learner of the predictor; its seed draws the sample.
        predictor: trained on the data set.
        learned: int64 [N], samples to compare with; a part of them is drawn.
        unseen: int64 [M], samples of other groups, which set the limit.
    """
    dataset, seed = transfer.dataset, transfer.settings.seed
    # only a sample is passed through the network: all of many images would take hours
    each = (learned[sampled(len(learned), seed)], unseen)
    train, valid = (
        compared_in_batches(predictor, dataset, indices, transfer.team) for indices in each
    )
    groups = (dataset.groups[indices] for indices in each)
    domain = DomainReference.fit(train, valid, seed, *groups)
    return dataclasses.replace(predictor, domain=domain)
