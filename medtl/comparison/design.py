"""Design of a comparison: cells, pairs, and the parameters of the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from medtl.data.manifest import EMBEDDED
from medtl.errors import ParameterError
from medtl.networks.cutoffs import cut_points
from medtl.networks.pretrained import preprocessing
from medtl.networks.registry import check_architecture, outline
from medtl.settings.comparison import CompareSettings

PRETRAINED_ON = "pretrained on "  # prefix of weights that are pretrained first, on the data named


@dataclass(frozen=True)
class Cell:
    """One training of a study. Fields that a hybrid does not have are empty.

    `series` names the curve and the side of a comparison that the cell belongs to. `weights` are
    as in `train`, or begin with `PRETRAINED_ON`. The learning rate is `lr`; if `lr` is 0, it is
    chosen on the validation split among `rates`.
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
    modality: str = ""  # the one used of a case with several images; empty for all
    hidden: int = 0  # units of the dense ReLU layer before the output layer; 0 for none
    rates: tuple[float, ...] = ()  # candidates for the learning rate; empty if lr is given

    @classmethod
    def hybrid(
        cls, series: str, architecture: str, classifier: str, weights: str, cutoff: str = "head"
    ) -> Cell:
        """Builds the cell of a classical classifier on frozen features, without augmentation."""
        return cls(
            series,
            architecture,
            weights,
            transfer="hybrid",
            classifier=classifier,
            cutoff=cutoff,
            optimizer="",
            lr=0.0,
            augment="none",
        )

    def at_rate(self, lr: float) -> Cell:
        """Returns the cell with a given learning rate instead of candidates."""
        return dataclasses.replace(self, lr=lr, rates=())

    def params(self) -> dict[str, object]:
        """Returns the cell as MLflow parameters, without empty fields.

        The candidates for the learning rate are not among them: they are logged when tried.
        """
        values = dataclasses.asdict(self)
        del values["rates"]
        return {name: value for name, value in values.items() if value not in ("", 0.0)} | {
            "seed": self.seed
        }


@dataclass(frozen=True)
class Plan:
    """A study: its cells, the pairs that are compared, and texts of the report.

    Attributes:
        study: name of the study.
        title: its question, in a few words.
        source: the paper; empty for a grid of the user's own.
        metric: the metric on the test split that is compared.
        cells: in the order of the report.
        pairs: (a, b) of one seed; the difference is b less a.
        pictures: of `convergence`, `depth`, `size`.
        image_size: side of the images in pixels if the user gives none; 0 for that of the weights.
        data: embedded set that replaces `phantoms`; empty to keep it.
        equal_sources: whether backbones are pretrained on equally many images of each source.
        notes: facts of the paper, and choices of this project.
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
    """Returns every cell at every share of the training split and with every seed."""
    return tuple(
        dataclasses.replace(cell, fraction=fraction, seed=seed)
        for cell in cells
        for fraction in fractions
        for seed in seeds
    )


def paired(
    cells: Sequence[Cell], is_baseline: Callable[[Cell], bool], *same: str
) -> tuple[tuple[Cell, Cell], ...]:
    """Pairs each cell with the baseline that has the same seed and equal fields `same`, if any.

    >>> cells = [Cell("head", "vgg11", cutoff="head"), Cell("all", "vgg11"), Cell("all", "vgg16")]
    >>> pairs = paired(cells, lambda cell: cell.cutoff == "head", "architecture")
    >>> [(a.series, b.series, b.architecture) for a, b in pairs]
    [('head', 'all', 'vgg11')]
    """

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
    """Returns a short unique name for each cell, of the fields in which it differs from others.

    >>> cells = [Cell("head", "vgg11", cutoff="head"), Cell("all", "vgg11", seed=1)]
    >>> list(cell_names([*cells, Cell("all", "vgg11")]).values())
    ['head', 'all, seed 1', 'all, seed 0']
    """
    shown = [name for name in ("architecture", "series") if _differ(cells, name)]
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.architecture, cell.series), []).append(cell)
    names = {}
    for members in groups.values():
        more = [name for name in _WORDS if _differ(members, name)]
        short = [name for name in more if name not in _FOLLOWING]
        distinct = {tuple(getattr(cell, name) for name in short) for cell in members}
        for cell in members:
            parts = [getattr(cell, name) for name in shown]
            kept = short if len(distinct) == len(set(members)) else more
            parts += [_in_words(name, getattr(cell, name)) for name in kept]
            names[cell] = ", ".join(filter(None, parts)) or cell.series or cell.architecture
    return {cell: names[cell] for cell in cells}


def arm(cell: Cell) -> Cell:
    """Returns the arm of a cell: the cell without its seed, the same for all its repeats."""
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

_FOLLOWING = ("lr", "augment", "schedule")  # usually implied by the other fields
_ENDS = {"all": "all layers", "head": "the head alone"}


def _in_words(name: str, value: object) -> str:
    if name == "cutoff" and value in _ENDS:
        return _ENDS[value]
    if name == "fraction" and isinstance(value, float):
        value = 100 * value
    return _WORDS[name].format(value) if value not in ("", 0.0) or name == "seed" else ""


def _differ(cells: Sequence[Cell], name: str) -> bool:
    return len({getattr(cell, name) for cell in cells}) > 1


# Small enough to be pretrained on embedded images on two processor cores in half a minute each.
SMALL = ("small_resnet", "shufflenet_v2_x0_5")
SMALL_SIZE = 96  # pixels
SMALLER_SIZE = 48  # pixels, for networks that take longer
SMALL_RATE = 1e-3  # learning rate of studies with many cells, on embedded images

SERIES = {"auto": "pretrained", "imagenet": "pretrained", "random": "random"}
"""Names of weights in reports; other weights have their own."""

RATES, SGD_RATES = (1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2)
"""Learning rates to choose among."""

SMALL_RATES, SMALL_SGD_RATES = (3e-4, 1e-3), (3e-3, 1e-2)
"""The same on embedded images."""

REPEATS = (0, 1, 2, 3, 4)
"""Seeds of studies whose arms differ little."""


def is_embedded(settings: CompareSettings) -> bool:
    """Returns whether the study runs on embedded images, for which it is kept small."""
    return settings.data in EMBEDDED


def architectures(
    settings: CompareSettings, published: tuple[str, ...], small: tuple[str, ...] = SMALL
) -> tuple[str, ...]:
    """Returns the user's architectures, else those of the paper, or `small` on embedded images.

    Raises:
        ParameterError: there is no such architecture.
    """
    chosen = settings.listed("architecture") or (small if is_embedded(settings) else published)
    for name in chosen:
        check_architecture(name)
    return chosen


def weights(settings: CompareSettings, *own: str) -> tuple[str, ...]:
    """Returns the user's weights, else the study's own."""
    return settings.listed("weights") or own


def optimizers(settings: CompareSettings, *own: str) -> tuple[str, ...]:
    """Returns the user's optimizers, else the study's own."""
    return settings.listed("optimizers") or own or ("adam",)


def fractions(settings: CompareSettings, *own: float) -> tuple[float, ...]:
    """Returns the shares of the training split: the user's, else the study's own."""
    return tuple(map(float, settings.listed("fractions"))) or own or (1.0,)


def seeds(settings: CompareSettings, *own: int) -> tuple[int, ...]:
    """Returns the user's seeds, else the study's own, else the seed of the splits."""
    return tuple(map(int, settings.listed("seeds"))) or own or (settings.seed,)


def several_seeds(settings: CompareSettings, *small: int) -> tuple[int, ...]:
    """Returns the user's seeds, else five; on embedded images `small`, else one."""
    return seeds(settings, *(small if is_embedded(settings) else REPEATS))


def hidden_units(settings: CompareSettings, own: int = 0) -> tuple[int, ...]:
    """Returns the units of a dense layer before the output layer: the user's, else the study's."""
    return tuple(map(int, settings.listed("hidden"))) or (own,)


def learning_rates(settings: CompareSettings, optimizer: str) -> tuple[float, ...]:
    """Returns the candidates for the learning rate of an arm: the user's, else ours.

    They are the same for every cut-off and all weights, so that the learning rate does not vary
    with depth or source.
    """
    if settings.lr:
        return (settings.lr,)
    if listed := settings.listed("rates"):
        return tuple(dict.fromkeys(map(float, listed)))
    if is_embedded(settings):
        return SMALL_SGD_RATES if optimizer == "sgd" else SMALL_RATES
    return SGD_RATES if optimizer == "sgd" else RATES


def at_rate(settings: CompareSettings, lr: float, cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells at the learning rate of a study, unless the user gave one."""
    if settings.lr or settings.rates:
        return list(cells)
    return [cell.at_rate(lr) for cell in cells]


def finetuned(
    settings: CompareSettings,
    series: str,
    architecture: str,
    start: str,
    cutoff: str,
    *own: str,
    own_hidden: int = 0,
) -> list[Cell]:
    """Returns cells trained by gradient from a cut-off on.

    One for each of the user's or `own` optimizers, and each number of units of a dense layer, the
    user's or `own_hidden`.
    """
    cells = []
    for hidden in hidden_units(settings, own_hidden):
        for optimizer in optimizers(settings, *own):
            candidates = learning_rates(settings, optimizer)
            is_given = len(candidates) == 1
            cells.append(
                Cell(
                    series,
                    architecture,
                    start,
                    cutoff=cutoff,
                    optimizer=optimizer,
                    augment=settings.augment,
                    hidden=hidden,
                    lr=candidates[0] if is_given else 0.0,
                    rates=() if is_given else candidates,
                )
            )
    return cells


def blocks(settings: CompareSettings, architecture: str) -> tuple[str, ...]:
    """Returns the cut-offs of blocks in forward order, with `all` first and `head` last."""
    size = settings.image_size or SMALL_SIZE
    if not (settings.image_size or is_embedded(settings)):
        size = preprocessing(architecture).image_size
    points = cut_points(outline(architecture, size), "blocks")
    _, *between, _ = (point.name for point in points)
    return ("all", *between, "head")


def spelled_out(settings: CompareSettings, architecture: str) -> tuple[str, ...]:
    """Returns the cut-offs that the user listed, `blocks` replaced by all of them."""
    listed = settings.listed("cutoffs")
    named = [blocks(settings, architecture) if each == "blocks" else (each,) for each in listed]
    return tuple(dict.fromkeys(cutoff for part in named for cutoff in part))


def refuse_chosen(settings: CompareSettings, *names: str) -> None:
    """Raises `ParameterError` where the user gave a parameter that the study itself decides."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if value != defaults[name]:
            raise ParameterError(
                name, value, f"study={settings.study} decides it; leave it out, or take study=grid"
            )


SOURCES = ("different", "same")  # parameters that only alzubaidi2020 uses
