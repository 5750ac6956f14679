"""Settings of the entry points: frozen, typed, each with its meaning, checked once at the door.

A field's metadata is the only place where a parameter is described: the command line, the
checks and the README's tables are made from it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from medtl.data.reading import Reading
from medtl.errors import ParameterError
from medtl.options import Settings, check_number, comma_list, named_lists, option

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop")
TRANSFERS = ("finetune", "hybrid")
CLASSIFIERS = ("logistic", "svm", "forest", "knn")
STUDIES = ("grid", "zhang2023", "alzubaidi2020", "kim2022", "kandel2020", "boit2019", "trinh2021",
           "dai2021")  # fmt: skip


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
    missing: str = option(
        "refuse", "cases without the image of a modality", choices=("refuse", "mask")
    )
    positive: str = option(
        "", "comma list of the labels that make an image positive, or any; empty keeps all classes"
    )

    @property
    def reading(self) -> Reading:
        """Which labels are positive, and what is done about what is amiss in the data."""
        return Reading.of(dataclasses.asdict(self))


@dataclass(frozen=True)
class LearningSettings(DataSettings):
    """What training one model, searching many and comparing many have in common."""

    architecture: str = option(
        "auto", "an architecture by its name (README, Architectures); auto chooses for the data"
    )
    weights: str = option(
        "auto", "auto, imagenet, random, a .safetensors or .pth file, or an MLflow model URI"
    )
    transfer: str = option(
        "finetune",
        "train on from the cut-off, or give its features to a classical classifier",
        choices=TRANSFERS,
    )
    classifier: str = option(
        "logistic",
        "the classical classifier of transfer=hybrid",
        choices=CLASSIFIERS,
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


@dataclass(frozen=True)
class ModelSettings(LearningSettings):
    """What training one model and searching many have in common: a model that is registered."""

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
class CompareSettings(LearningSettings):
    """A study: cells that differ in what is compared, and in nothing else.

    An empty or `auto` value leaves the choice to the study.
    """

    architecture: str = option("auto", "comma list of architectures; auto for the study's own")
    weights: str = option("auto", "comma list of weights, as in train; auto for the study's own")
    transfer: str = option("finetune", "comma list of finetune, hybrid; for study=grid")
    classifier: str = option("", "comma list of logistic, svm, forest, knn; empty for the study's")
    seed: int = option(0, "seed of splits, kept views, bootstrap", low=0)
    study: str = option("grid", "a study by its name, or a grid of one's own", choices=STUDIES)
    cutoffs: str = option(
        "", "comma list of cut-offs (all, head, layers), or blocks; empty for the study's"
    )
    optimizers: str = option("", "comma list of optimizers; empty for the study's")
    lr: float = option(0.0, "learning rate of every cell; 0 for the study's", low=0.0, high=10.0)
    fractions: str = option(
        "", "comma list of shares of the training split, drawn by patient; empty for the study's"
    )
    seeds: str = option(
        "", "comma list of seeds (initial weights, order, share drawn); empty for the study's"
    )
    different: str = option(
        "digits", "source of another domain (alzubaidi2020): data to pretrain on, or weights"
    )
    same: str = option(
        "", "source of the same domain, likewise; empty for phantoms-source where data=phantoms"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("optimizers", OPTIMIZERS), ("transfer", TRANSFERS),
                            ("classifier", CLASSIFIERS)):  # fmt: skip
            for entry in self.listed(name):
                if entry not in known:
                    raise ParameterError(name, entry, f"a comma list of {', '.join(known)}")
        for entry in self.listed("fractions"):
            check_number("fractions", entry, float, 1e-6, 1.0)
        for entry in self.listed("seeds"):
            check_number("seeds", entry, int, 0, 2**31)

    def listed(self, name: str) -> tuple[str, ...]:
        """The entries of a comma list; none where the choice is left to the study."""
        value = getattr(self, name)
        return () if value in ("", "auto") else comma_list(name, value)


@dataclass(frozen=True)
class TrainedModelSettings(DataSettings):
    """A trained model, and the images on which something is asked of it."""

    data: str = option("", "data to evaluate on; empty for the data that the model was trained on")
    model: str = option("", "MLflow URI of a model; empty for the champion of model_name")
    model_name: str = option("auto", "the registered model whose champion is evaluated")


@dataclass(frozen=True)
class EvaluateSettings(TrainedModelSettings):
    """A model on any data."""

    split: str = option("test", "the split to evaluate", choices=("train", "valid", "test", "all"))
    mapping: str = option(
        "", "which class of the model a label of the data is: comma list of LABEL=CLASS"
    )
    seed: int = option(0, "seed of the bootstrap", low=0)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        super().__post_init__()
        named_lists("mapping", self.mapping)

    @property
    def classes_of_labels(self) -> dict[str, tuple[str, ...]]:
        """For each label that is named: the model's classes that mean it, none to leave it out."""
        return named_lists("mapping", self.mapping)


@dataclass(frozen=True)
class PerturbSettings(TrainedModelSettings):
    """Universal perturbations against a model."""

    images: str = option("", "folder of natural images; empty for patches of two photographs")
    norm: str = option("l2", "the norm that bounds a perturbation", choices=("l2", "linf"))
    zeta: str = option(
        "0.01,0.02,0.04", "comma list of bounds, as shares of the mean norm of the training images"
    )
    target: str = option("", "class that all images shall get; empty for any but their own")
    order: str = option(
        "batched",
        "one step for a batch of images, or the paper's, one image at a time",
        choices=("batched", "sequential"),
    )
    passes: int = option(10, "the most passes over the images a perturbation is made from", low=1)
    step_size: float = option(0.01, "of a step in each pixel, where black is -1 and white 1",
                              low=1e-6, high=2.0)  # fmt: skip
    most_images: int = option(256, "the most images that a perturbation is made from", low=1)
    models: str = option("", "comma list of URIs of other models to compare and to transfer to")
    seed: int = option(0, "seed of the images drawn, their order, random controls, bootstrap",
                       low=0)  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        super().__post_init__()
        for entry in comma_list("zeta", self.zeta):
            check_number("zeta", entry, float, 1e-6, 1.0)

    @property
    def zetas(self) -> tuple[float, ...]:
        """The bounds, the smallest first."""
        return tuple(sorted({float(entry) for entry in comma_list("zeta", self.zeta)}))


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
