"""The gate: whether a challenger takes over from the champion, from scores on the same cases."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.intervals import Difference, paired_difference


@dataclass(frozen=True)
class GateCases:
    """The test cases of a challenger, with its scores on them."""

    labels: np.ndarray  # int [N], index into classes
    patients: np.ndarray  # [N], any codes
    classes: tuple[str, ...]
    probabilities: np.ndarray  # [N, K], the challenger's


@dataclass(frozen=True)
class Verdict:
    """Who is the champion now, and why, in one line."""

    version: int
    champion: int
    reason: str
    difference: Difference | None = None  # challenger less champion; None where none was measured

    @property
    def promoted(self) -> bool:
        """Whether the version that was judged is the champion."""
        return self.version == self.champion

    def record(self, model_name: str) -> dict[str, object]:
        """The verdict as JSON holds it."""
        return {"model_name": model_name, "promoted": self.promoted, **dataclasses.asdict(self)}


def compared(
    version: int,
    champion: int,
    cases: GateCases,
    champion_probabilities: np.ndarray,
    confidence: float,
    seed: int,
) -> Verdict:
    """The verdict of a paired bootstrap over patients (`paired_difference`) on AUROC.

    The challenger takes over when its AUROC is higher, and is higher in at least the share
    `confidence` of resamples. That rule is ours.

    Args:
        version: the challenger.
        champion: the champion before the gate.
        cases: the challenger's test cases and its scores.
        champion_probabilities: [N, K], the champion's on those same cases, in order.
        confidence: 0.5 to 1.
        seed: of the bootstrap.
    """
    difference = paired_difference(
        cases.labels, champion_probabilities, cases.probabilities, cases.patients, "auroc", seed
    )
    better = difference.value > 0 and difference.confidence >= confidence
    reason = (
        f"version {version} {'takes over from' if better else 'does not take over from'} "
        f"version {champion}: AUROC {difference.value:+.4f} "
        f"({difference.low:+.4f} to {difference.high:+.4f}) on the same {len(cases.labels)} cases, "
        f"higher with confidence {difference.confidence:.3f} where {confidence:.3f} is asked"
    )
    return Verdict(version, version if better else champion, reason, difference)


def not_compared(
    version: int, champion: int, classes: tuple[str, ...], champion_classes: tuple[str, ...]
) -> Verdict:
    """The verdict where the two tell different classes apart: the champion stays."""
    reason = (
        f"version {version} ({', '.join(classes)}) is not compared with the champion, "
        f"version {champion} ({', '.join(champion_classes)}), because their classes differ; "
        "give these classes a model_name of their own"
    )
    return Verdict(version, champion, reason)
