"""The gate: whether a challenger takes over from the champion, from scores on the same cases."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from medtl.data.agreement import Agreement
from medtl.evaluation.intervals import Difference, Interval, mean_score
from medtl.evaluation.paired_test import paired_auroc_test
from medtl.evaluation.truth import asked
from medtl.tracking.looks import confidence_at

# Where cases had to be left out, fewer than these say nothing of what all of them would have said.
FEWEST_CASES = 20
# Of the labels that two data sets give to the images that both have, so many may differ: a few are
# corrected in every data set that is kept up. A single one may always.
DIFFERENT_LABELS = 0.05


@dataclass(frozen=True)
class Scores:
    """What a model says of N test cases, and which of them it has learned from."""

    probabilities: np.ndarray  # [N, K], calibrated
    seen: np.ndarray | None  # bool [N]; None where the model has no record of its training
    # of the labels it was taught with those it is judged by; None where it has no record of them
    agreement: Agreement | None = None


@dataclass(frozen=True)
class GateCases:
    """The test cases of a challenger, with its scores on them."""

    labels: np.ndarray  # int [N], index into classes; of findings int8 [N, K]
    patients: np.ndarray  # [N], any codes
    classes: tuple[str, ...]
    challenger: Scores
    codes: np.ndarray  # int64 [N], a hash of each case's images: the case, in any data set
    modalities: tuple[str, ...] = ()  # of cases of several images


@dataclass(frozen=True)
class Contest:
    """What two versions came to on the same cases."""

    cases: int
    left_out: int  # cases that one of them has learned from
    challenger_auroc: Interval
    champion_auroc: Interval
    difference: Difference  # challenger less champion; each bound holds at `asked`
    look: int  # which comparison on this test split it is
    asked: float  # the confidence that such a look is asked


@dataclass(frozen=True)
class Verdict:
    """Who is the champion now, and why, in one line."""

    version: int
    champion: int
    reason: str
    before: int | None = None  # the champion before
    contest: Contest | None = None  # None where nothing was measured

    @property
    def promoted(self) -> bool:
        """Whether the version that was judged is the champion."""
        return self.version == self.champion

    def record(self, model_name: str) -> dict[str, object]:
        """The verdict as JSON holds it; what was not measured is null."""
        facts = dataclasses.asdict(self)
        contest = facts.pop("contest") or {each.name: None for each in dataclasses.fields(Contest)}
        return {"model_name": model_name, "promoted": self.promoted, **facts, **contest}


def fair_cases(cases: GateCases, champion_scores: Scores) -> np.ndarray:
    """The cases (bool [N]) that neither of the two is known to have learned from."""
    return ~(_seen(cases.challenger) | _seen(champion_scores))


def refusal(version: int, champion: int, cases: GateCases, champion_scores: Scores) -> str:
    """Why the two cannot be compared on these cases; '' where they can.

    They are not where the champion was taught other labels: where of the labels that its data and
    the challenger's give to the images that both have more than one, and more than 5 %, differ. Nor
    are they where cases that one has learned from had to be left out, and fewer than 20 cases, or
    not all classes, remain.
    """
    agreement = champion_scores.agreement
    if agreement and agreement.differ > max(1, DIFFERENT_LABELS * agreement.labels):
        return (
            f"version {version} is not compared with the champion, version {champion}: of "
            f"{agreement.labels} labels of images that both their data have, {agreement.differ} "
            f"differ, so they answer different questions; give this data a model_name of its own"
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
    """The verdict of a one-sided test of the paired AUROC (`paired_auroc_test`), by groups.

    The challenger takes over when the lower bound of the difference, which is shown, is above 0.
    The bounds hold at what a look with that number is asked (`confidence_at`), so that over all
    looks at a test split a challenger that is no better takes over with a probability of at most
    `1 - confidence`. Cases that one of the two has learned from are left out. Of findings the AUROC
    is the mean over them.

    Args:
        version: the challenger.
        champion: the champion before the gate.
        cases: the challenger's test cases and its scores.
        champion_scores: the champion's on those same cases, in order.
        confidence: 0.5 to 1, over all looks.
        look: which comparison on this test split it is, from 1.
        seed: of the bootstrap intervals of the two AUROCs.
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
    """A confidence below 1 as a percentage with the digits that tell it from 100: `99.17 %`."""
    digits = 0 if level >= 1 else max(0, 1 - math.floor(math.log10(100 * (1 - level))))
    text = f"{100 * level:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def not_compared(
    version: int, champion: int, what: str, own: tuple[str, ...], of_champion: tuple[str, ...]
) -> Verdict:
    """The verdict where the two are of different `what` (classes, modalities, ...): no change."""
    reason = (
        f"version {version} ({', '.join(own) or 'single images'}) is not compared with the "
        f"champion, version {champion} ({', '.join(of_champion) or 'single images'}), because "
        f"their {what} differ; give these {what} a model_name of their own"
    )
    return Verdict(version, champion, reason, champion)


def _seen(scores: Scores) -> np.ndarray:
    """Which cases (bool [N]) the model is known to have learned from."""
    return np.zeros(len(scores.probabilities), bool) if scores.seen is None else scores.seen


def _lack(cases: GateCases, fair: np.ndarray) -> str:
    """Why the cases that are left are too few; '' where they are enough, or none was left out."""
    left = int(fair.sum())
    if left == len(fair):
        return ""
    gone = [
        name
        for index, name in enumerate(cases.classes)
        if asked(cases.labels, index)[1].any() and not asked(cases.labels[fair], index)[1].any()
    ]
    if left >= FEWEST_CASES and not gone:
        return ""
    without = f", none of {', '.join(gone)}" if gone else ""
    return f"of {len(fair)} test cases one has learned from all but {left}{without}"


def _measured(contest: Contest) -> str:
    """The difference with its bounds, on what, and what was asked of it."""
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
    """What could not be checked, as the end of a line."""
    without = [str(version) for version, scores in each.items() if scores.seen is None]
    if not without:
        return ""
    return (
        f"; whether version {' and version '.join(without)} learned from any of them could not be "
        "checked, it has no record of its training"
    )


def _labels_unchecked(champion: int, scores: Scores) -> str:
    """What could not be checked of the labels, as the end of a line."""
    if scores.agreement is not None:
        return ""
    return (
        f"; whether version {champion} was taught the same labels could not be checked, it has no "
        "record of them"
    )
