"""Cells of a study: trainings that differ in what is compared, and in nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

PRETRAINED_ON = "pretrained on "  # weights so written are made by pretraining on what follows


@dataclass(frozen=True)
class Cell:
    """One training of a study. What a hybrid does not have is empty.

    `series` is what the study calls it: its curve, and its side of a comparison. `weights` are as
    in `train`, or begin with `PRETRAINED_ON`. The learning rate is `lr`, or chosen on the
    validation split among `rates`; `lr` is then 0.
    """

    series: str
    architecture: str
    weights: str = "auto"
    transfer: str = "finetune"
    classifier: str = ""
    cutoff: str = "all"
    schedule: str = "single"
    optimizer: str = "adam"
    lr: float = 1e-3
    augment: str = "light"
    fraction: float = 1.0  # of the training split
    seed: int = 0  # of initial weights, order and the share drawn
    modality: str = ""  # the one that is shown of a case of several; empty for all
    hidden: int = 0  # units of the dense ReLU layer before the output layer; 0 for none
    rates: tuple[float, ...] = ()  # candidates for the learning rate; empty where lr is it

    @classmethod
    def hybrid(cls, series: str, architecture: str, classifier: str, **others: object) -> Cell:
        """A classical classifier on frozen features: no image is changed, no gradient taken."""
        return cls(
            series,
            architecture,
            transfer="hybrid",
            classifier=classifier,
            **{"cutoff": "head", **others, "optimizer": "", "lr": 0.0, "augment": "none"},
        )

    def at_rate(self, lr: float) -> Cell:
        """Returns the cell with a learning rate that is no longer to be chosen."""
        return dataclasses.replace(self, lr=lr, rates=())

    def params(self) -> dict[str, object]:
        """The cell as MLflow parameters, without what it does not have.

        Candidates for the learning rate are left to the code that tries them.
        """
        values = dataclasses.asdict(self)
        del values["rates"]
        return {name: value for name, value in values.items() if value not in ("", 0.0)} | {
            "seed": self.seed
        }


@dataclass(frozen=True)
class Plan:
    """A study: its cells, and what is said of them.

    Attributes:
        study: its name.
        title: what it asks, in a few words.
        source: the paper, empty for a grid of the user's own.
        metric: the score of the test split that is compared.
        cells: in the order of the report.
        pairs: (a, b) of one seed: by how much does b beat a?
        pictures: of `convergence`, `depth`, `size`.
        image_size: side of the images where the user names none; 0 for that of the weights.
        data: the embedded set that stands in for `phantoms`; empty where the study takes that.
        equal_sources: whether backbones are pretrained on equally many images of each source.
        notes: what is known of the paper, and what is a choice of this project.
    """

    study: str
    title: str
    source: str
    metric: str
    cells: tuple[Cell, ...]
    pairs: tuple[tuple[Cell, Cell], ...]
    pictures: tuple[str, ...] = ()
    image_size: int = 0
    data: str = ""
    notes: tuple[str, ...] = ()
    equal_sources: bool = False


def repeated(
    cells: Iterable[Cell], fractions: Sequence[float], seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """Every cell at every share of the training split and with every seed."""
    return tuple(
        dataclasses.replace(cell, fraction=fraction, seed=seed)
        for cell in cells
        for fraction in fractions
        for seed in seeds
    )


def paired(
    cells: Sequence[Cell], is_baseline: Callable[[Cell], bool], *same: str
) -> tuple[tuple[Cell, Cell], ...]:
    """Each cell with the baseline that has the same seed and the same fields `same`, if any has."""

    def place(cell: Cell) -> tuple[object, ...]:
        return tuple(getattr(cell, name) for name in ("seed", *same))

    baselines: dict[tuple[object, ...], Cell] = {}
    for cell in filter(is_baseline, cells):
        baselines.setdefault(place(cell), cell)
    return tuple(
        (baselines[place(cell)], cell)
        for cell in cells
        if not is_baseline(cell) and place(cell) in baselines
    )


def cell_names(cells: Sequence[Cell]) -> dict[Cell, str]:
    """A short name for each cell, of what tells it from the others; no two are equal."""
    shown = [name for name in ("architecture", "series") if _differ(cells, name)]
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.architecture, cell.series), []).append(cell)
    names = {}
    for members in groups.values():
        more = [name for name in _WORDS if _differ(members, name)]
        telling = [name for name in more if name not in _FOLLOWING]
        told = {tuple(getattr(cell, name) for name in telling) for cell in members}
        for cell in members:
            parts = [getattr(cell, name) for name in shown]
            kept = telling if len(told) == len(set(members)) else more
            parts += [_in_words(name, getattr(cell, name)) for name in kept]
            names[cell] = ", ".join(filter(None, parts)) or cell.series or cell.architecture
    return {cell: names[cell] for cell in cells}


def arm(cell: Cell) -> Cell:
    """What a cell is a repeat of: equal cells of other seeds have the same arm."""
    return dataclasses.replace(cell, seed=0)


_WORDS = {
    "weights": "{}",
    "modality": "{}",
    "transfer": "{}",
    "classifier": "{}",
    "cutoff": "from {} on",
    "hidden": "dense layer of {}",
    "schedule": "{}",
    "optimizer": "{}",
    "lr": "lr {:g}",
    "augment": "augmentation {}",
    "fraction": "{:.4g} % of the training images",
    "seed": "seed {}",
}

_FOLLOWING = ("lr", "augment", "schedule")  # as a rule decided by the others
_ENDS = {"all": "all layers", "head": "the head alone"}


def _in_words(name: str, value: object) -> str:
    if name == "cutoff" and value in _ENDS:
        return _ENDS[value]
    if name == "fraction":
        value = 100 * value
    return _WORDS[name].format(value) if value not in ("", 0.0) or name == "seed" else ""


def _differ(cells: Sequence[Cell], name: str) -> bool:
    return len({getattr(cell, name) for cell in cells}) > 1
