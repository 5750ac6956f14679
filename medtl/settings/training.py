"""Settings of training: data, one model, a backbone, a search."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.execution import LOCAL, ClusterSettings
from medtl.settings.fields import (
    DATA,
    NETWORK,
    RECORD,
    Settings,
    check_device,
    check_registered_name,
    comma_list,
    named_columns,
    option,
)

FIRST, ALL = "first", "all"
AUTO, PLAIN = "auto", "plain"
IGNORE = "ignore"
MAJORITY, ANY = "majority", "any"
NAMED_COLUMNS = ("path", "label", "patient", "split", "case", "modality")


@dataclass(frozen=True)
class Reading:
    """Reading options; invalid data is refused unless allowed."""

    duplicates: str = "refuse"  # or allow: identical images under two labels or in two splits
    unreadable: str = "refuse"  # or skip: images that cannot be decoded
    missing: str = "refuse"  # or mask: cases without the image of a modality
    positive: str = (
        ""  # labels that make an image positive (see `two_classes`); '' keeps all labels
    )
    frames: str = FIRST  # or all, or a number from 1: which of a file with several frames
    outside: str = "refuse"  # or allow: paths outside the folder of a CSV
    patient_pattern: str = ""  # regular expression whose first group in a path is the patient
    layout: str = AUTO  # or plain: published layouts are not recognised
    columns: str = ""  # columns of a table: NAME:COLUMN, see `NAMED_COLUMNS`
    path_pattern: str = ""  # path of an image, {} stands for the value of its column
    splits: str = ""  # names of the splits: VALUE:SPLIT
    uncertain: str = ""  # or ignore (the same), positive, negative: findings marked as -1
    readers: str = ""  # or majority, any, all: several rows of one image, refused without it

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Reading:
        """Takes the options from settings by name; others keep their defaults."""
        names = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: str(value) for name, value in settings.items() if name in names})


def check_pattern(pattern: str) -> None:
    """Raises `ParameterError` if a pattern is not a regular expression with a group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        allowed = f"a regular expression, and this is none: {error}"
        raise ParameterError("patient_pattern", pattern, allowed) from error
    if not groups:
        allowed = "a regular expression with (...) around the patient, as in (person[0-9]+)_"
        raise ParameterError("patient_pattern", pattern, allowed)


def check_columns(columns: str) -> dict[str, tuple[str, ...]]:
    """Parses the parameter `columns`; refuses unknown names and lists other than of labels."""
    named = named_columns("columns", columns)
    for name, listed in named.items():
        if name not in NAMED_COLUMNS or (len(listed) > 1 and name != "label"):
            allowed = f"NAME:COLUMN of {', '.join(NAMED_COLUMNS)}; several columns for label alone"
            raise ParameterError("columns", columns, allowed)
    return named


def check_splits(splits: str) -> dict[str, str]:
    """Parses the parameter `splits`: the split of each value."""
    named = {value: listed[0] for value, listed in named_columns("splits", splits).items()}
    if not set(named.values()) <= {"train", "valid", "test"}:
        raise ParameterError("splits", splits, "a comma list of VALUE:train, :valid or :test")
    return named


MOST_HIDDEN = 65536  # units of a dense layer
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
TRANSFERS = ("finetune", "hybrid")
CLASSIFIERS = ("logistic", "svm", "forest", "knn")


@dataclass(frozen=True)
class DataSettings(Settings):
    """Data set and reading options."""

    data: str = option(
        "phantoms",
        "phantoms (embedded), a folder of CLASS/... or of splits, a table such as CSV, or a "
        "published data set (docs/data.md)",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    duplicates: str = option(
        "refuse",
        "identical images under two labels or in two splits",
        choices=("refuse", "allow"),
        changes_result=False,
        decides=DATA,
    )
    unreadable: str = option(
        "refuse",
        "images that cannot be read",
        choices=("refuse", "skip"),
        changes_result=False,
        decides=DATA,
    )
    missing: str = option(
        "refuse",
        "cases without the image of a modality",
        choices=("refuse", "mask"),
        changes_result=True,
        decides=DATA,
    )
    positive: str = option(
        "",
        "comma list of the labels that make an image positive, or any; empty keeps all classes",
        changes_result=True,
        decides=DATA,
    )
    frames: str = option(
        FIRST,
        "of several frames or pages in a file: first, all (a sample each), or a number",
        changes_result=True,
        decides=DATA,
    )
    outside: str = option(
        "refuse",
        "paths that lead out of the folder of a CSV, themselves or by a link",
        choices=("refuse", "allow"),
        changes_result=False,
        decides=DATA,
    )
    patient_pattern: str = option(
        "",
        "regular expression whose first group, found in the path of an image, is its patient",
        changes_result=True,
        decides=DATA,
    )

    layout: str = option(
        AUTO,
        "published layouts of data: recognised, or read as any other folder or table",
        choices=(AUTO, PLAIN),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    columns: str = option(
        "",
        "columns of a table, as path:image_id,label:dx,patient:pid,split:set; several columns of "
        "findings as label:A|B|C",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    path_pattern: str = option(
        "",
        "path of an image, as images/{}.jpg; {} stands for the value of the column path",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    splits: str = option(
        "",
        "values of the column split, as 1:train,2:valid,3:test",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    uncertain: str = option(
        "",
        "findings that a table marks as uncertain (-1); empty is ignore",
        choices=("", IGNORE, "positive", "negative"),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    readers: str = option(
        "",
        "several rows of one image, as by several readers, refused if empty; with any and all "
        "labels are findings",
        choices=("", MAJORITY, ANY, ALL),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.columns)
        check_splits(self.splits)
        if self.path_pattern and "{}" not in self.path_pattern:
            allowed = "a path with {} for the value of the column path, as images/{}.jpg"
            raise ParameterError("path_pattern", self.path_pattern, allowed)
        if self.frames not in (FIRST, ALL) and not (
            self.frames.isdecimal() and int(self.frames) >= 1
        ):
            raise ParameterError("frames", self.frames, f"{FIRST}, {ALL}, or a number from 1")
        if self.patient_pattern:
            check_pattern(self.patient_pattern)
        if self.positive:
            comma_list("positive", self.positive)

    @property
    def reading(self) -> Reading:
        """Reading options of these settings."""
        return Reading.of(dataclasses.asdict(self))


OF_DATA = frozenset(field.name for field in dataclasses.fields(DataSettings))
"""Parameters whose effect on results is covered by `Dataset.identity`."""


@dataclass(frozen=True)
class LearningSettings(DataSettings):
    """Settings common to training one model, searching many and comparing many."""

    architecture: str = option(
        "auto",
        "an architecture by its name (docs/architectures.md); auto chooses for the data",
        changes_result=True,
        decides=NETWORK,
    )
    weights: str = option(
        "auto",
        "auto, imagenet, random, a .safetensors or .pth file, or an MLflow model URI",
        changes_result=True,
        decides=NETWORK,
        place=True,
    )
    transfer: str = option(
        "finetune",
        "train on from the cut-off, or give its features to a classical classifier",
        choices=TRANSFERS,
        changes_result=True,
    )
    classifier: str = option(
        "logistic",
        "the classical classifier of transfer=hybrid",
        choices=CLASSIFIERS,
        changes_result=True,
    )
    pca: int = option(
        0, "principal components given to the classifier; 0 for none", low=0, changes_result=True
    )
    epochs: int = option(
        0,
        "the most epochs a model is trained; 0 solves a linear head to its optimum, and trains all "
        "else the longer, the cheaper its epochs are",
        low=0,
        changes_result=True,
    )
    patience: int = option(
        0,
        "epochs without a better validation AUROC before stopping; 0 for a quarter of the epochs",
        low=0,
        changes_result=True,
    )
    batch_size: int = option(32, "images a step", low=2, changes_result=True)
    weight_decay: float = option(
        1e-4, "weight decay of the optimizer", low=0.0, changes_result=True
    )
    image_size: int = option(0, "side of the square input in pixels; 0 for that of the weights",
                             low=0, high=2048, changes_result=True)  # fmt: skip
    augment: str = option(
        "light",
        "augmentation: light (shift, scale, tilt, exposure, noise), flip (light and mirroring)",
        choices=("none", "light", "flip"),
        changes_result=True,
    )
    views: int = option(4, "augmented views kept of each training image where activations are kept",
                        low=1, high=64, changes_result=True)  # fmt: skip
    keep: str = option(
        "auto",
        "cache the activations at the cut-off; auto where it pays",
        choices=("auto", "always", "never"),
        changes_result=False,
    )
    balance: str = option(
        "none", "class imbalance", choices=("none", "loss", "sampler"), changes_result=True
    )
    seed: int = option(
        0, "seed of splits, initial weights, augmentation, search", low=0, changes_result=True
    )
    precision: str = option(
        "auto",
        "arithmetic: auto is bf16 where the processor has it",
        choices=("auto", "float32", "bf16"),
        changes_result=True,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)


@dataclass(frozen=True)
class ModelSettings(LearningSettings):
    """Settings common to training one model and searching many: a registered model."""

    model_name: str = option(
        "auto", "the registered model; auto is medtl-DATA", changes_result=True, decides=RECORD
    )
    hidden: int = option(
        0,
        "units of a dense ReLU layer before the output layer; 0 for none",
        low=0,
        high=MOST_HIDDEN,
        changes_result=True,
    )
    sensitivity: float = option(
        0.0,
        "least sensitivity on validation at the operating point; 0 for Youden's",
        low=0.0,
        high=1.0,
        changes_result=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered_name("model_name", self.model_name)
        if self.hidden and self.transfer == "hybrid":
            raise ParameterError(
                "hidden", self.hidden, "0 where transfer=hybrid: its classifier replaces the head"
            )


@dataclass(frozen=True)
class TrainSettings(ModelSettings):
    """One model."""

    cutoff: str = option(
        "head", "the first layer that is trained: head, all, or a layer's name", changes_result=True
    )
    schedule: str = option(
        "single",
        "single, or two_stage: the head first, then from the cut-off on",
        choices=("single", "two_stage"),
        changes_result=True,
    )
    optimizer: str = option("adam", "the optimizer", choices=OPTIMIZERS, changes_result=True)
    lr: float = option(1e-3, "learning rate", low=1e-8, high=10.0, changes_result=True)


@dataclass(frozen=True)
class PretrainSettings(TrainSettings):
    """A backbone, trained on any labelled source."""

    data: str = option(
        "phantoms-source",
        "the source: phantoms-source (embedded), a folder, a CSV",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    weights: str = option(
        "random",
        "where its training starts: random, imagenet, a file or a URI",
        changes_result=True,
        decides=NETWORK,
        place=True,
    )
    cutoff: str = option(
        "all", "the first layer that is trained: all, head, or a layer's name", changes_result=True
    )
    optimizer: str = option("adamw", "the optimizer", choices=OPTIMIZERS, changes_result=True)
    lr: float = option(4e-3, "learning rate", low=1e-8, high=10.0, changes_result=True)
    epochs: int = option(
        8, "the most epochs it is trained; 0 as in train", low=0, changes_result=True
    )
    train_images: int = option(
        0,
        "about how many training images are learned from, drawn by patient; 0 for all",
        low=0,
        changes_result=True,
    )
    backbone_name: str = option(
        "auto",
        "the registered backbone; auto is medtl-DATA-ARCHITECTURE",
        changes_result=True,
        decides=RECORD,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transfer == "hybrid":
            raise ParameterError("transfer", self.transfer, "finetune: a hybrid trains no backbone")
        check_registered_name("backbone_name", self.backbone_name)


@dataclass(frozen=True)
class TuneSettings(ClusterSettings, ModelSettings):
    """A search over architecture, cut-off, optimizer and learning rate."""

    architecture: str = option(
        "auto",
        "an architecture, or a comma list to choose among; auto chooses for the data",
        changes_result=True,
        decides=NETWORK,
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

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architectures to search, one where it is not searched."""
        return comma_list("architecture", self.architecture)

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
