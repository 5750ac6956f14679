"""End of every training: calibration, one look at the test split, the logged model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mlflow
import numpy as np
import torch
from mlflow.models.model import ModelInfo

from medtl.data.agreement import LabelRecord, sample_codes
from medtl.data.dataset import Dataset, load
from medtl.data.seen import Seen, learned_from
from medtl.evaluation.calibration import (
    calibrated,
    fit_temperature,
    operating_points,
    operating_points_at,
)
from medtl.evaluation.domain import DomainReference, sampled
from medtl.evaluation.intervals import Measures, measure
from medtl.evaluation.mapping import ClassMapping
from medtl.evaluation.presence import fit_presence_temperature, presence
from medtl.evaluation.recalibration import calibration_gain
from medtl.jobs.baseline import (
    FEATURES,
    FILES,
    METRICS,
    Baseline,
    baselines,
    without_files,
)
from medtl.jobs.baseline import table as baseline_table
from medtl.jobs.explanation import Said, explain
from medtl.jobs.twins import without_twins
from medtl.settings import DataSettings, ModelSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.card import BELOW_TAG, CardFacts, SplitFacts, model_card
from medtl.tracking.example import example_images
from medtl.tracking.gate import GateCases, Scores, Verdict
from medtl.tracking.journal import (
    log_calibration,
    log_fit,
    log_halved,
    log_intervals,
    log_scores,
    log_table,
)
from medtl.tracking.models import log_model
from medtl.tracking.origin import BASELINES
from medtl.tracking.promotion import log_verdict, promotion_run
from medtl.tracking.registry import gate, register
from medtl.training.feeds import PASS_BATCH
from medtl.training.parallel import ALONE, Alone
from medtl.training.transfer import Trained, Transfer

HEADLINES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")


@dataclass(frozen=True)
class Scored:
    """Calibrated probabilities and decisions of a model on one split, with their metrics."""

    split: str
    unit: str  # that intervals are over, as `Dataset.unit` has it
    positive: str  # the class that metrics of two classes are of, else ''
    probabilities: np.ndarray  # [N, K], calibrated
    decisions: np.ndarray  # at the operating point, as `Bundle.decisions` has them
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


@dataclass(frozen=True)
class Concluded:
    """A trained model with its test scores, logged in the active run."""

    settings: ModelSettings
    dataset: Dataset
    bundle: Bundle
    facts: CardFacts
    scored: Scored
    below: tuple[Baseline, ...]  # that beat the model
    unfinished: str  # a line where the training was not at its end, else ''
    model: ModelInfo

    def summary(self) -> str:
        """Test scores, baselines and warnings as lines for the console."""
        lines = [f"baseline      {line}" for line in self.facts.baselines]
        lines += [f"warning       {each.warning()}" for each in self.below]
        if self.unfinished:
            lines.append(f"best epoch    {self.unfinished}")
        return "\n".join([self.scored.summary(), *lines])


def conclude(transfer: Transfer, trained: Trained) -> Concluded:
    """Calibrates on validation, scores the test split once, logs pictures, tables and the model."""
    dataset, settings = transfer.dataset, transfer.settings
    if dataset.positive:
        mlflow.set_tag("medtl.positive", dataset.positive)
    log_fit(trained.fit)
    log_halved(trained.halved)
    if trained.solved is not None:
        log_table(trained.solved.path, "training/penalties.csv")
    bundle = _bundle(transfer, trained)
    mapping = ClassMapping.same(bundle.classes)
    scored = score(bundle, dataset, "test", settings.seed, mapping, transfer.team)
    summary = scored.measures.summary
    unfinished = _unfinished(trained)
    notes = (*dataset.notes, *([f"best epoch {unfinished}"] if unfinished else []))
    notes += (scored.twins,) if scored.twins else ()
    found = _beside(transfer, scored.probabilities)
    without = without_files(transfer)
    below = tuple(
        each
        for each in found
        # a solved head is the baseline on features itself, but for the rounding of a forward pass
        if each.beats and not (each.name == FEATURES and trained.solved is not None)
    )
    if below:
        mlflow.set_tag(BELOW_TAG, "; ".join(each.shortfall() for each in below))
    facts = CardFacts(
        bundle,
        dataset.unit,
        split_facts(dataset),
        summary,
        notes,
        scored.maps,
        (*(each.line() for each in found), *([f"{FILES}: none, {without}"] if without else [])),
        tuple(each.shortfall() for each in below),
    )
    mlflow.set_tag("mlflow.note.content", model_card(facts, f"medtl on {dataset.name}"))
    *_, channels, side, _ = dataset.pixels.array.shape
    example = example_images(side, channels, max(1, len(dataset.modalities)))
    model = log_model(bundle, example)
    return Concluded(settings, dataset, bundle, facts, scored, below, unfinished, model)


def _beside(transfer: Transfer, probabilities: np.ndarray) -> tuple[Baseline, ...]:
    """Returns the baselines of a model with `probabilities` on the test split, logged."""
    found = baselines(transfer, probabilities)
    log_table(baseline_table(found), BASELINES)
    for each in found:
        prefix = METRICS[each.name]
        log_intervals({f"{prefix}_auroc": each.auroc, f"{prefix}_gain": each.gain})
    return found


def _unfinished(trained: Trained) -> str:
    """Returns a line where the best epoch of a training by gradient is its last one, else ''."""
    epochs = len(trained.fit.epochs)
    if trained.tail is not None or trained.solved is not None or trained.fit.best.number < epochs:
        return ""
    return f"{epochs} of {epochs}, the last: epochs={2 * epochs} may give a better model"


def help_conclude(transfer: Transfer, trained: Trained) -> None:
    """Runs the forward passes of the other processes during `conclude`."""
    bundle, dataset = _bundle(transfer, trained), transfer.dataset
    in_batches(bundle.scores, dataset, dataset.splits["test"], transfer.team)


def score(
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    seed: int,
    mapping: ClassMapping,
    team: Alone = ALONE,
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
    said = Said(indices, own, probabilities, decisions)
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


def decided(bundle: Bundle, own: np.ndarray, mapping: ClassMapping) -> np.ndarray:
    """Decides by a model's own probabilities [N, J], in the labels of the data."""
    if bundle.multi_label:
        return bundle.decisions(own)
    return mapping.decisions(own, np.array(bundle.thresholds))


def indices_of(dataset: Dataset, split: str) -> np.ndarray:
    """Returns the samples of a split, or of `all`: int64 [n]."""
    return np.arange(len(dataset.labels)) if split == "all" else dataset.splits[split]


def registered(concluded: Concluded, model_name: str, confidence: float) -> Verdict:
    """Registers the model as a new version of `model_name`, and lets the gate judge it.

    The verdict has a run of its own under the active one.
    """
    dataset, settings = concluded.dataset, concluded.settings
    scores = Scores(concluded.scored.probabilities, _seen_by(concluded.bundle, dataset))
    cases, seed = gate_cases(dataset, scores), settings.seed
    score_champion = partial(test_scores, dataset, settings, seed)
    version = register(concluded.model, concluded.facts, model_name)
    with promotion_run(model_name, confidence, seed):
        verdict = gate(model_name, version, cases, score_champion, confidence, seed)
        if concluded.facts.below:
            reason = f"{verdict.reason}; {'; '.join(concluded.facts.below)}"
            verdict = dataclasses.replace(verdict, reason=reason)
        log_verdict(model_name, verdict)
    return verdict


def gate_cases(dataset: Dataset, challenger: Scores) -> GateCases:
    """Returns the test cases on which the gate compares, with the challenger's scores."""
    test = dataset.splits["test"]
    labels, groups = dataset.labels[test], dataset.groups[test]
    codes = sample_codes(dataset, test)
    return GateCases(labels, groups, dataset.classes, challenger, codes, dataset.modalities)


def test_scores(dataset: Dataset, settings: DataSettings, seed: int, bundle: Bundle) -> Scores:
    """Scores the test cases with a model of the same classes, at its own image size."""
    seen = _seen_by(bundle, dataset)
    agreement = None if bundle.labels is None else bundle.labels.agreement(dataset)
    size = bundle.preprocessing.image_size
    if size != dataset.pixels.array.shape[-1]:
        dataset = load(settings.data, size, seed, settings.reading)
    logits = in_batches(bundle.scores, dataset, dataset.splits["test"])
    return Scores(bundle.probabilities(logits, bundle.temperature), seen, agreement)


def _seen_by(bundle: Bundle, dataset: Dataset) -> np.ndarray | None:
    """Flags test cases (bool [N_test]) in a model's training record; None without a record."""
    if bundle.seen is None:
        return None
    return learned_from(bundle.seen, dataset, dataset.splits["test"])


def in_batches(
    function: Callable[[np.ndarray], np.ndarray],
    dataset: Dataset,
    indices: np.ndarray,
    team: Alone = ALONE,
) -> np.ndarray:
    """Applies `function` to stored pixels [B, C, S, S] of the images `indices`, and joins.

    Of several processes each passes its share.
    """
    own = indices[team.mine(np.arange(len(indices)))]
    parts = [
        function(dataset.images(own[start : start + PASS_BATCH]))
        for start in range(0, len(own), PASS_BATCH)
    ]
    return team.gathered(torch.from_numpy(np.concatenate(parts)), len(indices)).numpy()


def compared_in_batches(
    bundle: Bundle, dataset: Dataset, indices: np.ndarray, team: Alone = ALONE
) -> dict[str, np.ndarray]:
    """`Bundle.compared` of all the images of `indices`, [N, F] each."""
    widths: dict[str, int] = {}

    def side_by_side(images: np.ndarray) -> np.ndarray:
        compared = bundle.compared(images)
        widths.update({name: each.shape[1] for name, each in compared.items()})
        return np.concatenate(list(compared.values()), axis=1)

    together = in_batches(side_by_side, dataset, indices, team)
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(together, ends, axis=1), strict=True))


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


def _bundle(transfer: Transfer, trained: Trained) -> Bundle:
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
    bundle = Bundle(
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
        seen=None if transfer.seen_before is None else (*transfer.seen_before, Seen.of(dataset)),
        labels=LabelRecord.of(dataset),
    )
    seed, learned = transfer.settings.seed, dataset.splits["train"]
    # Only the sample passes the network: of many images the others would take hours.
    each = (learned[sampled(len(learned), seed)], dataset.splits["valid"])
    train, valid = (
        compared_in_batches(bundle, dataset, indices, transfer.team) for indices in each
    )
    groups = (dataset.groups[indices] for indices in each)
    domain = DomainReference.fit(train, valid, seed, *groups)
    return dataclasses.replace(bundle, domain=domain)
