"""Model card in Markdown, and its numbers as tags."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from medtl.cache import digest_of
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import overall_metrics
from medtl.inference.out_of_distribution import STRANGE_SHARE
from medtl.inference.prediction_sets import VALIDATION as PART_OF_VALIDATION
from medtl.inference.predictor import Predictor
from medtl.label_syntax import NO_FINDING
from medtl.reporting.markdown import code, plain

BELOW_TAG = "medtl.below_baseline"  # on a run and a version whose model a baseline beats
FEW_PATIENTS = 100  # in the test split; fewer give wide intervals
VALIDATION = "the validation split"
HEADLINE = ("auroc", "sensitivity", "specificity")  # metrics in the first line
NOT_FOR_DIAGNOSIS = (
    "**Not a medical device and not cleared for diagnosis, triage or treatment.** "
    "For research: a qualified person reads every image."
)


@dataclass(frozen=True)
class SplitFacts:
    """One split of the data.

    Attributes:
        name: name of the split.
        images: number of images, or cases.
        patients: number of known patients.
        unknown: number of images of unknown patients.
        per_class: number of images of each class, or with each finding.
    """

    name: str
    images: int
    patients: int
    unknown: int
    per_class: Mapping[str, int]

    def patients_text(self) -> str:
        """Formats the number of patients."""
        if not self.unknown:
            return str(self.patients)
        unknown = f"unknown for {self.unknown}"
        return f"{self.patients}, {unknown}" if self.patients else "unknown"


@dataclass(frozen=True)
class CardFacts:
    """Content of a card beside the bundle itself."""

    bundle: Predictor
    unit: str  # sampling unit of intervals, see `Dataset.unit`
    splits: tuple[SplitFacts, ...]
    scores: Mapping[str, Interval]  # metric (`auroc`, ...) on the test split, to its 95 % interval
    notes: tuple[str, ...] = ()  # notes on reading the data
    maps: str = ""  # result of the heat map check, or the reason for its absence
    baselines: tuple[str, ...] = ()  # one line per baseline, with the gain over it
    below: tuple[str, ...] = ()  # one line per baseline that beats the model
    warnings: tuple[str, ...] = ()  # findings of the data report
    training: Mapping[str, str] = field(default_factory=dict)  # values that the training used
    calibrated_on: str = VALIDATION  # cases of temperature and thresholds, in words
    out_of_fold: bool = False  # scores are of members, each on cases that it has not learned from

    @property
    def scored(self) -> str:
        """Name of the cases that were scored."""
        return "Out-of-fold predictions" if self.out_of_fold else "Test split"

    def scored_splits(self) -> tuple[SplitFacts, ...]:
        """Returns the splits of the scored cases."""
        return tuple(each for each in self.splits if self.out_of_fold or each.name == "test")


def model_card(facts: CardFacts, model_name: str) -> str:
    """Returns the card as Markdown."""
    parts = (
        _opening(facts, model_name),
        _data(facts),
        _scores(facts),
        _operating_point(facts),
        _calibration(facts),
        _making(facts),
        _limits(facts),
    )
    return "\n\n".join(parts) + "\n"


EXPENDABLE = ("Calibration", "Operating point", "How it was made", "Intended use")
"""Sections that a card lacks first where its length is limited."""

CARD_FILE = "model_card.md"  # artifact of the run: the whole card


def shortened(card: str, length: int) -> str:
    """Omits sections of a card, then lines of its longest one, to at most `length` characters.

    Its end names the sections, and the artifact with the whole card.
    """
    sections, omitted, end = re.split(r"(?m)^(?=## )", card), [], ""
    if len(card) <= length:
        return card
    for name in EXPENDABLE:
        omitted.append(name)
        end = f"\n\nThe artifact {CARD_FILE} of the run also has: {', '.join(omitted)}."
        sections = [each for each in sections if not each.startswith(f"## {name}\n")]
        if len("".join(sections)) + len(end) <= length:
            break
    over = len("".join(sections)) + len(end) - length
    if over > 0:
        longest = max(range(len(sections)), key=lambda place: len(sections[place]))
        mark = "\n- ...\n\n"
        kept = sections[longest][: -over - len(mark)].rpartition("\n")[0]
        sections[longest] = kept + mark
    return "".join(sections).rstrip() + end


def version_tags(facts: CardFacts) -> dict[str, str]:
    """Returns tags of a version: its identity, and `test_METRIC` with `_low` and `_high`."""
    bundle = facts.bundle
    weights = bundle.network.state_dict().values()
    tags = {
        "medtl.architecture": bundle.architecture,
        "medtl.weights": bundle.weights,
        "medtl.cutoff": bundle.cutoff,
        "medtl.data": bundle.fingerprint,
        "medtl.digest": digest_of(value.cpu().numpy() for value in weights),
        "medtl.classes": json.dumps(bundle.classes)[:1000],
    }
    if bundle.members:
        tags["medtl.members"] = str(bundle.members)
    if bundle.hidden:
        tags["medtl.hidden"] = str(bundle.hidden)
    if len(bundle.classes) == 2 and not bundle.multi_label:
        tags["medtl.positive"] = bundle.classes[1]
    if facts.below:
        tags[BELOW_TAG] = "; ".join(facts.below)
    for metric, interval in facts.scores.items():
        tags[f"test_{metric}"] = f"{interval.value:.4f}"
        tags[f"test_{metric}_low"] = f"{interval.low:.4f}"
        tags[f"test_{metric}_high"] = f"{interval.high:.4f}"
    return tags


def _opening(facts: CardFacts, model_name: str) -> str:
    bundle = facts.bundle
    any_number = ", of which an image has any number" if bundle.multi_label else ""
    return (
        f"# {plain(model_name)}\n\n{_headline(facts)}{NOT_FOR_DIAGNOSIS}\n\n## Intended use\n\n"
        "Research, teaching and comparison of methods. Given one image of the kind in the data "
        f"set {code(bundle.data)}, the model gives a probability to each of: "
        f"{', '.join(map(plain, bundle.classes))}{any_number}. It does so for every image, also "
        "for one that shows something else; `in_domain` says whether an image looks like those it "
        "was trained on."
    )


def _headline(facts: CardFacts) -> str:
    """Formats the first lines: scores, and the doubts about them."""
    shown = [
        f"{metric.label} {facts.scores[metric.name]}"
        for metric in overall_metrics(ordinal=True)
        if metric.name in HEADLINE and metric.name in facts.scores
    ]
    images = sum(split.images for split in facts.scored_splits())
    line = f"**{facts.scored}, {images} images:** {', '.join(shown)}.\n\n" if shown else ""
    doubts = [*facts.below, *(f"data report: {warning}" for warning in facts.warnings)]
    return line + "".join(f"**Warning:** {plain(each)}.\n\n" for each in doubts)


def _data(facts: CardFacts) -> str:
    splits = _listing(
        f"**{split.name}:** {split.images:,} images, patients {split.patients_text()}: "
        + ", ".join(
            f"{plain(name)} {split.per_class.get(name, 0):,}" for name in facts.bundle.classes
        )
        for split in facts.splits
    )
    notes = _listing(map(plain, facts.notes))
    record = (
        " The model carries hashes of the images and patients that it learned from, so that no "
        "gate compares it on them."
        if facts.bundle.seen
        else ""
    )
    return (
        f"## Data\n\n{code(facts.bundle.data)}, fingerprint `{facts.bundle.fingerprint}`. "
        f"{_patients(facts)} {_choice(facts)}{record}\n\n{splits}"
        + (f"\n\nNotes:\n\n{notes}" if notes else "")
    )


def _choice(facts: CardFacts) -> str:
    """Formats what chose the model, and what was scored."""
    if facts.out_of_fold:
        return (
            "Each member of the ensemble learned from a part of the folds. Each case was scored "
            "once, by the member that had not learned from it; the ensemble itself was not tested."
        )
    if facts.bundle.members:
        return (
            "Each member of the ensemble learned from a part of the folds, which chose everything; "
            "the test split was scored once, by the ensemble."
        )
    return "The validation split chose everything; the test split was scored once."


def _patients(facts: CardFacts) -> str:
    if not any(split.patients for split in facts.splits):
        return "Patients are unknown: images of one patient may be in two splits."
    return "No known patient is in two splits."


def _scores(facts: CardFacts) -> str:
    scores = _listing(
        f"**{plain(metric.label)} {interval.value:.3f}** ({_bounds(interval)}): "
        f"{plain(metric.meaning)}"
        for metric in overall_metrics(ordinal=True)
        if (interval := facts.scores.get(metric.name)) is not None
    )
    if facts.bundle.multi_label:
        averaged = (
            " Each measure is that of a finding, there or not, averaged over the findings, each "
            "counting equally. Where a finding is unknown, the image does not count for it."
        )
    elif len(facts.bundle.classes) > 2:
        averaged = (
            " Measures of single classes are averaged over the classes, each counting equally."
        )
    else:
        averaged = f" The class looked for is {code(facts.bundle.classes[-1])}."
    beside = _listing(map(plain, facts.baselines))
    against = (
        f"\n\nBaselines on the same splits, without fine-tuning:\n\n{beside}" if beside else ""
    )
    return (
        f"## {_scores_of(facts)}\n\nAn image is called by the model's `decision`. In brackets: "
        f"95 % intervals over {facts.unit}.{averaged}\n\n{scores}{against}"
    )


def _scores_of(facts: CardFacts) -> str:
    return "Out-of-fold scores" if facts.out_of_fold else "Scores on the test split"


def _operating_point(facts: CardFacts) -> str:
    bundle = facts.bundle
    thresholds = _listing(
        f"{plain(name)}: {value:.3f}"
        for name, value in zip(bundle.classes, bundle.thresholds, strict=True)
    )
    what = "class"
    if bundle.multi_label:
        rule = f"every finding from its threshold on, joined by |, or `{NO_FINDING}` for none"
        what = "finding, also where it is not in the decision"
    elif len(bundle.classes) > 2:
        rule = "the class whose probability is highest in proportion to its threshold"
    else:
        rule = f"{code(bundle.classes[-1])} from its threshold on"
    return (
        f"## Operating point\n\n`decision` is {rule}; `label` is simply the most probable {what}. "
        f"{_chosen(facts)}\n\n{thresholds}{_prediction_sets(bundle)}"
    )


def _prediction_sets(bundle: Predictor) -> str:
    """Formats what prediction sets promise, and how their thresholds were set; '' without sets."""
    if bundle.sets is None:
        return ""
    where = "of each class" if bundle.sets.by_class else "over all classes together"
    promise = (
        "for images of new patients from the same source, on average over draws of these patients"
        if bundle.sets.source == PART_OF_VALIDATION
        else "roughly: the thresholds are of the members, the sets of all members together"
    )
    thresholds = _listing(
        f"{plain(name)}: {value:.3f}"
        for name, value in zip(bundle.classes, bundle.sets.thresholds, strict=True)
    )
    return (
        "\n\n`prediction_set` has the most probable class, and every other whose probability "
        f"reaches its threshold below. At least {100 * bundle.sets.coverage:g} % of sets should "
        f"contain the right class, {where} (conformal prediction): {promise}. "
        f"{bundle.sets.words().capitalize()}.\n\n{thresholds}"
    )


def _chosen(facts: CardFacts) -> str:
    """Formats how the thresholds were chosen."""
    bundle, where = facts.bundle, facts.calibrated_on
    if not bundle.sensitivity:
        return (
            f"Each threshold was chosen on {where}, where sensitivity + specificity for its class "
            "is highest."
        )
    demanded = f"{100 * bundle.sensitivity:g} %"
    if bundle.multi_label:
        return (
            f"The threshold of a finding is the highest that finds at least {demanded} of the "
            f"images in {where} that have it."
        )
    if len(bundle.classes) == 2:
        return (
            f"The threshold is the highest that finds at least {demanded} of the images of "
            f"{code(bundle.classes[-1])} in {where}."
        )
    return (
        f"The threshold of a class is the highest that at least {demanded} of its images in "
        f"{where} reach. Where an image reaches those of several classes it is called one "
        "of them, so the sensitivity of `decision` can be lower."
    )


def _calibration(facts: CardFacts) -> str:
    ece = facts.scores.get("ece")
    of_all = " for all findings together" if facts.bundle.multi_label else ""
    where = "Out of fold" if facts.out_of_fold else "On the test split"
    gap = f" {where} the mean gap is {ece.value:.3f} ({_bounds(ece)})." if ece else ""
    return (
        "## Calibration\n\nProbabilities are scaled by one number, the temperature "
        f"{facts.bundle.temperature:.3f}, fitted on {facts.calibrated_on}{of_all}: of the images "
        f"that get 80 % for a class, about 80 % should be of it.{gap} Where classes are more or "
        "less frequent than in the data above, the probabilities are off."
    )


def _making(facts: CardFacts) -> str:
    bundle, dense = facts.bundle, ""
    if bundle.hidden:
        dense = f" A dense ReLU layer of {bundle.hidden} units is before the output layer."
    several = ""
    if bundle.members:
        several = f" It is an ensemble of {bundle.members} members: the mean of their logits."
    return (
        f"## How it was made\n\n{code(bundle.architecture)}, started from the weights "
        f"{code(bundle.weights)} and trained from the layer {code(bundle.cutoff)} on; all layers "
        f"before it stayed as they were.{dense}{several} Images are brought to "
        f"{bundle.image_size} x {bundle.image_size} pixels{_rendered(bundle)}."
        f"{_training(facts.training)}"
    )


def _rendered(bundle: Predictor) -> str:
    line = bundle.preprocessing.rendering.line
    return f" with {line}" if line else ""


def _training(values: Mapping[str, str]) -> str:
    """Formats the values that the training used as a list."""
    lines = _listing(f"{name.replace('_', ' ')}: {plain(value)}" for name, value in values.items())
    return f"\n\n{lines}" if lines else ""


def _limits(facts: CardFacts) -> str:
    lines = [
        *(f"{plain(line[:1].upper() + line[1:])}." for line in facts.below),
        f"The scores hold for images like those of {_tested(facts)}: other devices, sites, "
        "ages and protocols were not tested.",
        f"{_familiar(facts.bundle)}; true does not mean right, and "
        "false means that the answer should not be used.",
        "A heat map shows where the network looked, not that what it saw there is the finding."
        + (f" Checked: {plain(facts.maps)}." if facts.maps else ""),
    ]
    lines += [f"Data report: {plain(line)}." for line in facts.warnings]
    scored = facts.scored_splits()
    if any(split.unknown for split in facts.splits):
        lines.append(
            "Patients are not known for all images: images of one patient may be in two splits, "
            "which makes scores too good, and intervals too narrow."
        )
        size, what = sum(each.images for each in scored), "images"
    else:
        size, what = sum(each.patients for each in scored), "patients"
    if scored and size < FEW_PATIENTS:
        where = _tested(facts)
        lines.append(
            f"{where[0].upper()}{where[1:]} has only {size} {what}; mind the width of the "
            "intervals."
        )
    if facts.bundle.data.startswith("phantoms"):
        lines.append("Phantoms are drawn by a program: nothing here says anything about patients.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _tested(facts: CardFacts) -> str:
    return "the data set" if facts.out_of_fold else "the test split"


def _familiar(bundle: Predictor) -> str:
    """Formats the expected rate of flagged images of the intended kind."""
    if bundle.domain is None or bundle.domain.expected is None:
        return "`in_domain` is true for about 99 of 100 images like these"
    one_of = round(1 / bundle.domain.expected)
    share = f"`in_domain` is false for about 1 of {one_of} images like these"
    if bundle.domain.expected <= STRANGE_SHARE:
        return share
    return f"{share} (so few were there to set its limit by)"


def _bounds(interval: Interval) -> str:
    if math.isnan(interval.low):
        return "none: too few cases"
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _listing(lines: Iterable[str]) -> str:
    """Formats a list; MLflow shows the cells of a table without any space between them."""
    return "\n".join(f"- {line}" for line in lines)
