"""Settings of trained models: evaluation, perturbation, promotion."""

from __future__ import annotations

from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.data import DataSettings
from medtl.settings.fields import (
    DATA,
    NETWORK,
    RECORD,
    Settings,
    check_device,
    check_number,
    check_registered_name,
    comma_list,
    named_lists,
    option,
)

GRAD_CAM, OCCLUSION, INTEGRATED_GRADIENTS = "grad_cam", "occlusion", "integrated_gradients"
SPOKEN = {
    GRAD_CAM: "Grad-CAM",
    OCCLUSION: "occlusion",
    INTEGRATED_GRADIENTS: "integrated gradients",
}
METHODS = tuple(SPOKEN)


@dataclass(frozen=True)
class TrainedModelSettings(DataSettings):
    """A trained model and images."""

    data: str = option(
        "",
        "data to evaluate on; empty for the data that the model was trained on",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    model: str = option(
        "", "MLflow URI of a model; empty for the champion of model_name", changes_result=True
    )
    model_name: str = option(
        "auto",
        "the registered model whose champion is evaluated",
        changes_result=True,
        decides=RECORD,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered_name("model_name", self.model_name)


@dataclass(frozen=True)
class EvaluateSettings(TrainedModelSettings):
    """A model on any data."""

    split: str = option(
        "test",
        "the split to evaluate",
        choices=("train", "valid", "test", "all"),
        changes_result=True,
    )
    mapping: str = option(
        "",
        "which class of the model a label of the data is: comma list of LABEL=CLASS",
        changes_result=True,
    )
    subgroups: str = option(
        "", "comma list of columns of the CSV to score the model's cases by", changes_result=True
    )
    doubtful: str = option(
        "",
        "list of doubtful labels, as the doubtful_labels.csv of a training with folds, to score "
        "with and without; empty for that of the model's own training, if there is one",
        changes_result=True,
        added_later=True,
        place=True,
    )
    against: str = option(
        "",
        "comma list of folders with images, or CSV files, that in_domain should call strange",
        changes_result=True,
        place=True,
    )
    maps: str = option(
        "auto",
        "comma list of methods that draw heat maps: grad_cam, occlusion, integrated_gradients; "
        "auto is grad_cam, of a hybrid occlusion",
        changes_result=True,
    )
    seed: int = option(0, "seed of the bootstrap", low=0, changes_result=True)
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        named_lists("mapping", self.mapping)
        for name in ("subgroups", "against"):
            if value := getattr(self, name):
                comma_list(name, value)
        for name in self.map_methods:
            if name not in METHODS:
                raise ParameterError("maps", name, f"auto, or a comma list of {', '.join(METHODS)}")

    @property
    def map_methods(self) -> tuple[str, ...]:
        """Methods that draw heat maps; none leaves the choice to the kind of model."""
        return () if self.maps == "auto" else comma_list("maps", self.maps)

    @property
    def classes_of_labels(self) -> dict[str, tuple[str, ...]]:
        """Classes of the model by label; none leaves the label out."""
        return named_lists("mapping", self.mapping)

    @property
    def subgroup_columns(self) -> tuple[str, ...]:
        """The columns by which subgroups are scored."""
        return comma_list("subgroups", self.subgroups) if self.subgroups else ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources of images that should be out of domain."""
        return comma_list("against", self.against) if self.against else ()


@dataclass(frozen=True)
class PerturbSettings(TrainedModelSettings):
    """Universal perturbations against a model."""

    images: str = option(
        "",
        "folder of natural images; empty for patches of two photographs",
        changes_result=True,
        place=True,
    )
    norm: str = option(
        "l2", "the norm that bounds a perturbation", choices=("l2", "linf"), changes_result=True
    )
    zeta: str = option(
        "0.01,0.02,0.04",
        "comma list of bounds, as shares of the mean norm of the training images (black is 0)",
        changes_result=True,
    )
    target: str = option(
        "", "class that all images shall get; empty for any but their own", changes_result=True
    )
    order: str = option(
        "sequential",
        "one image at a time (the paper's), or one step for a batch of images",
        choices=("sequential", "batched"),
        changes_result=True,
    )
    passes: int = option(
        3, "the most passes over the images a perturbation is made from", low=1, changes_result=True
    )
    step_size: float = option(0.1, "norm of one step, as a share of the bound",
                              low=1e-6, high=1.0, changes_result=True)  # fmt: skip
    most_images: int = option(
        256, "the most images that a perturbation is made from", low=1, changes_result=True
    )
    models: str = option(
        "", "comma list of URIs of other models to compare and to transfer to", changes_result=True
    )
    seed: int = option(0, "seed of the images drawn, their order, random controls, bootstrap",
                       low=0, changes_result=True)  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        if self.models:
            comma_list("models", self.models)
        for entry in comma_list("zeta", self.zeta):
            check_number("zeta", entry, float, 1e-6, 1.0)

    @property
    def zetas(self) -> tuple[float, ...]:
        """The bounds, the smallest first."""
        return tuple(sorted({float(entry) for entry in comma_list("zeta", self.zeta)}))


@dataclass(frozen=True)
class PromoteSettings(Settings):
    """The gate alone, a version by hand, or a step back."""

    data: str = option(
        "phantoms",
        "the data set that model_name=auto is named after",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    model_name: str = option(
        "auto", "the registered model; auto is medtl-DATA", changes_result=True, decides=RECORD
    )
    version: int = option(0, "version to make champion by hand; 0 lets the gate judge the newest",
                          low=0, changes_result=True)  # fmt: skip
    rollback: bool = option(
        False, "true makes the previous champion the champion again", changes_result=True
    )
    confidence: float = option(
        0.95,
        "confidence of the gate, over all looks",
        low=0.5,
        high=1.0,
        changes_result=True,
        decides=RECORD,
    )
    seed: int = option(0, "seed of the gate's bootstrap", low=0, changes_result=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_registered_name("model_name", self.model_name)
        if self.rollback and self.version:
            raise ParameterError("version", self.version, "0 where rollback is true")


@dataclass(frozen=True)
class DictionarySettings(Settings):
    """The OCL dictionary."""

    architecture: str = option(
        "", "only this architecture; empty for all", changes_result=True, decides=NETWORK
    )
    output: str = option("dictionary.csv", "CSV file to write; empty for none", changes_result=True)
