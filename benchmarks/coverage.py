"""Simulated coverage of the 95 % intervals, compared with percentile intervals.

Each patient has 1 to 5 images of one class and a random effect on the score. Scores are binormal
and probabilities are the corresponding posteriors; the true metrics come from a large sample. The
errors of a second model are correlated with those of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import click
import numpy as np
from scipy.special import expit, ndtri

from medtl.evaluation.confidence_intervals import Sampling, resamplings
from medtl.evaluation.jackknife import Difference, Estimate, difference
from medtl.evaluation.metrics import overall_metrics, scores
from medtl.evaluation.scored_cases import ScoredCases

RESAMPLES = 400  # of the percentile intervals, and of the calibration error
LARGE = 50_000  # patients of a sample for the true metrics
SAMPLES = 10
OF_PATIENT = 0.5  # share of the score's variance between patients


@dataclass(frozen=True)
class Population:
    """Distribution that cases are drawn from.

    Attributes:
        auroc: of the first model.
        better: of the second model.
        share: share of positive patients.
        shared: share of the score variance common to both models.
        sharper: factor on the logits, above 1 for overconfident models; 1 is calibrated.
    """

    auroc: float
    better: float
    share: float
    shared: float
    sharper: float

    def cases(self, patients: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Draws labels [N], two models' probabilities [N, 2] and the patient of each case [N]."""
        groups = np.repeat(np.arange(patients), random.integers(1, 6, size=patients))
        labels = (random.random(patients) < self.share).astype(int)[groups]

        def noise() -> np.ndarray:
            own = random.normal(size=len(groups))
            of_patient = random.normal(size=patients)[groups]
            return OF_PATIENT**0.5 * of_patient + (1 - OF_PATIENT) ** 0.5 * own

        common, found = noise(), []
        for auroc in (self.auroc, self.better):
            apart = 2**0.5 * ndtri(auroc)
            score = self.shared**0.5 * common + (1 - self.shared) ** 0.5 * noise()
            odds = apart * (score + apart * (labels - 0.5)) + np.log(self.share / (1 - self.share))
            positive = expit(self.sharper * np.clip(odds, -30, 30))
            found.append(np.stack([1 - positive, positive], axis=1))
        return labels, *found, groups

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the true metrics of the first model, and second less first: [10] each."""
        random, found = np.random.default_rng(2**20), []
        gaps = np.zeros((2, 15))
        for _ in range(SAMPLES):
            labels, *both, _ = self.cases(LARGE, random)
            ones, scored = np.ones((1, len(labels))), [ScoredCases.of(labels, p) for p in both]
            found.append([_metrics(each, ones)[0] for each in scored])
            gaps += [each.weighted(ones).calibration_gaps[0] / SAMPLES for each in scored]
        a, b = np.mean(found, axis=0)
        # random signs of the remaining gaps cancel over the samples
        place = [each.name for each in overall_metrics()].index("ece")
        a[place], b[place] = np.abs(gaps).sum(axis=1)
        return a, b - a


@click.command()
@click.option("--patients", "counts", multiple=True, default=(30, 60), help="may be repeated")
@click.option("--auroc", default=0.87, show_default=True, help="of the model")
@click.option("--better", default=0.0, help="AUROC of the second model; 0 as the first")
@click.option("--share", default=0.5, show_default=True, help="share of positive patients")
@click.option("--shared", default=0.7, show_default=True, help="correlation of the models' errors")
@click.option("--sharper", default=1.0, show_default=True, help="factor on the logits")
@click.option("--trials", default=200, show_default=True, help="test splits drawn")
@click.option("--seed", default=1, show_default=True)
def coverage(
    counts: tuple[int, ...],
    auroc: float,
    better: float,
    share: float,
    shared: float,
    sharper: float,
    trials: int,
    seed: int,
) -> None:
    """Simulates the coverage of the 95 % intervals and of percentile intervals.

    Prints one row per metric: coverage in per cent for the score and for the difference to a
    second model, and in brackets the share of intervals above and below the true value.
    """
    population = Population(auroc, better or auroc, share, shared, sharper)
    for line in simulate(population, counts, trials, seed):
        print(line, flush=True)


def simulate(
    population: Population, counts: tuple[int, ...], trials: int, seed: int
) -> Iterator[str]:
    """Yields the lines of the table: one row per metric for each number of patients."""
    truth = population.truth()
    for patients in counts:
        missed = _missed(population, patients, truth, trials, seed)
        yield f"{patients} patients".ljust(18) + "".join(f"{' '.join(of):>24}" for of in missed)
        for place, metric in enumerate(overall_metrics()):
            shares = [100 * each[:, place] for each in missed.values()]
            cells = [f"{100 - sum(each):.1f} ({each[0]:.1f}, {each[1]:.1f})" for each in shares]
            yield f"{metric.name:<18}" + "".join(f"{cell:>24}" for cell in cells)


def _missed(
    population: Population, patients: int, truth: tuple[np.ndarray, ...], trials: int, seed: int
) -> dict[tuple[str, str], np.ndarray]:
    """Returns the shares of intervals above and below the truth, [2, 10], by quantity and kind."""
    random = np.random.default_rng(seed)
    missed = {
        (of, kind): np.zeros((2, len(overall_metrics())))
        for of in ("score", "difference")
        for kind in ("percentile", "medtl")
    }
    for trial in range(trials):
        while True:
            labels, first, second, groups = population.cases(patients, random)
            if 0 < labels.sum() < len(labels):
                break
        models = [ScoredCases.of(labels, each) for each in (first, second)]
        found = {
            "percentile": _percentile(models, groups, trial),
            "medtl": _ours(models, labels, groups, trial),
        }
        for kind, both in found.items():
            for of, bounds, true in zip(("score", "difference"), both, truth, strict=True):
                low, high = bounds
                missed[of, kind] += np.stack([low > true, high < true]) / trials
    return missed


def _percentile(models: list[ScoredCases], groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """Computes percentile bounds [2, 10] of the first model and of the difference."""
    draws = [
        np.concatenate(each)
        for each in zip(
            *(
                [_metrics(model, weights) for model in models]
                for weights in resamplings(groups, seed, RESAMPLES)
            ),
            strict=True,
        )
    ]
    return [np.nanpercentile(each, [2.5, 97.5], axis=0) for each in (draws[0], draws[1] - draws[0])]


def _ours(
    models: list[ScoredCases], labels: np.ndarray, groups: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Computes the same bounds with `measure` and `paired_difference`."""
    sampling = Sampling.of(labels, groups, 2, seed, RESAMPLES)
    estimates: list[list[Estimate]] = []
    for model in models:
        columns = sampling.table(partial(_metrics, model)).T
        estimates.append(
            [
                sampling.overall(metric, column, [model])
                for metric, column in zip(overall_metrics(), columns, strict=True)
            ]
        )
    own = [each.interval for each in estimates[0]]
    between: list[Difference] = [difference(a, b) for a, b in zip(*estimates, strict=True)]
    return [
        np.array([[each.low for each in of], [each.high for each in of]]) for of in (own, between)
    ]


def _metrics(model: ScoredCases, weights: np.ndarray) -> np.ndarray:
    """Returns the overall metrics under weights [R, N]: [R, 10]."""
    return np.column_stack(list(scores(model, weights).values()))
