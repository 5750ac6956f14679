"""The gate by simulation: how often it errs, in one look and in a series, and what it finds.

The scores are binormal (an image's score is its label's mean, and noise), so that the true AUROC is
known: of a champion `AUROC`. Part of the noise is a patient's, part is the same for all models,
which look at the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

import click
import numpy as np
from scipy import stats

from medtl.evaluation.paired_test import PairedTest, paired_auroc_test
from medtl.tracking.looks import confidence_at

AUROC = 0.87
MOST_IMAGES = 5  # of a patient
OF_PATIENT = 0.5  # of the variance, that all images of a patient share
SHARED = 0.7  # of the variance, that all models share
GAINS = (0.02, 0.05, 0.10)  # of a better challenger
LOOKS = (1, 5, 20)


@dataclass(frozen=True)
class Cases:
    """A drawn test split: `labels` [N], of two classes, and `patients` [N]; `shared` noise [N]."""

    labels: np.ndarray
    patients: np.ndarray
    shared: np.ndarray

    @classmethod
    def drawn(cls, patients: int, random: np.random.Generator) -> Cases:
        """One to five images of each patient, every second of which is ill."""
        places = np.repeat(np.arange(patients), random.integers(1, MOST_IMAGES + 1, patients))
        return cls(places % 2, places, _noise(places, random))

    def scored(self, auroc: float, random: np.random.Generator) -> np.ndarray:
        """What a model of that true AUROC says of them: [N, 2], ranked as probabilities are."""
        mean = np.sqrt(2) * stats.norm.ppf(auroc)
        noise = np.sqrt(SHARED) * self.shared
        noise += np.sqrt(1 - SHARED) * _noise(self.patients, random)
        score = mean * self.labels + noise
        return np.stack([-score, score], axis=1)

    def test(self, champion: np.ndarray, challenger: np.ndarray) -> PairedTest:
        """The gate's test of two models' scores."""
        return paired_auroc_test(self.labels, champion, challenger, self.patients)

    def auroc(self, scores: np.ndarray) -> float:
        """The AUROC of a model on these cases."""
        constant = np.zeros_like(scores)  # of AUROC 0.5
        return 0.5 + self.test(constant, scores).value


@dataclass(frozen=True)
class Series:
    """Equal challengers, one after the other, on one test split.

    Attributes:
        single: whether the first challenger takes over, where its look is the only one.
        promoted: how many took over, with all looks accounted for.
        uncounted: how many took over where each look is asked what a single one would be.
        flattery: by how much the last champion's AUROC on the test split is above the truth.
        flattery_uncounted: the same where looks are not counted.
    """

    single: bool
    promoted: int
    uncounted: int
    flattery: float
    flattery_uncounted: float


def series(patients: int, looks: int, confidence: float, random: np.random.Generator) -> Series:
    """Draws a test split and models of equal AUROC, and lets them meet at the gate."""
    cases = Cases.drawn(patients, random)
    first = cases.scored(AUROC, random)
    counted = uncounted = first
    promoted = promoted_uncounted = 0
    single = False
    for look in range(1, looks + 1):
        challenger = cases.scored(AUROC, random)
        test = cases.test(counted, challenger)
        beside = test if uncounted is counted else cases.test(uncounted, challenger)
        single = single or (look == 1 and test.confidence > confidence)
        if test.confidence > confidence_at(look, confidence):
            counted, promoted = challenger, promoted + 1
        if beside.confidence > confidence:
            uncounted, promoted_uncounted = challenger, promoted_uncounted + 1
    ends = (cases.auroc(counted) - AUROC, cases.auroc(uncounted) - AUROC)
    return Series(single, promoted, promoted_uncounted, *ends)


def power(
    patients: int, gain: float, confidence: float, trials: int, random: np.random.Generator
) -> np.ndarray:
    """How often a challenger that is better by `gain` takes over, at each of `LOOKS`."""
    asked = np.array([confidence_at(look, confidence) for look in LOOKS])
    won = np.zeros(len(LOOKS))
    for _ in range(trials):
        cases = Cases.drawn(patients, random)
        models = (cases.scored(auroc, random) for auroc in (AUROC, AUROC + gain))
        won += cases.test(*models).confidence > asked
    return won / trials


def _noise(patients: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise of variance 1, part of which is a patient's: [N]."""
    own = random.normal(size=patients.max() + 1)[patients]
    return np.sqrt(OF_PATIENT) * own + np.sqrt(1 - OF_PATIENT) * random.normal(size=len(patients))


@click.command()
@click.option("--patients", default="30,60,150", help="comma list; each has 1 to 5 images")
@click.option("--looks", default=20, help="equal challengers in a row")
@click.option("--trials", default=1000, help="series a row; as many challengers for the power")
@click.option("--confidence", default=0.95, help="as the gate's")
@click.option("--seed", default=0)
def gate(patients: str, looks: int, trials: int, confidence: float, seed: int) -> None:
    """The gate's errors and its power by simulation, with looks counted and without."""
    random = np.random.default_rng(seed)
    sizes = [int(each) for each in patients.split(",")]
    print(f"equal challengers, AUROC {AUROC}, confidence {confidence}, {trials} series")
    print(f"{'':>8}{'one look':>10}{f'one of {looks} takes over':>24}{'champion flattered by':>28}")
    counts = f"{'uncounted':>12}{'counted':>12}"
    print(f"{'patients':>8}{'alone':>10}{counts}    {counts}")
    for size in sizes:
        found = [series(size, looks, confidence, random) for _ in range(trials)]
        print(
            f"{size:>8}{100 * np.mean([each.single for each in found]):>8.1f} %"
            f"{100 * np.mean([each.uncounted > 0 for each in found]):>10.1f} %"
            f"{100 * np.mean([each.promoted > 0 for each in found]):>10.1f} %"
            f"{np.mean([each.flattery_uncounted for each in found]):>+16.4f}"
            f"{np.mean([each.flattery for each in found]):>+12.4f}",
            flush=True,
        )
    print(f"\na challenger that is better takes over, at look {', '.join(map(str, LOOKS))}")
    print(f"{'patients':>8}" + "".join(f"{f'+{gain:.2f}':>24}" for gain in GAINS))
    for size in sizes:
        rows = [power(size, gain, confidence, trials, random) for gain in GAINS]
        cells = ["  ".join(f"{100 * share:4.1f} %" for share in row) for row in rows]
        print(f"{size:>8}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
