"""Finish of every training: calibration, test scores, logged model."""

from __future__ import annotations

import dataclasses
import platform
import re
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import mlflow
import numpy as np
from mlflow.models.model import ModelInfo

from medtl.data.dataset import Dataset, load
from medtl.evaluation.calibration import (
    fit_presence_temperature,
    fit_temperature,
    operating_points,
    operating_points_at,
)
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.split_evaluation import SplitEvaluation, evaluate_split
from medtl.inference.decisions import calibrated, presence
from medtl.inference.label_record import LabelRecord, sample_codes
from medtl.inference.out_of_distribution import DomainReference, sampled
from medtl.inference.predictor import Predictor
from medtl.inference.training_record import TrainingRecord, learned_from
from medtl.networks.cutoffs import resolve
from medtl.pipeline.baselines import FEATURES, FILES, METRICS, Baseline, baselines, without_files
from medtl.pipeline.baselines import table as baseline_table
from medtl.pipeline.evaluation_logging import log_evaluation, log_heatmaps
from medtl.pipeline.heatmaps import explain_split
from medtl.pipeline.run_logging import log_fit, log_halved
from medtl.pipeline.scoring import compared_in_batches, in_batches, predict_split
from medtl.reporting.model_card import (
    BELOW_TAG,
    CARD_FILE,
    CardFacts,
    SplitFacts,
    model_card,
    shortened,
)
from medtl.settings.data import DataSettings
from medtl.settings.training import ModelSettings
from medtl.tracking.artifacts import log_intervals, log_table
from medtl.tracking.lineage import BASELINES
from medtl.tracking.logged_model import example_images, log_model
from medtl.tracking.promotion_gate import GateCases, Scores, Verdict
from medtl.tracking.promotion_logging import log_verdict, promotion_run
from medtl.tracking.registry import gate, register
from medtl.tracking.runs import TEXT_LIMIT
from medtl.training.learner import Trained, TransferLearner

SOFTWARE = ("medtl", "torch", "torchvision", "scikit-learn", "mlflow")


@dataclass(frozen=True)
class Concluded:
    """Trained model with its test scores, logged in the active run."""

    settings: ModelSettings
    dataset: Dataset
    bundle: Predictor
    facts: CardFacts
    evaluation: SplitEvaluation
    below: tuple[Baseline, ...]  # baselines that beat the model
    unfinished: str  # line for a training whose best epoch is the last, else ''
    model: ModelInfo

    def summary(self) -> str:
        """Formats test scores, baselines and warnings as lines for the console."""
        lines = [f"warning       {line}" for line in self.dataset.warnings]
        lines += [f"baseline      {line}" for line in self.facts.baselines]
        lines += [f"warning       {each.warning()}" for each in self.below]
        if self.unfinished:
            lines.append(f"best epoch    {self.unfinished}")
        return "\n".join([self.evaluation.summary(), *lines])


def evaluate_and_log(transfer: TransferLearner, trained: Trained) -> Concluded:
    """Calibrates on validation, evaluates the test split once, and logs results and model."""
    dataset, settings = transfer.dataset, transfer.settings
    if dataset.positive:
        mlflow.set_tag("medtl.positive", dataset.positive)
    log_fit(trained.fit)
    log_halved(trained.halved)
    if trained.solved is not None:
        log_table(trained.solved.path, "training/penalties.csv")
    bundle = _bundle(transfer, trained)
    mapping = ClassMapping.same(bundle.classes)
    predictions = predict_split(bundle, dataset, "test", mapping, transfer.team)
    evaluation = evaluate_split(dataset, predictions, settings.seed)
    heatmaps = explain_split(bundle, dataset, predictions, mapping, settings.seed)
    log_evaluation(evaluation)
    log_heatmaps(heatmaps)
    unfinished = _unfinished(trained)
    notes = (*dataset.notes, *([f"best epoch {unfinished}"] if unfinished else []))
    notes += evaluation.notes
    found = _log_baselines(transfer, trained, predictions.probabilities)
    without = without_files(transfer)
    below = tuple(
        each
        for each in found
        # a solved head is the baseline on features, up to the rounding of a forward pass
        if each.beats and not (each.name == FEATURES and trained.solved is not None)
    )
    if below:
        mlflow.set_tag(BELOW_TAG, "; ".join(each.shortfall() for each in below))
    facts = CardFacts(
        bundle,
        dataset.unit,
        split_facts(dataset),
        evaluation.measures.summary,
        notes,
        heatmaps.words,
        (*(each.line() for each in found), *([f"{FILES}: none, {without}"] if without else [])),
        tuple(each.shortfall() for each in below),
        dataset.warnings,
        resolved_values(transfer, trained),
    )
    mlflow.set_tags({f"medtl.{name}": value for name, value in facts.training.items()})
    card = model_card(facts, f"medtl on {dataset.name}")
    mlflow.log_text(card, CARD_FILE)
    mlflow.set_tag("mlflow.note.content", shortened(card, TEXT_LIMIT))
    *_, channels, side, _ = dataset.pixels.array.shape
    example = example_images(side, channels, max(1, len(dataset.modalities)))
    model = log_model(bundle, example)
    return Concluded(settings, dataset, bundle, facts, evaluation, below, unfinished, model)


def _log_baselines(
    transfer: TransferLearner, trained: Trained, probabilities: np.ndarray
) -> tuple[Baseline, ...]:
    """Fits and logs the baselines of a model with `probabilities` on the test split."""
    backbone = transfer.backbone
    head = resolve(backbone.network, backbone.architecture, "head")
    # equal to the first baseline, which is then not fitted again
    solved = trained.solved if trained.cut.point.key == head.key else None
    found = baselines(transfer, probabilities, solved)
    log_table(baseline_table(found), BASELINES)
    for each in found:
        prefix = METRICS[each.name]
        log_intervals({f"{prefix}_auroc": each.auroc, f"{prefix}_gain": each.gain})
    return found


def resolved_values(transfer: TransferLearner, trained: Trained) -> dict[str, str]:
    """Returns the values that a training used in the end, as the card and tags of its run show."""
    values = {"image_size": str(transfer.image_size)}
    if trained.config is not None:
        config, epochs = trained.config, len(trained.fit.epochs)
        values |= {
            "optimizer": config.optimizer,
            "lr": f"{config.lr:g}",
            "weight_decay": f"{config.weight_decay:g}",
            "epochs": f"{epochs} of {config.epochs}, best {trained.fit.best.number}",
            "images_per_step": str(config.batch_size),
            "precision": config.precision,
        }
        if config.layer_decay != 1:
            values["layer_decay"] = f"{config.layer_decay:g}"
    elif trained.solved is not None:
        values["optimizer"] = "none: the output layer is solved"
    elif trained.tail is not None:
        values["optimizer"] = f"none: {transfer.settings.classifier} on frozen features"
    return values | {"seed": str(transfer.settings.seed), "software": software()}


def software() -> str:
    """Formats the versions of Python and of the packages that decide the numbers."""
    versions = [f"{name} {version(name)}" for name in SOFTWARE]
    return ", ".join([f"Python {platform.python_version()}", *versions])


def _unfinished(trained: Trained) -> str:
    """Returns a line where the best epoch of a training by gradient is its last one, else ''."""
    epochs = len(trained.fit.epochs)
    if trained.tail is not None or trained.solved is not None or trained.fit.best.number < epochs:
        return ""
    return f"{epochs} of {epochs}, the last: epochs={2 * epochs} may give a better model"


def evaluate_shard(transfer: TransferLearner, trained: Trained) -> None:
    """Runs the forward passes of the other processes during `evaluate_and_log`."""
    bundle, dataset = _bundle(transfer, trained), transfer.dataset
    in_batches(bundle.scores, dataset, dataset.splits["test"], transfer.team)


def register_and_gate(concluded: Concluded, model_name: str, confidence: float) -> Verdict:
    """Registers the model as a new version of `model_name`, and lets the gate judge it.

    The verdict has a run of its own under the active one.
    """
    dataset, settings = concluded.dataset, concluded.settings
    scores = Scores(concluded.evaluation.cases.probabilities, _seen_by(concluded.bundle, dataset))
    cases, seed = gate_cases(dataset, scores), settings.seed
    score_champion = partial(test_scores, dataset, settings, seed)
    version = register(concluded.model, concluded.facts, model_name)
    with promotion_run(model_name, confidence, seed):
        verdict = gate(model_name, version, cases, score_champion, confidence, seed)
        doubts = (*concluded.facts.below, *map(in_short, dataset.warnings))
        verdict = dataclasses.replace(verdict, reason="; ".join((verdict.reason, *doubts)))
        log_verdict(model_name, verdict)
    return verdict


def in_short(warning: str) -> str:
    """Returns the beginning of a warning, without examples and consequences.

    >>> in_short("2 images are blank (a.png, b.png)")
    '2 images are blank'
    """
    return re.split(r" \(|: |; ", warning)[0]


def gate_cases(dataset: Dataset, challenger: Scores) -> GateCases:
    """Returns the test cases on which the gate compares, with the challenger's scores."""
    test = dataset.splits["test"]
    labels, groups = dataset.labels[test], dataset.groups[test]
    codes = sample_codes(dataset, test)
    return GateCases(labels, groups, dataset.classes, challenger, codes, dataset.modalities)


def test_scores(dataset: Dataset, settings: DataSettings, seed: int, bundle: Predictor) -> Scores:
    """Scores the test cases with a model of the same classes, at its own image size."""
    seen = _seen_by(bundle, dataset)
    agreement = None if bundle.labels is None else bundle.labels.agreement(dataset)
    size = bundle.preprocessing.image_size
    if size != dataset.pixels.array.shape[-1]:
        dataset = load(settings.data, size, seed, settings.reading)
    logits = in_batches(bundle.scores, dataset, dataset.splits["test"])
    return Scores(bundle.probabilities(logits, bundle.temperature), seen, agreement)


def _seen_by(bundle: Predictor, dataset: Dataset) -> np.ndarray | None:
    """Flags test cases (bool [N_test]) in a model's training record; None without a record."""
    if bundle.seen is None:
        return None
    return learned_from(bundle.seen, dataset, dataset.splits["test"])


def split_facts(dataset: Dataset) -> tuple[SplitFacts, ...]:
    """Counts images, patients and images of each class, or with each finding, by split."""
    facts = []
    for name, indices in dataset.splits.items():
        counts, known = dataset.counts(indices), indices[dataset.has_patient[indices]]
        facts.append(
            SplitFacts(
                name,
                images=len(indices),
                patients=dataset.frame["patient"].iloc[known].nunique(),
                unknown=len(indices) - len(known),
                per_class=dict(zip(dataset.classes, counts.tolist(), strict=True)),
            )
        )
    return tuple(facts)


def _bundle(transfer: TransferLearner, trained: Trained) -> Predictor:
    """Returns the trained network with what was learned from the validation split."""
    dataset, backbone = transfer.dataset, transfer.backbone
    valid_labels = dataset.labels[dataset.splits["valid"]]
    valid_logits = trained.fit.valid_logits
    if dataset.multi_label:
        temperature = fit_presence_temperature(valid_logits, valid_labels)
        valid_probabilities = presence(valid_logits, temperature)
    else:
        temperature = fit_temperature(valid_logits, valid_labels)
        valid_probabilities = calibrated(valid_logits, temperature)
    sensitivity = transfer.settings.sensitivity
    thresholds = (
        operating_points_at(valid_labels, valid_probabilities, sensitivity)
        if sensitivity
        else operating_points(valid_labels, valid_probabilities)
    )
    bundle = Predictor(
        architecture=backbone.architecture,
        classes=dataset.classes,
        preprocessing=backbone.preprocessing,
        weights=backbone.weights,
        cutoff=trained.cut.point.name,
        hidden=transfer.settings.hidden,
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        multi_label=dataset.multi_label,
        modalities=dataset.modalities,
        missing=transfer.settings.missing,
        temperature=temperature,
        thresholds=tuple(thresholds.tolist()),
        sensitivity=sensitivity,
        network=trained.network.eval(),
        tail=trained.tail,
        seen=None
        if transfer.seen_before is None
        else (*transfer.seen_before, TrainingRecord.of(dataset)),
        labels=LabelRecord.of(dataset),
    )
    seed, learned = transfer.settings.seed, dataset.splits["train"]
    # only a sample is passed through the network: all of many images would take hours
    each = (learned[sampled(len(learned), seed)], dataset.splits["valid"])
    train, valid = (
        compared_in_batches(bundle, dataset, indices, transfer.team) for indices in each
    )
    groups = (dataset.groups[indices] for indices in each)
    domain = DomainReference.fit(train, valid, seed, *groups)
    return dataclasses.replace(bundle, domain=domain)
