"""What every training ends with: calibration, one look at the test split, the logged model."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mlflow
import numpy as np
from mlflow.models.model import ModelInfo
from PIL import Image

from medtl.data.dataset import Dataset, load
from medtl.evaluation.calibration import calibrated, decide, fit_temperature, operating_points
from medtl.evaluation.domain import DomainReference
from medtl.evaluation.intervals import Measures, measure
from medtl.settings import DataSettings, ModelSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.card import CardFacts, SplitFacts, model_card
from medtl.tracking.journal import log_fit, log_scores
from medtl.tracking.models import log_model
from medtl.tracking.registry import GateCases, Verdict, register_and_gate
from medtl.training.feeds import PASS_BATCH
from medtl.training.transfer import Trained, Transfer

HEADLINES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")


@dataclass(frozen=True)
class Scored:
    """A model's answers on one split, measured."""

    split: str
    probabilities: np.ndarray  # [N, K], calibrated
    measures: Measures

    def summary(self) -> str:
        """The headline scores as lines for the console."""
        count = len(self.probabilities)
        lines = [f"{self.split} scores   (95 % intervals over patients, {count} images)"]
        for name in HEADLINES:
            lines.append(f"  {name.replace('_', ' '):<20}{self.measures.summary[name]}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Concluded:
    """A trained model with its test scores, logged in the active run."""

    settings: ModelSettings
    dataset: Dataset
    bundle: Bundle
    facts: CardFacts
    scored: Scored
    model: ModelInfo


def conclude(transfer: Transfer, trained: Trained) -> Concluded:
    """Calibrates on validation, scores the test split once, logs pictures, tables and the model."""
    dataset, settings = transfer.dataset, transfer.settings
    log_fit(trained.fit)
    bundle = _bundle(transfer, trained)
    scored = score(bundle, dataset, "test", settings.seed)
    facts = CardFacts(bundle, split_facts(dataset), scored.measures.summary, dataset.notes)
    mlflow.set_tag("mlflow.note.content", model_card(facts, f"medtl on {dataset.name}"))
    model = log_model(bundle, example_image(dataset, int(dataset.splits["test"][0])))
    return Concluded(settings, dataset, bundle, facts, scored, model)


def score(bundle: Bundle, dataset: Dataset, split: str, seed: int) -> Scored:
    """Scores a split (or `all`) with a model, and logs metrics, pictures and tables."""
    indices = np.arange(len(dataset.labels)) if split == "all" else dataset.splits[split]
    logits = in_batches(bundle.scores, dataset, indices)
    probabilities = calibrated(logits, bundle.temperature)
    decisions = decide(probabilities, np.array(bundle.thresholds))
    measures = measure(
        dataset.labels[indices],
        probabilities,
        dataset.patients[indices],
        dataset.classes,
        seed,
        decisions=decisions,
    )
    uncalibrated = calibrated(logits, 1.0)
    log_scores(dataset, split, indices, probabilities, uncalibrated, decisions, measures)
    return Scored(split, probabilities, measures)


def registered(concluded: Concluded, model_name: str, confidence: float) -> Verdict:
    """Registers the model as a new version of `model_name`, and lets the gate judge it."""
    dataset, settings = concluded.dataset, concluded.settings
    return register_and_gate(
        concluded.model,
        concluded.facts,
        model_name,
        gate_cases(dataset, concluded.scored.probabilities),
        partial(test_probabilities, dataset, settings, settings.seed),
        confidence,
        settings.seed,
    )


def gate_cases(dataset: Dataset, probabilities: np.ndarray) -> GateCases:
    """The test cases on which the gate compares, with the challenger's probabilities."""
    test = dataset.splits["test"]
    return GateCases(dataset.labels[test], dataset.patients[test], dataset.classes, probabilities)


def test_probabilities(
    dataset: Dataset, settings: DataSettings, seed: int, bundle: Bundle
) -> np.ndarray:
    """Calibrated probabilities [N_test, K] of any model of the same classes, at its own size."""
    size = bundle.preprocessing.image_size
    if size != dataset.pixels.array.shape[-1]:
        dataset = load(settings.data, size, seed, settings.duplicates, settings.unreadable)
    logits = in_batches(bundle.scores, dataset, dataset.splits["test"])
    return calibrated(logits, bundle.temperature)


def in_batches(
    function: Callable[[np.ndarray], np.ndarray], dataset: Dataset, indices: np.ndarray
) -> np.ndarray:
    """`function` of stored pixels [B, C, S, S] over all the images of `indices`, joined."""
    parts = [
        function(dataset.images(indices[start : start + PASS_BATCH]))
        for start in range(0, len(indices), PASS_BATCH)
    ]
    return np.concatenate(parts)


def example_image(dataset: Dataset, index: int) -> bytes:
    """One image as a PNG file of the size that the network sees: the model's input example."""
    image = dataset.images(np.array([index]))[0]
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def split_facts(dataset: Dataset) -> tuple[SplitFacts, ...]:
    """How many images, patients and images of each class every split has."""
    facts = []
    for name, indices in dataset.splits.items():
        counts = np.bincount(dataset.labels[indices], minlength=len(dataset.classes))
        facts.append(
            SplitFacts(
                name,
                len(indices),
                len(np.unique(dataset.patients[indices])),
                dict(zip(dataset.classes, counts.tolist(), strict=True)),
            )
        )
    return tuple(facts)


def _bundle(transfer: Transfer, trained: Trained) -> Bundle:
    """The trained network with what was learned from the validation split."""
    dataset, backbone = transfer.dataset, transfer.backbone
    valid_labels = dataset.labels[dataset.splits["valid"]]
    temperature = fit_temperature(trained.fit.valid_logits, valid_labels)
    valid_probabilities = calibrated(trained.fit.valid_logits, temperature)
    bundle = Bundle(
        architecture=backbone.architecture,
        classes=dataset.classes,
        preprocessing=backbone.preprocessing,
        weights=backbone.weights,
        cutoff=trained.cut.point.name,
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        temperature=temperature,
        thresholds=tuple(operating_points(valid_labels, valid_probabilities).tolist()),
        network=trained.network.eval(),
        tail=trained.tail,
    )
    train_features, valid_features = (
        in_batches(bundle.features, dataset, dataset.splits[split]) for split in ("train", "valid")
    )
    domain = DomainReference.fit(train_features, valid_features, transfer.settings.seed)
    return dataclasses.replace(bundle, domain=domain)
