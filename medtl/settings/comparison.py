"""Settings of studies: cells that are trained and compared."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pkgutil import iter_modules

from medtl.errors import ParameterError
from medtl.settings.execution import LOCAL, RAY, ClusterSettings
from medtl.settings.fields import NETWORK, RECORD, check_number, comma_list, option
from medtl.settings.training import (
    CLASSIFIERS,
    MOST_HIDDEN,
    OPTIMIZERS,
    TRANSFERS,
    LearningSettings,
)

PAPERS = "medtl.comparison.papers"


def _study_names() -> tuple[str, ...]:
    """Returns the names of the modules in `PAPERS`, sorted; none is imported."""
    folder = importlib.util.find_spec(PAPERS)
    assert folder is not None
    return tuple(sorted(each.name for each in iter_modules(folder.submodule_search_locations)))


STUDIES = _study_names()


@dataclass(frozen=True)
class CompareSettings(ClusterSettings, LearningSettings):
    """A study: cells that differ only in the compared parameters.

    An empty or `auto` value leaves the choice to the study.
    """

    architecture: str = option(
        "auto",
        "comma list of architectures; auto for the study's own",
        changes_result=True,
        decides=NETWORK,
    )
    weights: str = option(
        "auto",
        "comma list of weights, as in train; auto for the study's own",
        changes_result=True,
        decides=NETWORK,
        place=True,
    )
    transfer: str = option(
        "finetune", "comma list of finetune, hybrid; for study=grid", changes_result=True
    )
    classifier: str = option(
        "", "comma list of logistic, svm, forest, knn; empty for the study's", changes_result=True
    )
    hidden: str = option(
        "",
        "comma list of units of a dense ReLU layer before the output layer, 0 for none; empty for "
        "the study's",
        changes_result=True,
    )
    seed: int = option(0, "seed of splits, kept views, bootstrap", low=0, changes_result=True)
    study: str = option(
        "grid",
        "a study by its name, or a grid of one's own",
        choices=STUDIES,
        changes_result=True,
        decides=RECORD,
    )
    cutoffs: str = option(
        "",
        "comma list of cut-offs (all, head, layers), or blocks; empty for the study's",
        changes_result=True,
    )
    optimizers: str = option(
        "", "comma list of optimizers; empty for the study's", changes_result=True
    )
    lr: float = option(
        0.0, "learning rate of every cell; 0 for rates", low=0.0, high=10.0, changes_result=True
    )
    rates: str = option(
        "",
        "comma list of learning rates, among which the validation split chooses one for each arm "
        "(all cells but for their seeds); empty for the study's",
        changes_result=True,
    )
    fractions: str = option(
        "",
        "comma list of shares of the training split, drawn by patient; empty for the study's",
        changes_result=True,
    )
    seeds: str = option(
        "",
        "comma list of seeds (initial weights, order, share drawn); empty for the study's",
        changes_result=True,
    )
    different: str = option(
        "digits",
        "source of another domain (alzubaidi2020): data to pretrain on, or weights",
        changes_result=True,
    )
    same: str = option(
        "",
        "source of the same domain, likewise; empty for phantoms-source where data=phantoms",
        changes_result=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers > 1 and self.executor == LOCAL:
            raise ParameterError("workers", self.workers, "1; several need executor=ray")
        if self.folds and self.executor == RAY:
            raise ParameterError("executor", self.executor, "local with folds")
        if self.cutoffs:
            comma_list("cutoffs", self.cutoffs)
        for name, known in (("optimizers", OPTIMIZERS), ("transfer", TRANSFERS),
                            ("classifier", CLASSIFIERS)):  # fmt: skip
            for entry in self.listed(name):
                if entry not in known:
                    raise ParameterError(name, entry, f"a comma list of {', '.join(known)}")
        for entry in self.listed("rates"):
            check_number("rates", entry, float, 1e-8, 10.0)
        if self.rates and self.lr:
            raise ParameterError("rates", self.rates, f"empty where lr={self.lr:g} is given")
        for entry in self.listed("fractions"):
            check_number("fractions", entry, float, 1e-6, 1.0)
        for entry in self.listed("hidden"):
            check_number("hidden", entry, int, 0, MOST_HIDDEN)
            if int(entry) and self.listed("transfer") == ("hybrid",):
                raise ParameterError(
                    "hidden", entry, "0 where transfer=hybrid: its classifier replaces the head"
                )
        for entry in self.listed("seeds"):
            check_number("seeds", entry, int, 0, 2**31)

    def listed(self, name: str) -> tuple[str, ...]:
        """Returns the entries of a comma list; none where the choice is left to the study."""
        value = getattr(self, name)
        return () if value in ("", "auto") else comma_list(name, value)
