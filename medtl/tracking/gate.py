"""The gate: whether a challenger takes over from the champion, from scores on the same cases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.intervals import Difference, Interval, mean_score, paired_difference
from medtl.evaluation.truth import asked

# Where cases had to be left out, fewer than these say nothing of what all of them would have said.
FEWEST_CASES = 20


@dataclass(frozen=True)
class Scores:
    """What a model says of N test cases, and which of them it has learned from."""

    probabilities: np.ndarray  # [N, K], calibrated
    seen: np.ndarray | None  # bool [N]; None where the model has no record of its training


@dataclass(frozen=True)
class GateCases:
    """The test cases of a challenger, with its scores on them."""

    labels: np.ndarray  # int [N], index into classes; of findings int8 [N, K]
    patients: np.ndarray  # [N], any codes
    classes: tuple[str, ...]
    challenger: Scores
    modalities: tuple[str, ...] = ()  # of cases of several images


@dataclass(frozen=True)
class Contest:
    """What two versions came to on the same cases."""

    cases: int
    left_out: int  # cases that one of them has learned from
    challenger_auroc: Interval
    champion_auroc: Interval
    difference: Difference  # challenger less champion


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


def compared(
    version: int,
    champion: int,
    cases: GateCases,
    champion_scores: Scores,
    confidence: float,
    seed: int,
) -> Verdict:
    """The verdict of a paired bootstrap over patients (`paired_difference`) on AUROC.

    Cases that one of the two has learned from are left out. The challenger takes over when its
    AUROC is higher, and is higher in at least the share `confidence` of resamples. That rule is
    ours. Where cases were left out and fewer than 20, or not all classes, remain, the champion
    stays. Of findings the AUROC is the mean over them.

    Args:
        version: the challenger.
        champion: the champion before the gate.
        cases: the challenger's test cases and its scores.
        champion_scores: the champion's on those same cases, in order.
        confidence: 0.5 to 1.
        seed: of the bootstrap.
    """
    fair = ~(_seen(cases.challenger) | _seen(champion_scores))
    lack = _lack(cases, fair)
    if lack:
        return Verdict(version, champion, _too_few(version, champion, lack), champion)
    labels, patients = cases.labels[fair], cases.patients[fair]
    of_champion = champion_scores.probabilities[fair]
    of_challenger = cases.challenger.probabilities[fair]
    difference = paired_difference(labels, of_champion, of_challenger, patients, "auroc", seed)
    contest = Contest(
        cases=len(labels),
        left_out=int((~fair).sum()),
        challenger_auroc=mean_score(labels, [of_challenger], patients, "auroc", seed),
        champion_auroc=mean_score(labels, [of_champion], patients, "auroc", seed),
        difference=difference,
    )
    better = difference.value > 0 and difference.confidence >= confidence
    left_out = f" ({contest.left_out} that one has learned from left out)"
    reason = (
        f"version {version} {'takes over from' if better else 'does not take over from'} "
        f"version {champion}: AUROC {difference.value:+.4f} "
        f"({difference.low:+.4f} to {difference.high:+.4f}) on the same {contest.cases} cases"
        f"{left_out if contest.left_out else ''}, "
        f"higher with confidence {difference.confidence:.3f} where {confidence:.3f} is asked"
        f"{_unchecked({version: cases.challenger, champion: champion_scores})}"
    )
    return Verdict(version, version if better else champion, reason, champion, contest)


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
