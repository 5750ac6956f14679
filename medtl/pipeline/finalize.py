"""Finish of every training: calibration, test scores, logged model."""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import mlflow
import numpy as np
from mlflow.models.model import ModelInfo

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.split_evaluation import SplitEvaluation, SplitPredictions, evaluate_split
from medtl.inference.label_record import sample_codes
from medtl.inference.predictor import Predictor
from medtl.inference.training_record import learned_from
from medtl.networks.cutoffs import resolve
from medtl.pipeline.baselines import FEATURES, FILES, METRICS, Baseline, baselines, without_files
from medtl.pipeline.baselines import table as baseline_table
from medtl.pipeline.evaluation_logging import log_evaluation, log_heatmaps
from medtl.pipeline.heatmaps import explain_split
from medtl.pipeline.predictors import trained_predictor
from medtl.pipeline.run_logging import log_fit, log_halved
from medtl.pipeline.scoring import in_batches, predict_split
from medtl.reporting.model_card import (
    BELOW_TAG,
    CARD_FILE,
    VALIDATION,
    CardFacts,
    SplitFacts,
    model_card,
    shortened,
)
from medtl.settings.data import DataSettings
from medtl.settings.training import AUTO, ModelSettings
from medtl.tracking.artifacts import log_intervals, log_table
from medtl.tracking.lineage import BASELINES
from medtl.tracking.logged_model import example_images, log_model
from medtl.tracking.promotion_gate import GateCases, Scores, Verdict
from medtl.tracking.promotion_logging import log_verdict, promotion_run
from medtl.tracking.registry import gate, register
from medtl.tracking.runs import TEXT_LIMIT
from medtl.training.device import hardware
from medtl.training.learner import Trained, TransferLearner
from medtl.training.linear_head import LinearHead

NO_BASELINES = "they are fitted where there is a test split"
SOFTWARE = ("medtl", "torch", "torchvision", "scikit-learn", "mlflow")


@dataclass(frozen=True)
class TrainingFacts:
    """Facts of a training for the card of its model.

    Attributes:
        values: values that it used in the end, see `resolved_values`.
        calibrated_on: cases that temperature and thresholds were fitted on, in words.
        unfinished: line for a training whose best epoch is the last, else ''.
        solved: the model's head if it was solved at the cut `head` without augmented views, which
            is the baseline on features.
    """

    values: Mapping[str, str]
    calibrated_on: str = VALIDATION
    unfinished: str = ""
    solved: LinearHead | None = None


@dataclass(frozen=True)
class Concluded:
    """Trained model with its test scores, logged in the active run."""

    settings: ModelSettings
    dataset: Dataset
    bundle: Predictor
    facts: CardFacts
    predictions: SplitPredictions
    evaluation: SplitEvaluation
    below: tuple[Baseline, ...]  # baselines that beat the model
    unfinished: str  # line for a training whose best epoch is the last, else ''
    model: ModelInfo

    def summary(self) -> str:
        """Formats test scores, baselines and warnings as lines for the console."""
        return "\n".join(filter(None, [self.evaluation.summary(), self.remarks()]))

    def remarks(self) -> str:
        """Formats baselines and warnings as lines for the console."""
        lines = [f"warning       {line}" for line in self.dataset.warnings]
        lines += [f"baseline      {line}" for line in self.facts.baselines]
        lines += [f"warning       {each.warning()}" for each in self.below]
        if self.unfinished:
            lines.append(f"best epoch    {self.unfinished}")
        if augment := self.facts.training.get("augment"):
            lines.append(f"augmentation  {augment}")
        return "\n".join(lines)


def evaluate_and_log(
    transfer: TransferLearner, trained: Trained, values: Mapping[str, str] | None = None
) -> Concluded:
    """Calibrates on validation, evaluates the test split once, and logs results and model.

    `values` are shown beside those of `resolved_values`.
    """
    log_fit(trained.fit)
    log_halved(trained.halved)
    backbone, solved = transfer.backbone, trained.solved
    if solved is not None:
        log_table(solved.path, "training/penalties.csv")
        head = resolve(backbone.network, backbone.architecture, "head")
        is_plain = trained.cut.point.key == head.key and not solved.views
        solved = solved if is_plain else None
    if trained.classical is not None:
        log_table(trained.classical.path, "training/classifier.csv")
    used = resolved_values(transfer, trained) | dict(values or {})
    facts = TrainingFacts(used, unfinished=unfinished(trained), solved=solved)
    return evaluate_predictor(transfer, trained_predictor(transfer, trained), facts)


def evaluate_predictor(
    transfer: TransferLearner,
    bundle: Predictor,
    training: TrainingFacts,
    out_of_fold: SplitPredictions | None = None,
) -> Concluded:
    """Evaluates a calibrated predictor once, and logs results and model.

    It is evaluated on the test split, beside its baselines. Where there is none, `out_of_fold` are
    predictions of each case by a model that did not learn from it, and there are no baselines.
    """
    dataset, settings = transfer.dataset, transfer.settings
    if dataset.positive:
        mlflow.set_tag("medtl.positive", dataset.positive)
    mapping = ClassMapping.same(bundle.classes)
    predictions = out_of_fold or predict_split(bundle, dataset, "test", mapping, transfer.team)
    evaluation = evaluate_split(dataset, predictions, settings.seed)
    heatmaps = explain_split(bundle, dataset, predictions, mapping, settings.seed)
    log_evaluation(evaluation)
    log_heatmaps(heatmaps)
    notes = (
        *dataset.notes,
        *([f"best epoch {training.unfinished}"] if training.unfinished else []),
    )
    notes += evaluation.notes
    found: tuple[Baseline, ...] = ()
    lines = [f"none: {NO_BASELINES}"]
    if out_of_fold is None:
        found = _log_baselines(transfer, training.solved, predictions.probabilities)
        without = without_files(transfer)
        lines = [each.line() for each in found]
        lines += [f"{FILES}: none, {without}"] if without else []
    below = tuple(
        each
        for each in found
        # a solved head is the baseline on features, up to the rounding of a forward pass
        if each.beats and not (each.name == FEATURES and training.solved is not None)
    )
    if below:
        mlflow.set_tag(BELOW_TAG, "; ".join(each.shortfall() for each in below))
    facts = CardFacts(
        bundle,
        dataset.unit,
        split_facts(_pooled(dataset) if bundle.members else dataset),
        evaluation.measures.summary,
        notes,
        heatmaps.words,
        tuple(lines),
        tuple(each.shortfall() for each in below),
        dataset.warnings,
        training.values,
        training.calibrated_on,
        out_of_fold is not None,
    )
    mlflow.set_tags({f"medtl.{name}": value for name, value in facts.training.items()})
    card = model_card(facts, f"medtl on {dataset.name}")
    mlflow.log_text(card, CARD_FILE)
    mlflow.set_tag("mlflow.note.content", shortened(card, TEXT_LIMIT))
    *_, channels, side, _ = dataset.pixels.array.shape
    window = bundle.preprocessing.window
    example = example_images(side, channels, max(1, len(dataset.modalities)), window)
    model = log_model(bundle, example)
    return Concluded(
        settings,
        dataset,
        bundle,
        facts,
        predictions,
        evaluation,
        below,
        training.unfinished,
        model,
    )


def _log_baselines(
    transfer: TransferLearner, solved: LinearHead | None, probabilities: np.ndarray
) -> tuple[Baseline, ...]:
    """Fits and logs the baselines of a model with `probabilities` on the test split.

    `solved` is the first of them, which is then not fitted again.
    """
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
        if transfer.settings.augment == AUTO:
            values["augment"] = config.augment
        if config.layer_decay != 1:
            values["layer_decay"] = f"{config.layer_decay:g}"
        if config.lora_rank:
            values["lora_rank"] = f"{config.lora_rank}: adapters of attention and the head alone"
    elif trained.solved is not None:
        values["optimizer"] = "none: the output layer is solved"
        if augment := _chosen_augmentation(trained.solved, transfer):
            values["augment"] = augment
    elif trained.classical is not None:
        used = f"{transfer.settings.classifier} ({trained.classical.setting})"
        values["optimizer"] = f"none: {used} on frozen features"
    return values | {
        "seed": str(transfer.settings.seed),
        "hardware": hardware(transfer.device),
        "software": software(),
    }


def _chosen_augmentation(head: LinearHead, transfer: TransferLearner) -> str:
    """Describes the augmentation that validation chose for a solved head; '' without a choice."""
    aurocs = head.path.groupby("views")["valid_auroc"].max()
    if not (views := int(aurocs.index.max())):
        images = len(transfer.labels("train"))
        return f"none: {images} images are many" if transfer.settings.augment == AUTO else ""
    return (
        f"{transfer.augment if head.views else 'none'}: validation AUROC {aurocs[views]:.3f} with "
        f"{views} augmented views of each image, {aurocs[0]:.3f} without"
    )


def software() -> str:
    """Formats the versions of Python and of the packages that decide the numbers."""
    versions = [f"{name} {version(name)}" for name in SOFTWARE]
    return ", ".join([f"Python {platform.python_version()}", *versions])


def unfinished(trained: Trained) -> str:
    """Returns a line where the best epoch of a training by gradient is its last one, else ''."""
    epochs = len(trained.fit.epochs)
    if trained.tail is not None or trained.solved is not None or trained.fit.best.number < epochs:
        return ""
    return f"{epochs} of {epochs}, the last: epochs={2 * epochs} may give a better model"


def evaluate_shard(transfer: TransferLearner, trained: Trained) -> None:
    """Runs the forward passes of the other processes during `evaluate_and_log`."""
    bundle, dataset = trained_predictor(transfer, trained), transfer.dataset
    in_batches(bundle.scores, dataset, dataset.splits["test"], transfer.team)


def register_and_gate(concluded: Concluded, model_name: str, confidence: float) -> Verdict:
    """Registers the model as a new version of `model_name`, and lets the gate judge it.

    The verdict has a run of its own under the active one.
    """
    dataset, settings = concluded.dataset, concluded.settings
    predictions, seed = concluded.predictions, settings.seed
    indices = predictions.indices
    # out of fold each case was predicted by a member that had not learned from it
    seen = (
        np.zeros(len(indices), bool)
        if concluded.facts.out_of_fold
        else _seen_by(concluded.bundle, dataset, indices)
    )
    cases = gate_cases(dataset, Scores(predictions.probabilities, seen), indices)
    score_champion = partial(test_scores, dataset, settings, seed, indices)
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


def gate_cases(dataset: Dataset, challenger: Scores, indices: np.ndarray) -> GateCases:
    """Returns the cases `indices` on which the gate compares, with the challenger's scores."""
    labels, groups = dataset.labels[indices], dataset.groups[indices]
    codes = sample_codes(dataset, indices)
    return GateCases(labels, groups, dataset.classes, challenger, codes, dataset.modalities)


def test_scores(
    dataset: Dataset, settings: DataSettings, seed: int, indices: np.ndarray, bundle: Predictor
) -> Scores:
    """Scores the cases `indices` with a model of the same classes, in its own rendering."""
    seen = _seen_by(bundle, dataset, indices)
    agreement = None if bundle.labels is None else bundle.labels.agreement(dataset)
    rendering = bundle.preprocessing.rendering
    if rendering != dataset.pixels.rendering:
        dataset = load(settings.data, rendering, seed, settings.reading)
    logits = in_batches(bundle.scores, dataset, indices)
    return Scores(bundle.probabilities(logits, bundle.temperature), seen, agreement)


def _seen_by(bundle: Predictor, dataset: Dataset, indices: np.ndarray) -> np.ndarray | None:
    """Flags cases (bool [N]) in a model's training record; None without a record."""
    if bundle.seen is None:
        return None
    return learned_from(bundle.seen, dataset, indices)


def _pooled(dataset: Dataset) -> Dataset:
    """Returns the data set with train and valid as one split `folds`, without empty splits."""
    splits = dataset.splits
    pooled = {"folds": np.concatenate([splits["train"], splits["valid"]]), "test": splits["test"]}
    kept = {name: indices for name, indices in pooled.items() if len(indices)}
    return dataclasses.replace(dataset, splits=kept)


def split_facts(dataset: Dataset) -> tuple[SplitFacts, ...]:
    """Counts images, patients and images of each class, or with each finding, by split."""
    facts = []
    for name, indices in dataset.splits.items():
        counts = dataset.counts(indices)
        facts.append(
            SplitFacts(
                name,
                images=len(indices),
                patients=dataset.known_patients(indices),
                unknown=int((~dataset.has_patient[indices]).sum()),
                per_class=dict(zip(dataset.classes, counts.tolist(), strict=True)),
            )
        )
    return tuple(facts)
