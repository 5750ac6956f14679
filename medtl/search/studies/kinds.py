"""Studies of how a network is transferred: which kind, from which layer on, one or two of them.

What a paper leaves open is a choice of this project; each plan's notes say which.
"""

from __future__ import annotations

import dataclasses

from medtl.errors import ParameterError
from medtl.search.studies.cells import Cell, Plan, paired, repeated
from medtl.search.studies.choices import (
    SERIES,
    SMALLER_SIZE,
    architectures,
    at_rate,
    blocks,
    finetuned,
    fractions,
    is_embedded,
    refuse_chosen,
    seeds,
    several_seeds,
    spelled_out,
    weights,
)
from medtl.settings import CLASSIFIERS, CompareSettings

SOURCES = ("different", "same")  # parameters of alzubaidi2020 alone
HIDDEN = 256  # units of boit2019's dense layer
THREE = ("adam", "sgd", "rmsprop")
PUBLISHED_RATE = 1e-4  # of trinh2021
SMALL_RATE = 1e-3  # of small networks on embedded images, where none is chosen


def kim2022(settings: CompareSettings) -> Plan:
    """Kim et al. 2022, BMC Medical Imaging 22:69: the kinds of transfer learning."""
    refuse_chosen(settings, "transfer", *SOURCES)
    cells: list[Cell] = []
    for architecture in architectures(settings, ("resnet50",), ("small_resnet",)):
        for start in weights(settings, "auto"):
            cells += _kinds(settings, architecture, start)
        cells += finetuned(settings, "random initialisation", architecture, "random", "all")
    repeats = repeated(dict.fromkeys(cells), fractions(settings), several_seeds(settings))
    return Plan(
        "kim2022",
        "The kinds of transfer learning against each other",
        "Kim et al. 2022, BMC Medical Imaging 22:69",
        "auroc",
        repeats,
        paired(
            repeats, lambda cell: cell.series == "feature extractor", "fraction", "architecture"
        ),
        ("convergence",),
        notes=(
            "Known: the four kinds and their names; the advice to take a ResNet or an Inception "
            "as feature extractor, which saves cost without losing predictive power.",
            "Ours: fine-tuning begins after two thirds of the blocks unless cutoffs says where; "
            "optimizers; five seeds on the user's images.",
        ),
    )


def _kinds(settings: CompareSettings, architecture: str, start: str) -> list[Cell]:
    """The four kinds of transfer from pretrained weights."""
    cells = finetuned(settings, "feature extractor", architecture, start, "head")
    for classifier in settings.listed("classifier") or CLASSIFIERS:
        series = f"feature extractor hybrid ({classifier})"
        cells.append(Cell.hybrid(series, architecture, classifier, weights=start))
    top = spelled_out(settings, architecture)
    if not top:
        names = blocks(settings, architecture)
        top = (names[2 * len(names) // 3],)
    for cutoff in top:
        cells += finetuned(settings, "fine-tuning", architecture, start, cutoff)
    return cells + finetuned(settings, "fine-tuning from scratch", architecture, start, "all")


def kandel2020(settings: CompareSettings) -> Plan:
    """Kandel & Castelli 2020, how deeply to fine-tune, doi:10.3390/app10103359."""
    refuse_chosen(settings, "transfer", "classifier", *SOURCES)
    cells = repeated(
        (
            cell
            for architecture in architectures(settings, ("vgg16", "vgg19", "inception_v3"))
            for start in weights(settings, "auto")
            for cutoff in spelled_out(settings, architecture) or blocks(settings, architecture)
            for cell in _block_wise(settings, architecture, start, cutoff)
        ),
        fractions(settings),
        several_seeds(settings),
    )
    return Plan(
        "kandel2020",
        "How deeply to fine-tune: block by block",
        "Kandel & Castelli 2020, Applied Sciences 10(10):3359",
        "auroc",
        cells,
        paired(
            cells,
            lambda cell: cell.cutoff == "all",
            "fraction",
            "architecture",
            "weights",
            "optimizer",
            "hidden",
        ),
        ("depth",),
        notes=(
            "Known: block-wise fine-tuning of three architectures; fine-tuning everything is not "
            "always best.",
            "Ours: which architectures, where a block begins, optimizers; five seeds on the user's "
            "images.",
        ),
    )


def _block_wise(
    settings: CompareSettings, architecture: str, start: str, cutoff: str
) -> list[Cell]:
    """The cells of a block; on embedded images at one learning rate, as there are many."""
    cells = finetuned(settings, SERIES.get(start, start), architecture, start, cutoff)
    return at_rate(settings, SMALL_RATE, cells) if is_embedded(settings) else cells


def boit2019(settings: CompareSettings) -> Plan:
    """Boit & Zeng 2019, Dakota State Annual Research Symposium 16: the optimal cut-off layer."""
    refuse_chosen(settings, "transfer", "classifier", *SOURCES)
    changed = "light" if settings.augment == "none" else settings.augment
    cells: list[Cell] = []
    for architecture in architectures(settings, ("densenet121",), ("small_resnet",)):
        own = "conv5_block16_2_conv"
        if architecture != "densenet121" and not settings.cutoffs:
            own = blocks(settings, architecture)[-2]
        for start in weights(settings, "auto"):
            cutoffs = spelled_out(settings, architecture) or (own,)
            for series, cutoff, augment in (
                ("strategy 1", "head", "none"),
                *(("strategy 2", cutoff, changed) for cutoff in cutoffs),
            ):
                trained = finetuned(
                    settings, series, architecture, start, cutoff, *THREE, own_hidden=HIDDEN
                )
                cells += [dataclasses.replace(cell, augment=augment) for cell in trained]
    repeats = repeated(cells, fractions(settings), seeds(settings))
    same = ("fraction", "architecture", "weights", "optimizer")
    return Plan(
        "boit2019",
        "Feature extraction without, and fine-tuning with augmentation, by three optimizers",
        "Boit & Zeng 2019, Dakota State Annual Research Symposium 16",
        "accuracy",
        repeats,
        (
            *paired(repeats, lambda cell: cell.series == "strategy 1", *same, "hidden"),
            *paired(repeats, lambda cell: cell.hidden == 0, *same, "series", "cutoff"),
        ),
        ("convergence",),
        notes=(
            "Known: DenseNet-121 from ImageNet, a dense ReLU layer, then a sigmoid; strategy 1 is "
            "feature extraction without augmentation; strategy 2 fine-tunes with augmentation from "
            "the Keras layer conv5_block16_2_conv on; Adam, SGD, RMSprop.",
            f"Ours: the units of the dense layer ({HIDDEN}), which is trained by gradient in both "
            "strategies; a score for each class and a softmax (for two classes a sigmoid of their "
            "difference); the augmentation; another architecture is fine-tuned from its last block "
            "before the head.",
        ),
    )


def trinh2021(settings: CompareSettings) -> Plan:
    """Trinh & Nguyen 2021: two backbones joined, against each alone."""
    refuse_chosen(settings, "transfer", "classifier", "cutoffs", *SOURCES)
    halves = architectures(settings, ("densenet121", "resnet101"))
    if len(halves) != 2:
        raise ParameterError("architecture", settings.architecture, "two for study=trinh2021")
    joined = f"dual:{'+'.join(halves)}"
    cells = repeated(
        (
            dataclasses.replace(cell, schedule="two_stage")
            for architecture in (*halves, joined)
            for start in weights(settings, "auto")
            for cell in _second_stage(settings, architecture, start)
        ),
        fractions(settings),
        seeds(settings),
    )
    same = ("fraction", "weights", "optimizer", "hidden")
    pairs = [
        pair
        for half in halves
        for pair in paired(
            [cell for cell in cells if cell.architecture in (half, joined)],
            lambda cell: cell.architecture != joined,
            *same,
        )
    ]
    return Plan(
        "trinh2021",
        "Two backbones joined, against each alone",
        "Trinh & Nguyen 2021, DenseNet-121 and ResNet-101 on eight classes of the GI tract",
        "f1",
        cells,
        tuple(pairs),
        ("convergence",),
        image_size=SMALLER_SIZE if is_embedded(settings) else 0,
        notes=(
            "Known: each feature map through a 3x3 convolution to 1,024 channels, the two added; "
            "the head first, then all but the first part, by RMSprop with 1e-4.",
            "Ours: the first part is the first third of the blocks; both stages have the same "
            "optimizer; the single backbones are trained alike.",
        ),
    )


def _second_stage(settings: CompareSettings, architecture: str, start: str) -> list[Cell]:
    """Trained from the first third of the blocks on; of two joined, from that of each."""
    names = [blocks(settings, half) for half in architecture.removeprefix("dual:").split("+")]
    cutoff = "+".join(each[len(each) // 3] for each in names)
    cells = finetuned(settings, SERIES.get(start, start), architecture, start, cutoff, "rmsprop")
    return at_rate(settings, SMALL_RATE if is_embedded(settings) else PUBLISHED_RATE, cells)
