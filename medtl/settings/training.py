"""Settings of training: one model, a backbone."""

from __future__ import annotations

from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.data import CARVED, RenderingSettings
from medtl.settings.fields import (
    DATA,
    NETWORK,
    RECORD,
    check_device,
    check_number,
    check_registered_name,
    comma_list,
    option,
)

MOST_HIDDEN = 65536  # units of a dense layer
LOWEST_COVERAGE, HIGHEST_COVERAGE = 0.5, 0.999
MOST_FOLDS = 50
MOST_SEED = 2**31
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
TRANSFERS = ("finetune", "hybrid", "lora")
CLASSIFIERS = ("logistic", "svm", "forest", "knn")
AUTO = "auto"
AUGMENTS = ("none", "light", "flip", AUTO)


@dataclass(frozen=True)
class LearningSettings(RenderingSettings):
    """Settings common to training one model, searching many and comparing many."""

    architecture: str = option(
        "auto",
        "an architecture by its name (docs/architectures.md); auto chooses for the data",
        changes_result=True,
        decides=NETWORK,
    )
    weights: str = option(
        "auto",
        "auto, imagenet, random, a file (.safetensors, .pth ...), hf:ORG/NAME, or an MLflow model "
        "URI",
        changes_result=True,
        decides=NETWORK,
        place=True,
    )
    normalise: str = option(
        "auto",
        "normalisation of images from 0 to 1: auto for that of the weights, imagenet, unit, xrv "
        "(-1024 to 1024), or MEAN/STD as 0.5/0.25",
        changes_result=True,
        decides=NETWORK,
        added_later=True,
    )
    folds: int = option(
        0,
        "cross-validation by patient: number of folds, or that of a table's column fold; 0 for one "
        "training",
        low=0,
        high=MOST_FOLDS,
        changes_result=True,
        added_later=True,
    )
    holdout: float = option(
        CARVED,
        "share of the images drawn as test split, by patient, where none is given; 0 with folds: "
        "every image is tested once, by the model that has not seen it",
        low=0.0,
        high=0.9,
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    transfer: str = option(
        "finetune",
        "train on from the cut-off, give its features to a classical classifier, or train low-rank "
        "adapters of attention from it on (lora)",
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
    layer_decay: float = option(
        1.0,
        "learning rate of each block as a share of that of the block after it, as 0.75; 1 for "
        "equal rates",
        low=0.01,
        high=1.0,
        changes_result=True,
        added_later=True,
    )
    lora_rank: int = option(
        8,
        "rank of the adapters of transfer=lora",
        low=1,
        high=256,
        changes_result=True,
        added_later=True,
    )
    image_size: int = option(0, "side of the square input in pixels; 0 for that of the weights",
                             low=0, high=2048, changes_result=True)  # fmt: skip
    augment: str = option(
        "light",
        "augmentation: light (shift, scale, tilt, exposure, noise), flip (light and mirroring), "
        "none; auto: light or none, by validation for a solved head and as a parameter of a "
        "search, else light",
        choices=AUGMENTS,
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
    compile: str = option(
        "none",
        "training steps on a GPU: none launches each kernel, cudagraphs replays them where that is "
        "faster, inductor compiles them in a minute",
        choices=("none", "cudagraphs", "inductor"),
        changes_result=False,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        if self.folds == 1:
            raise ParameterError("folds", self.folds, "0, or at least 2")
        if not self.holdout and not self.folds:
            allowed = "above 0 without folds: one training needs a test split"
            raise ParameterError("holdout", self.holdout, allowed)


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
    coverage: float = option(
        0.0,
        "share of prediction sets that should contain the class of their image, as 0.9; 0 for no "
        "sets",
        low=0.0,
        high=HIGHEST_COVERAGE,
        changes_result=True,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered_name("model_name", self.model_name)
        if 0 < self.coverage < LOWEST_COVERAGE:
            allowed = f"0, or from {LOWEST_COVERAGE} to {HIGHEST_COVERAGE}"
            raise ParameterError("coverage", self.coverage, allowed)
        if self.transfer == "hybrid":
            if self.hidden:
                allowed = "0 where transfer=hybrid: its classifier replaces the head"
                raise ParameterError("hidden", self.hidden, allowed)
            if self.layer_decay != 1:
                allowed = "1 where transfer=hybrid: it trains no block"
                raise ParameterError("layer_decay", self.layer_decay, allowed)
        if self.transfer == "lora" and self.layer_decay != 1:
            raise ParameterError("layer_decay", self.layer_decay, "1 where transfer=lora")


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
    seeds: str = option(
        "",
        "comma list of seeds: one training each, on the splits of seed; empty for seed alone",
        changes_result=True,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.listed_seeds and self.folds:
            raise ParameterError("seeds", self.seeds, "empty with folds: folds are of one seed")
        if len(self.listed_seeds) == 1:
            raise ParameterError("seeds", self.seeds, "two or more; seed is that of one training")

    @property
    def listed_seeds(self) -> tuple[int, ...]:
        """Seeds of repeated trainings; none without `seeds`."""
        entries = comma_list("seeds", self.seeds) if self.seeds else ()
        for entry in entries:
            check_number("seeds", entry, int, 0, MOST_SEED)
        return tuple(map(int, entries))


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
        "where its training starts: random, imagenet, a file, hf:ORG/NAME or a URI",
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
        if self.folds or self.seeds:
            name, value = ("folds", self.folds) if self.folds else ("seeds", self.seeds)
            raise ParameterError(name, value, "left out: a backbone is one training")
        if self.coverage:
            raise ParameterError("coverage", self.coverage, "0: a backbone is not served")
        check_registered_name("backbone_name", self.backbone_name)
