"""The trials that all sides run, in this order, and what comes back from them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trial:
    """One training: everything from `cutoff` on, by this optimizer and learning rate."""

    cutoff: str
    optimizer: str
    lr: float

    def __str__(self) -> str:
        return f"{self.cutoff:<14}{self.optimizer:<9}{self.lr:g}"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a trial: validation AUROC and seconds since its start, after each epoch."""

    scores: list[float]
    seconds: list[float]

    @property
    def best(self) -> float:
        """The best epoch's score."""
        return max(self.scores)

    @property
    def total(self) -> float:
        """Seconds of the whole trial."""
        return self.seconds[-1]


@dataclass(frozen=True)
class Found:
    """Outcome of a search that ends when it reaches a score."""

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
"""MobileNetV2: the first trial also makes what is kept, the second is the second of the head."""


LATE = TEN[:7]
"""Those that cut at features.11 or later."""


def many(trials: tuple[Trial, ...], count: int) -> list[Trial]:
    """`count` trials: the same ones again and again, each time with a tenth less learning rate."""
    return [
        Trial(trial.cutoff, trial.optimizer, trial.lr * 0.9**turn)
        for turn in range(-(-count // len(trials)))
        for trial in trials
    ][:count]
