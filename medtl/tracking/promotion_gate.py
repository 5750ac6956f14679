"""Promotion gate: comparison of a challenger with the champion on the same test cases."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.confidence_intervals import mean_score
from medtl.evaluation.delong import paired_auroc_test
from medtl.evaluation.jackknife import Difference, Interval
from medtl.evaluation.scored_cases import labelled_cases
from medtl.inference.label_record import Agreement
from medtl.tracking.alpha_spending import confidence_at

FEWEST_CASES = 20  # fewer are not compared if cases had to be left out
# Largest share of differing labels on common images: maintained data sets get a few corrections. A
# single difference is always allowed.
DIFFERENT_LABELS = 0.05


@dataclass(frozen=True)
class Scores:
    """Scores of a model on N test cases, and which of them are in its training record."""

    probabilities: np.ndarray  # [N, K], calibrated
    seen: np.ndarray | None  # bool [N]; None where the model has no record of its training
    # of its training labels with the labels of the test cases; None without a record
    agreement: Agreement | None = None


@dataclass(frozen=True)
class GateCases:
    """The test cases of a challenger, with its scores on them."""

    labels: np.ndarray  # int [N], index into classes; of findings int8 [N, K]
    patients: np.ndarray  # [N], any codes
    classes: tuple[str, ...]
    challenger: Scores
    codes: np.ndarray  # int64 [N], a hash of each case's images, equal across data sets
    modalities: tuple[str, ...] = ()  # of cases of several images


@dataclass(frozen=True)
class Contest:
    """Comparison of two versions on the same cases."""

    cases: int
    left_out: int  # cases that one of them has learned from
    challenger_auroc: Interval
    champion_auroc: Interval
    difference: Difference  # challenger less champion, with bounds at `labelled_cases`
    look: int  # number of this comparison on the test split
    asked: float  # required confidence of this look


@dataclass(frozen=True)
class Verdict:
    """Champion after the gate, and the reason, in one line."""

    version: int
    champion: int
    reason: str
    before: int | None = None  # the champion before
    contest: Contest | None = None  # None where nothing was measured

    @property
    def promoted(self) -> bool:
        """True if the tested version is the champion."""
        return self.version == self.champion

    def record(self, model_name: str) -> dict[str, object]:
        """Returns the verdict as JSON holds it; what was not measured is null."""
        facts = dataclasses.asdict(self)
        contest = facts.pop("contest") or {each.name: None for each in dataclasses.fields(Contest)}
        return {"model_name": model_name, "promoted": self.promoted, **facts, **contest}


def fair_cases(cases: GateCases, champion_scores: Scores) -> np.ndarray:
    """Returns the cases (bool [N]) that are in neither model's training record."""
    return ~(_seen(cases.challenger) | _seen(champion_scores))


def refusal(version: int, champion: int, cases: GateCases, champion_scores: Scores) -> str:
    """Returns the reason against a comparison on these cases; '' if it is possible.

    The champion must have been trained on the same labels: of the labels of images common to both
    data sets, at most one, or 5 %, may differ. If cases in a training record are left out, at least
    20 cases and all classes must remain.
    """
    agreement = champion_scores.agreement
    if agreement and agreement.differ > max(1, DIFFERENT_LABELS * agreement.labels):
        return (
            f"version {version} is not compared with the champion, version {champion}: of "
            f"{agreement.labels} labels of images common to both data sets {agreement.differ} "
            "differ, so their questions differ; set a separate model_name for this data"
        )
    lack = _lack(cases, fair_cases(cases, champion_scores))
    return _too_few(version, champion, lack) if lack else ""


def compared(
    version: int,
    champion: int,
    cases: GateCases,
    champion_scores: Scores,
    confidence: float,
    look: int,
    seed: int,
) -> Verdict:
    """Compares both by a one-sided clustered test of the paired AUROC (`paired_auroc_test`).

    The challenger is promoted if the lower bound of the difference is above 0. The level of the
    bounds depends on the number of the look (`confidence_at`), so that over all looks at a test
    split a challenger that is no better is promoted with a probability of at most
    `1 - confidence`. Cases in either training record are left out. For findings the AUROC is their
    mean.

    Args:
        version: version of the challenger.
        champion: version of the current champion.
        cases: the challenger's test cases and its scores.
        champion_scores: the champion's scores on the same cases, in order.
        confidence: 0.5 to 1, over all looks.
        look: number of this comparison on the test split, from 1.
        seed: seed of the intervals of the two AUROCs.
    """
    fair = fair_cases(cases, champion_scores)
    labels, patients = cases.labels[fair], cases.patients[fair]
    of_champion = champion_scores.probabilities[fair]
    of_challenger = cases.challenger.probabilities[fair]
    level = confidence_at(look, confidence)
    test = paired_auroc_test(labels, of_champion, of_challenger, patients)
    contest = Contest(
        cases=len(labels),
        left_out=int((~fair).sum()),
        challenger_auroc=mean_score(labels, [of_challenger], patients, "auroc", seed),
        champion_auroc=mean_score(labels, [of_champion], patients, "auroc", seed),
        difference=test.difference(level),
        look=look,
        asked=level,
    )
    better = contest.difference.low > 0
    reason = (
        f"version {version} {'takes over from' if better else 'does not take over from'} "
        f"version {champion}: {_measured(contest)}"
        f"{_unchecked({version: cases.challenger, champion: champion_scores})}"
        f"{_labels_unchecked(champion, champion_scores)}"
    )
    return Verdict(version, version if better else champion, reason, champion, contest)


def percent(level: float) -> str:
    """Formats a confidence below 1 as a percentage below 100, as in `99.17 %`."""
    digits = 0 if level >= 1 else max(0, 1 - math.floor(math.log10(100 * (1 - level))))
    text = f"{100 * level:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def not_compared(
    version: int, champion: int, what: str, own: tuple[str, ...], of_champion: tuple[str, ...]
) -> Verdict:
    """Returns the verdict, no change, on models that differ in `what` (classes, modalities ...)."""
    reason = (
        f"version {version} ({', '.join(own) or 'single images'}) is not compared with the "
        f"champion, version {champion} ({', '.join(of_champion) or 'single images'}), because "
        f"their {what} differ; give these {what} a model_name of their own"
    )
    return Verdict(version, champion, reason, champion)


def _seen(scores: Scores) -> np.ndarray:
    """Flags the cases (bool [N]) in the model's training record."""
    return np.zeros(len(scores.probabilities), bool) if scores.seen is None else scores.seen


def _lack(cases: GateCases, fair: np.ndarray) -> str:
    """Formats why the remaining cases are too few; '' for enough, or if none was left out."""
    left = int(fair.sum())
    if left == len(fair):
        return ""
    gone = [
        name
        for index, name in enumerate(cases.classes)
        if labelled_cases(cases.labels, index)[1].any()
        and not labelled_cases(cases.labels[fair], index)[1].any()
    ]
    if left >= FEWEST_CASES and not gone:
        return ""
    without = f", none of {', '.join(gone)}" if gone else ""
    return f"of {len(fair)} test cases one has learned from all but {left}{without}"


def _measured(contest: Contest) -> str:
    """Formats the difference with its bounds, the cases and the required level."""
    found, level = contest.difference, percent(contest.asked)
    left_out = f" ({contest.left_out} that one has learned from left out)"
    return (
        f"AUROC {found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f}, each bound at {level}) "
        f"on the same {contest.cases} cases{left_out if contest.left_out else ''}; look "
        f"{contest.look} at this test split: the lower bound at {level} must be above 0"
    )


def _too_few(version: int, champion: int, lack: str) -> str:
    return (
        f"version {version} is not compared with the champion, version {champion}: {lack}, and "
        f"at least {FEWEST_CASES}, of all classes, are needed; test on cases that neither knows, "
        "or promote a version by hand"
    )


def _unchecked(each: dict[int, Scores]) -> str:
    """Formats the end of a line on omitted checks."""
    without = [str(version) for version, scores in each.items() if scores.seen is None]
    if not without:
        return ""
    return (
        f"; whether version {' and version '.join(without)} learned from any of them could not be "
        "checked, it has no record of its training"
    )


def _labels_unchecked(champion: int, scores: Scores) -> str:
    """Formats the end of a line on an unchecked agreement of labels."""
    if scores.agreement is not None:
        return ""
    return (
        f"; whether version {champion} was taught the same labels could not be checked, it has no "
        "record of them"
    )
