"""Trials that all sides run, and their results."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """A training from `cutoff` on, with an optimizer and a learning rate."""

    cutoff: str
    optimizer: str
    lr: float

    def __str__(self) -> str:
        return f"{self.cutoff:<14}{self.optimizer:<9}{self.lr:g}"


@dataclass(frozen=True)
class Outcome:
    """Result of a trial: validation AUROC and seconds since its start, after each epoch."""

    scores: list[float]
    seconds: list[float]

    @property
    def best(self) -> float:
        """Score of the best epoch."""
        return max(self.scores)

    @property
    def total(self) -> float:
        """Seconds of the whole trial."""
        return self.seconds[-1]


@dataclass(frozen=True)
class Found:
    """Result of a search that ends when it reaches a score."""

    seconds: float  # from the first file read
    best: float  # validation AUROC
    trials: int  # begun
    failed: int
    way: str  # the trial and epoch of the best score


NETWORK = {"architecture": "mobilenet_v2", "weights": "imagenet"}

TEN = (
    Trial("classifier", "adam", 1e-3),
    Trial("classifier", "sgd", 1e-2),
    Trial("features.18", "adam", 1e-3),
    Trial("features.17", "adam", 1e-3),
    Trial("features.17", "rmsprop", 1e-4),
    Trial("features.14", "adam", 1e-3),
    Trial("features.11", "adam", 1e-3),
    Trial("features.7", "adam", 1e-3),
    Trial("features.4", "adam", 1e-3),
    Trial("features.0", "adam", 1e-3),
)
"""Trials of MobileNetV2. The first one fills the cache; the second trains the head again."""


LATE = TEN[:7]
"""Trials with cut-offs at features.11 or later."""


def many(trials: tuple[Trial, ...], count: int) -> list[Trial]:
    """Repeats trials up to `count`, each round with 0.9 times the learning rate."""
    return [
        Trial(trial.cutoff, trial.optimizer, trial.lr * 0.9**turn)
        for turn in range(-(-count // len(trials)))
        for trial in trials
    ][:count]
