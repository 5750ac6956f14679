"""What every training ends with: calibration, one look at the test split, the logged model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import numpy as np
from mlflow.models.model import ModelInfo

from medtl.data.dataset import Dataset, load
from medtl.evaluation.calibration import calibrated, decide, fit_temperature, operating_points
from medtl.evaluation.domain import DomainReference
from medtl.evaluation.intervals import Measures, measure
from medtl.settings import ModelSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.card import CardFacts, SplitFacts, model_card
from medtl.tracking.journal import log_fit, log_scores
from medtl.tracking.models import log_model
from medtl.tracking.registry import GateCases, Verdict, register_and_gate
from medtl.training.feeds import PASS_BATCH
from medtl.training.transfer import Trained, Transfer

HEADLINES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")


@dataclass(frozen=True)
class Concluded:
    """A trained model with its test scores, logged in the active run."""

    settings: ModelSettings
    dataset: Dataset
    bundle: Bundle
    facts: CardFacts
    measures: Measures
    probabilities: np.ndarray  # [N_test, K]
    model: ModelInfo

    def summary(self) -> str:
        """The test scores as lines for the console."""
        lines = [f"test scores   (95 % intervals over patients, {len(self.probabilities)} images)"]
        for name in HEADLINES:
            lines.append(f"  {name.replace('_', ' '):<20}{self.measures.summary[name]}")
        return "\n".join(lines)


def conclude(transfer: Transfer, trained: Trained) -> Concluded:
    """Calibrates on validation, scores the test split once, logs pictures, tables and the model."""
    dataset, settings = transfer.dataset, transfer.settings
    log_fit(trained.fit)
    bundle = _bundle(transfer, trained)
    test = dataset.splits["test"]
    logits = in_batches(bundle.scores, dataset, test)
    probabilities = calibrated(logits, bundle.temperature)
    decisions = decide(probabilities, np.array(bundle.thresholds))
    labels = dataset.labels[test]
    measures = measure(
        labels,
        probabilities,
        dataset.patients[test],
        dataset.classes,
        settings.seed,
        decisions=decisions,
    )
    log_scores(
        dataset, test, probabilities, calibrated(logits, 1.0), decisions, measures, split="test"
    )
    facts = CardFacts(bundle, split_facts(dataset), measures.summary, dataset.notes)
    mlflow.set_tag("mlflow.note.content", model_card(facts, f"medtl on {dataset.name}"))
    example = dataset.file_bytes(int(test[0]))
    model = log_model(bundle, example)
    return Concluded(settings, dataset, bundle, facts, measures, probabilities, model)


def registered(concluded: Concluded, model_name: str, confidence: float) -> Verdict:
    """Registers the model as a new version of `model_name`, and lets the gate judge it."""
    dataset, settings = concluded.dataset, concluded.settings
    test = dataset.splits["test"]

    def score_champion(champion: Bundle) -> np.ndarray:
        seen = dataset
        if champion.preprocessing.image_size != dataset.pixels.image_size:
            seen = load(
                settings.data,
                champion.preprocessing.image_size,
                settings.seed,
                settings.duplicates,
                settings.unreadable,
            )
        return calibrated(in_batches(champion.scores, seen, test), champion.temperature)

    cases = GateCases(
        dataset.labels[test], dataset.patients[test], dataset.classes, concluded.probabilities
    )
    return register_and_gate(
        concluded.model,
        concluded.facts,
        model_name,
        cases,
        score_champion,
        confidence,
        settings.seed,
    )


def in_batches(function: Callable[[np.ndarray], np.ndarray], dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """`function` of stored pixels [B, C, S, S] over all the images of `indices`, joined."""
    parts = [
        function(dataset.images(indices[start : start + PASS_BATCH]))
        for start in range(0, len(indices), PASS_BATCH)
    ]
    return np.concatenate(parts)


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
    )
    train_features, valid_features = (
        in_batches(bundle.features, dataset, dataset.splits[split]) for split in ("train", "valid")
    )
    domain = DomainReference.fit(train_features, valid_features, transfer.settings.seed)
    return dataclasses.replace(bundle, domain=domain)
