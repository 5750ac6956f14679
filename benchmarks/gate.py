"""Simulated type I error (single look and series) and power of the promotion gate.

Scores are binormal (the mean of the label plus noise), so the true AUROC is known; a champion's is
`AUROC`. Part of the noise is shared by a patient's images, part by all models.
"""

from __future__ import annotations

from dataclasses import dataclass

import click
import numpy as np
from scipy import stats

from medtl.evaluation.delong import PairedTest, paired_auroc_test
from medtl.tracking.alpha_spending import confidence_at

AUROC = 0.87
MOST_IMAGES = 5  # per patient
OF_PATIENT = 0.5  # share of the variance common to a patient's images
SHARED = 0.7  # share of the variance common to all models
GAINS = (0.02, 0.05, 0.10)  # AUROC gains of a better challenger
LOOKS = (1, 5, 20)


@dataclass(frozen=True)
class Cases:
    """Simulated test split: binary `labels` [N], `patients` [N] and `shared` noise [N]."""

    labels: np.ndarray
    patients: np.ndarray
    shared: np.ndarray

    @classmethod
    def drawn(cls, patients: int, random: np.random.Generator) -> Cases:
        """Draws one to five images per patient; every second patient is positive."""
        places = np.repeat(np.arange(patients), random.integers(1, MOST_IMAGES + 1, patients))
        return cls(places % 2, places, _noise(places, random))

    def scored(self, auroc: float, random: np.random.Generator) -> np.ndarray:
        """Draws the scores [N, 2] of a model with this true AUROC."""
        mean = np.sqrt(2) * stats.norm.ppf(auroc)
        noise = np.sqrt(SHARED) * self.shared
        noise += np.sqrt(1 - SHARED) * _noise(self.patients, random)
        score = mean * self.labels + noise
        return np.stack([-score, score], axis=1)

    def test(self, champion: np.ndarray, challenger: np.ndarray) -> PairedTest:
        """Applies the gate's test to two models' scores."""
        return paired_auroc_test(self.labels, champion, challenger, self.patients)

    def auroc(self, scores: np.ndarray) -> float:
        """Returns the AUROC of a model on these cases."""
        constant = np.zeros_like(scores)  # of AUROC 0.5
        return 0.5 + self.test(constant, scores).value


@dataclass(frozen=True)
class Series:
    """Outcome of a series of equal challengers on one test split.

    Attributes:
        single: promotion of the first challenger at the level of a single look.
        promoted: number of promotions, with looks counted.
        uncounted: number of promotions, with every look at the level of a single one.
        flattery: optimism of the last champion: its test AUROC less the true one.
        flattery_uncounted: the same with looks not counted.
    """

    single: bool
    promoted: int
    uncounted: int
    flattery: float
    flattery_uncounted: float


def series(patients: int, looks: int, confidence: float, random: np.random.Generator) -> Series:
    """Draws a test split and models of equal AUROC, and passes them through the gate."""
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
    """Estimates the promotion rate of a challenger better by `gain`, at each of `LOOKS`."""
    asked = np.array([confidence_at(look, confidence) for look in LOOKS])
    won = np.zeros(len(LOOKS))
    for _ in range(trials):
        cases = Cases.drawn(patients, random)
        models = (cases.scored(auroc, random) for auroc in (AUROC, AUROC + gain))
        won += cases.test(*models).confidence > asked
    return won / trials


def _noise(patients: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws noise [N] of variance 1, part of it common to a patient's images."""
    own = random.normal(size=patients.max() + 1)[patients]
    return np.sqrt(OF_PATIENT) * own + np.sqrt(1 - OF_PATIENT) * random.normal(size=len(patients))


@click.command()
@click.option("--patients", default="30,60,150", help="comma list; each has 1 to 5 images")
@click.option("--looks", default=20, help="equal challengers in a row")
@click.option("--trials", default=1000, help="simulated series per row, and challengers for power")
@click.option("--confidence", default=0.95, help="as the gate's")
@click.option("--seed", default=0)
def gate(patients: str, looks: int, trials: int, confidence: float, seed: int) -> None:
    """Simulates the gate's type I error and power, with and without counted looks."""
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
