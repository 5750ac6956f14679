"""Settings of the entry points: frozen, typed, each with its meaning, checked once at the door.

A field's metadata is the only place where a parameter is described: the command line, the
checks and the README's tables are made from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from medtl.errors import ParameterError

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")


def option(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A settings field: its default, its meaning, and what is allowed (both ends included)."""
    metadata = {"meaning": meaning, "choices": choices, "low": low, "high": high}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """What every entry point's settings share: the check of each value against its field."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
            if choices is not None and value not in choices:
                raise ParameterError(field.name, value, f"one of {', '.join(choices)}")
            if (low is not None and not value >= low) or (high is not None and not value <= high):
                raise ParameterError(field.name, value, _range(low, high))


@dataclass(frozen=True)
class DataSettings(Settings):
    """Which images, and what is asked of them."""

    data: str = option(
        "phantoms", "phantoms (embedded), a folder of CLASS/... or of splits, or a CSV file"
    )
    duplicates: str = option(
        "refuse",
        "identical images under two labels or in two splits",
        choices=("refuse", "allow"),
    )
    unreadable: str = option("refuse", "images that cannot be read", choices=("refuse", "skip"))


@dataclass(frozen=True)
class ModelSettings(DataSettings):
    """What training one model and searching many have in common."""

    architecture: str = option(
        "auto", "a torchvision classification network by its name; auto chooses for the data"
    )
    weights: str = option(
        "auto", "auto, imagenet, random, a .safetensors or .pth file, or an MLflow model URI"
    )
    transfer: str = option(
        "finetune",
        "train on from the cut-off, or give its features to a classical classifier",
        choices=("finetune", "hybrid"),
    )
    classifier: str = option(
        "logistic",
        "the classical classifier of transfer=hybrid",
        choices=("logistic", "svm", "forest", "knn"),
    )
    pca: int = option(0, "principal components given to the classifier; 0 for none", low=0)
    epochs: int = option(12, "the most epochs a model is trained", low=1)
    patience: int = option(4, "epochs without a better validation AUROC before stopping", low=1)
    batch_size: int = option(32, "images a step", low=2)
    weight_decay: float = option(1e-4, "weight decay of the optimizer", low=0.0)
    image_size: int = option(0, "side of the square input in pixels; 0 for that of the weights",
                             low=0, high=2048)  # fmt: skip
    augment: str = option(
        "light",
        "augmentation: light (shift, scale, tilt, exposure, noise), flip (light and mirroring)",
        choices=("none", "light", "flip"),
    )
    views: int = option(4, "augmented views kept of each training image where activations are kept",
                        low=1, high=64)  # fmt: skip
    keep: str = option(
        "auto",
        "keep what crosses the cut, computed once; auto where it pays",
        choices=("auto", "always", "never"),
    )
    balance: str = option("none", "class imbalance", choices=("none", "loss", "sampler"))
    seed: int = option(0, "seed of splits, initial weights, augmentation, search", low=0)
    precision: str = option(
        "auto",
        "arithmetic: auto is bf16 where the processor has it",
        choices=("auto", "float32", "bf16"),
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    model_name: str = option("auto", "the registered model; auto is medtl-DATA")


@dataclass(frozen=True)
class TrainSettings(ModelSettings):
    """One model."""

    cutoff: str = option("head", "the first layer that is trained: head, all, or a layer's name")
    schedule: str = option(
        "single",
        "single, or two_stage: the head first, then from the cut-off on",
        choices=("single", "two_stage"),
    )
    optimizer: str = option("adam", "the optimizer", choices=OPTIMIZERS)
    lr: float = option(1e-3, "learning rate", low=1e-8, high=10.0)


@dataclass(frozen=True)
class PretrainSettings(TrainSettings):
    """A backbone, trained on any labelled source."""

    data: str = option("phantoms-source", "the source: phantoms-source (embedded), a folder, a CSV")
    weights: str = option("random", "where its training starts: random, imagenet, a file or a URI")
    cutoff: str = option("all", "the first layer that is trained: all, head, or a layer's name")
    optimizer: str = option("adamw", "the optimizer", choices=OPTIMIZERS)
    lr: float = option(4e-3, "learning rate", low=1e-8, high=10.0)
    epochs: int = option(8, "the most epochs it is trained", low=1)
    backbone_name: str = option("auto", "the registered backbone; auto is medtl-DATA-ARCHITECTURE")


@dataclass(frozen=True)
class TuneSettings(ModelSettings):
    """A search over optimizer, learning rate and cut-off."""

    trials: int = option(12, "trials of the whole study, those of earlier runs counted", low=1)
    timeout: float = option(0.0, "seconds after which no trial is begun; 0 for none", low=0.0)
    cutoffs: str = option("blocks", "blocks, layers, or a comma list of layers")
    optimizers: str = option("adam,sgd,rmsprop", "comma list of optimizers to search")
    lr_low: float = option(1e-4, "lowest learning rate searched", low=1e-8, high=10.0)
    lr_high: float = option(1e-2, "highest learning rate searched", low=1e-8, high=10.0)
    pruner: str = option(
        "median", "stops trials that fall behind", choices=("median", "hyperband", "none")
    )
    study: str = option("", "name of the study to resume or join; empty names a new one")
    storage: str = option("", "Optuna storage URL; empty for the embedded one")
    workers: int = option(1, "trials that run at once on this machine", low=1, high=1)
    executor: str = option("local", "what runs the trials", choices=("local",))
    confidence: float = option(0.95, "confidence the gate asks of a challenger", low=0.5, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.optimizer_names:
            if name not in OPTIMIZERS:
                raise ParameterError("optimizers", name, f"a comma list of {', '.join(OPTIMIZERS)}")
        if self.lr_low > self.lr_high:
            raise ParameterError("lr_low", self.lr_low, f"at most lr_high={self.lr_high}")

    @property
    def optimizer_names(self) -> tuple[str, ...]:
        """The optimizers to search."""
        return comma_list("optimizers", self.optimizers)


@dataclass(frozen=True)
class EvaluateSettings(DataSettings):
    """A model on any data."""

    data: str = option("", "data to evaluate on; empty for the data that the model was trained on")
    model: str = option("", "MLflow URI of a model; empty for the champion of model_name")
    model_name: str = option("auto", "the registered model whose champion is evaluated")
    split: str = option("test", "the split to evaluate", choices=("train", "valid", "test", "all"))
    seed: int = option(0, "seed of the bootstrap", low=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


@dataclass(frozen=True)
class PromoteSettings(Settings):
    """The gate alone, a version by hand, or a step back."""

    data: str = option("phantoms", "the data set that model_name=auto is named after")
    model_name: str = option("auto", "the registered model; auto is medtl-DATA")
    version: int = option(0, "version to make champion by hand; 0 lets the gate judge the newest",
                          low=0)  # fmt: skip
    rollback: bool = option(False, "true makes the previous champion the champion again")
    confidence: float = option(0.95, "confidence the gate asks of a challenger", low=0.5, high=1.0)
    seed: int = option(0, "seed of the gate's bootstrap", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rollback and self.version:
            raise ParameterError("version", self.version, "0 where rollback is true")


@dataclass(frozen=True)
class DictionarySettings(Settings):
    """The OCL dictionary."""

    architecture: str = option("", "only this architecture; empty for all")
    output: str = option("dictionary.csv", "CSV file to write; empty for none")


def comma_list(name: str, value: str) -> tuple[str, ...]:
    """The entries of a comma list, in order, each once; an empty list is a wrong parameter."""
    entries = tuple(dict.fromkeys(entry.strip() for entry in value.split(",") if entry.strip()))
    if not entries:
        raise ParameterError(name, repr(value), "a comma list with at least one entry")
    return entries


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"
