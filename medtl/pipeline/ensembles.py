"""Ensembles of models trained from one cut-off on different rows of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from medtl.evaluation.calibration import Calibration
from medtl.evaluation.split_evaluation import SplitPredictions
from medtl.inference.predictor import Predictor
from medtl.inference.sklearn_head import SklearnHead
from medtl.networks.ensemble import Ensemble, with_mean_suffix
from medtl.pipeline.finalize import (
    Concluded,
    TrainingFacts,
    evaluate_predictor,
    resolved_values,
    unfinished,
)
from medtl.pipeline.predictors import calibrated_predictor, with_domain
from medtl.training.learner import Trained, TransferLearner
from medtl.training.linear_head import linear_layer

LIMIT_SHARE = 0.2  # of the patients, whose images set the limit of `in_domain` (our choice)


def ensemble_predictor(
    learner: TransferLearner,
    members: Sequence[Trained],
    logits: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    held_out: np.ndarray | None = None,
) -> Predictor:
    """Returns the ensemble of members, calibrated on their out-of-fold predictions.

    Temperature and thresholds are fitted on the logits that the members gave to cases that they had
    not learned from. The mean of logits divided by this temperature is the mean of calibrated
    logits; where the members disagree it is nearer to 0, so the ensemble may be less sure than it
    could be (Rahaman & Thiery 2021, "Uncertainty quantification and deep ensembles",
    arXiv 2007.08792).

    `in_domain` compares with images of the pool by the part of the network that all members share.
    Where they share none, it compares by the first member with the images that it learned from, and
    `held_out` sets the limit.

    Args:
        learner: its train and valid splits together are the pool of N cases.
        members: K models, trained from one cut-off on different rows of the pool.
        logits: [N, C], of each case of the pool by a member that did not learn from it, in
            ascending order of the samples.
        labels: int [N], or int8 [N, C] of findings.
        groups: [N], any codes; equal for cases that are not independent.
        held_out: samples of the data set that the first member did not learn from; needed at the
            cut-off `all` alone.

    Raises:
        ValueError: the members are of different cut-offs, or `held_out` is lacking.
    """
    first = members[0]
    calibration = Calibration.fit(logits, labels, learner.settings.sensitivity)
    predictor = calibrated_predictor(
        learner,
        ensemble_network(members, learner.image_size),
        first.cut.point.name,
        calibration,
        _mean_tail(members),
        len(members),
    )
    splits = learner.dataset.splits
    pool = np.sort(np.concatenate([splits["train"], splits["valid"]]))
    pool = pool[learner.dataset.measured[pool]]
    if first.cut.point.key != (0,):
        limits = _drawn(groups, learner.settings.seed)
    elif held_out is not None:
        limits = np.isin(pool, held_out)
    else:
        raise ValueError("members that share no layer need held_out")
    return with_domain(learner, predictor, pool[~limits], pool[limits])


def ensemble_network(members: Sequence[Trained], image_size: int) -> nn.Module:
    """Returns one network of the members: images to the mean of their logits.

    Members that are one linear layer on equal features become one network, whose layer has the mean
    of their weights; it costs no more than one of them. Of hybrids it is the frozen network.

    Raises:
        ValueError: the members are of different cut-offs.
    """
    first, cuts = members[0], [each.cut for each in members]
    if first.tail is not None:
        return first.network.eval()
    network = Ensemble.of(cuts, [each.network for each in members], image_size)
    if all(linear_layer(each.suffix) is not None for each in cuts):
        return with_mean_suffix(first.network, cuts)
    return network


def evaluate_and_log_ensemble(
    learner: TransferLearner,
    members: Sequence[Trained],
    predictor: Predictor,
    out_of_fold: SplitPredictions | None = None,
) -> Concluded:
    """Evaluates an ensemble once, and logs results and model as of a single model.

    It is evaluated on the test split; without one by `out_of_fold`, the predictions of each case by
    a member that did not learn from it.
    """
    facts = ensemble_facts(learner, members)
    return evaluate_predictor(learner, predictor, facts, out_of_fold)


def ensemble_facts(learner: TransferLearner, members: Sequence[Trained]) -> TrainingFacts:
    """Returns the facts of the members' trainings for the card."""
    values = resolved_values(learner, members[0])
    values |= {"members": str(len(members))}
    if members[0].config is not None:
        most = members[0].config.epochs
        ran = ", ".join(f"{len(each.fit.epochs)} (best {each.fit.best.number})" for each in members)
        values["epochs"] = f"{ran} of {most}"
    if members[0].classical is not None:
        chosen = ", ".join(each.classical.setting for each in members if each.classical)
        values["optimizer"] = f"none: {learner.settings.classifier} ({chosen}) on frozen features"
    late = [each for each in members if unfinished(each)]
    line = ""
    if late:
        epochs = max(len(each.fit.epochs) for each in late)
        line = (
            f"the last of {len(late)} of {len(members)} members: epochs={2 * epochs} may give a "
            "better model"
        )
    return TrainingFacts(values, f"the out-of-fold predictions of its {len(members)} members", line)


def _mean_tail(members: Sequence[Trained]) -> SklearnHead | None:
    heads = [each.tail for each in members if each.tail is not None]
    return SklearnHead.mean_of(heads) if heads else None


def _drawn(groups: np.ndarray, seed: int) -> np.ndarray:
    """Draws a fifth of the groups [N], at least one of them: bool [N]."""
    names, codes = np.unique(groups, return_inverse=True)
    count = max(1, round(LIMIT_SHARE * len(names)))
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return np.isin(codes, chosen)
