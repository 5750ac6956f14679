"""Settings of a search."""

from __future__ import annotations

from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.execution import LOCAL, RAY, ClusterSettings
from medtl.settings.fields import NETWORK, RECORD, comma_list, option
from medtl.settings.training import OPTIMIZERS, ModelSettings


@dataclass(frozen=True)
class TuneSettings(ClusterSettings, ModelSettings):
    """A search over architecture, cut-off, optimizer and learning rate."""

    architecture: str = option(
        "auto",
        "an architecture, or a comma list to choose among; auto chooses for the data",
        changes_result=True,
        decides=NETWORK,
    )
    weights: str = option(
        "auto",
        "weights as in train, or a comma list to choose among; each starts the architectures that "
        "it fits",
        changes_result=True,
        decides=NETWORK,
        place=True,
    )
    trials: int = option(
        12, "trials of the whole study, those of earlier runs counted", low=1, changes_result=False
    )
    timeout: float = option(
        0.0, "seconds after which no trial is begun; 0 for none", low=0.0, changes_result=False
    )
    cutoffs: str = option(
        "blocks", "blocks, layers, or a comma list of layers", changes_result=True
    )
    optimizers: str = option(
        "adam,sgd,rmsprop", "comma list of optimizers to search", changes_result=True
    )
    lr_low: float = option(
        1e-4, "lowest learning rate searched", low=1e-8, high=10.0, changes_result=True
    )
    lr_high: float = option(
        1e-2, "highest learning rate searched", low=1e-8, high=10.0, changes_result=True
    )
    pruner: str = option(
        "median",
        "stops trials that fall behind",
        choices=("median", "hyperband", "none"),
        changes_result=True,
    )
    study: str = option(
        "",
        "name of the study to resume or join; empty names a new one",
        changes_result=True,
        decides=RECORD,
    )
    storage: str = option(
        "", "Optuna storage URL; empty for the embedded one", changes_result=True, decides=RECORD
    )
    confidence: float = option(
        0.95,
        "confidence of the gate, over all looks",
        low=0.5,
        high=1.0,
        changes_result=True,
        decides=RECORD,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coverage and self.folds:
            allowed = "0 with folds, whose cases choose the trial: train the best one with folds"
            raise ParameterError("coverage", self.coverage, allowed)
        for name in self.optimizer_names:
            if name not in OPTIMIZERS:
                raise ParameterError("optimizers", name, f"a comma list of {', '.join(OPTIMIZERS)}")
        if self.lr_low > self.lr_high:
            raise ParameterError("lr_low", self.lr_low, f"at most lr_high={self.lr_high}")
        if self.cutoffs not in ("blocks", "layers"):
            comma_list("cutoffs", self.cutoffs)
        on_postgresql = self.storage.startswith(("postgresql", "postgres:"))
        if on_postgresql and self.storage.partition("?")[0].count("@") > 1:
            raise ParameterError("storage", self.storage, "a URL; an @ in a password is %40 there")
        if self.storage:
            _check_url(self.storage)
        if self.workers > 1 and self.executor == LOCAL and not on_postgresql:
            raise ParameterError(
                "workers",
                self.workers,
                "1 with SQLite; several need storage=postgresql://USER@HOST/DATABASE, or "
                "executor=ray",
            )

        if self.folds:
            self._check_folds()

    def _check_folds(self) -> None:
        wrong = {
            "holdout": (not self.holdout, "above 0: the folds choose, and test what is chosen"),
            "pruner": (self.pruner == "hyperband", "median or none with folds"),
            "executor": (self.executor == RAY, "local with folds"),
            "weights": (self.searches_weights, "one source with folds"),
        }
        for name, (is_wrong, allowed) in wrong.items():
            if is_wrong:
                raise ParameterError(name, getattr(self, name), allowed)

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures to search, one where it is not searched."""
        return comma_list("architecture", self.architecture)

    @property
    def sources(self) -> tuple[str, ...]:
        """The weights to search, one where they are not searched."""
        return comma_list("weights", self.weights)

    @property
    def searches_architecture(self) -> bool:
        """True if several architectures are searched."""
        return len(self.architectures) > 1

    @property
    def searches_weights(self) -> bool:
        """True if several weights are searched."""
        return len(self.sources) > 1

    @property
    def optimizer_names(self) -> tuple[str, ...]:
        """The optimizers to search."""
        return comma_list("optimizers", self.optimizers)


def _check_url(storage: str) -> None:
    # imported on demand, so that `--help` is fast
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(storage)
    except (ArgumentError, ValueError) as error:
        allowed = "a URL like postgresql://USER@HOST/DATABASE or sqlite:///FILE"
        raise ParameterError("storage", storage, allowed) from error
