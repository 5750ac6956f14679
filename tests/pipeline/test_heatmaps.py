"""Galleries of heat maps and their check, on small phantoms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from torch import Tensor, nn

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_head_phantoms
from medtl.errors import ParameterError
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.split_evaluation import SplitPredictions
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import build
from medtl.pipeline.evaluation_logging import log_heatmaps
from medtl.pipeline.heatmaps import explain_split
from medtl.settings.data import Reading
from medtl.settings.evaluation import EvaluateSettings
from medtl.training.classical_head import select_classical_head

SIDE = 64


class Blind(nn.Module):
    """Scores the colour of the whole image, whatever lies where."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.mean(dim=(2, 3)))


def bundle_of(dataset: Dataset, architecture: str, cutoff: str = "fc") -> Predictor:
    """An untrained model for the data."""
    images, classes = max(1, len(dataset.modalities)), len(dataset.classes)
    return Predictor(
        architecture=architecture,
        classes=dataset.classes,
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, SIDE),
        weights="random",
        cutoff=cutoff,
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        temperature=1.0,
        thresholds=(1 / classes,) * classes,
        modalities=dataset.modalities,
        network=build(architecture, classes, SIDE, seed=5, modalities=images).eval(),
    )


def answers(dataset: Dataset, classes: int, seed: int = 0) -> SplitPredictions:
    """Made-up answers about the test split, some right and some wrong."""
    indices = dataset.splits["test"]
    drawn = np.random.default_rng(seed).dirichlet(np.ones(classes), len(indices))
    return SplitPredictions("test", indices, drawn, drawn, drawn, drawn.argmax(axis=1))


def two_classes(dataset: Dataset) -> Dataset:
    """The data with what is not clear as one class: one gallery instead of three."""
    labels = (dataset.labels != dataset.classes.index("clear")).astype(np.int64)
    frame = dataset.frame.assign(label=np.where(labels, "ill", "well"))
    return dataclasses.replace(dataset, classes=("well", "ill"), labels=labels, frame=frame)


def hybrid_of(dataset: Dataset) -> Predictor:
    """A model for the data whose features at the last layer go to a classical classifier."""
    bundle, learned = bundle_of(dataset, "small_resnet"), np.arange(40)
    known = bundle.features(dataset.images(learned)), dataset.labels[learned]
    classical = select_classical_head("logistic", 0, *known, *known, "none", seed=0)
    return dataclasses.replace(bundle, tail=classical.head)


@pytest.fixture
def wards(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), SIDE, seed=0)


def shown(*arguments: object, **others: object) -> str:
    """Draws and logs heat maps; returns the result of their checks."""
    heatmaps = explain_split(*arguments, **others)
    log_heatmaps(heatmaps)
    return heatmaps.words


def artifact(run_id: str, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/evaluation/test/{name}"))


def test_each_class_has_a_gallery_and_the_maps_are_checked(wards: Dataset):
    bundle = bundle_of(wards, "small_resnet", cutoff="layer3")
    before = {name: value.clone() for name, value in bundle.network.state_dict().items()}
    said = answers(wards, 3)
    with mlflow.start_run() as run:
        words = shown(bundle, wards, said, ClassMapping.same(wards.classes), seed=1)
    for name, value in bundle.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in bundle.network.parameters())

    run_id = run.info.run_id
    kept = {
        Path(each.path).name for each in MlflowClient().list_artifacts(run_id, "evaluation/test")
    }
    pictures = {f"explanation_{n}_{name}.png" for n, name in enumerate(wards.classes, start=1)}
    tables = {"explanation.csv", "explanation_check.csv", "explanation.txt"}
    assert kept == pictures | tables
    assert Image.open(artifact(run_id, "explanation_1_clear.png")).width > 1000
    table = pd.read_csv(artifact(run_id, "explanation.csv"))
    assert (table.groupby(["shown_class", "kind"]).size() <= 3).all()
    truly = table["label"] == table["shown_class"]
    assert (truly == table["kind"].isin(["true positives", "false negatives"])).all()
    assert table["similarity_trained"].dropna().between(-1, 1).all()
    check = pd.read_csv(artifact(run_id, "explanation_check.csv")).set_index("randomised")
    metrics = MlflowClient().get_run(run_id).data.metrics
    for stage in ("head", "trained"):
        row = check.loc[stage]
        assert row["low"] <= row["similarity"] <= row["high"]
        assert metrics[f"explanation_similarity_{stage}"] == pytest.approx(row["similarity"])
    assert check.loc["trained", "similarity"] != check.loc["head", "similarity"]
    assert artifact(run_id, "explanation.txt").read_text().strip() == words
    assert words.startswith("maps ")


def test_classes_that_mean_one_label_share_its_gallery(wards: Dataset):
    """Of two labels the positive one is shown, with the map of the likelier of its classes."""
    clinic = two_classes(wards)
    asked = {"well": ["clear"], "ill": ["diffuse", "focal"]}
    mapping = ClassMapping.of(asked, clinic.classes, wards.classes)
    own = answers(wards, 3).of_model
    probabilities = mapping.probabilities(own)
    said = SplitPredictions(
        "test",
        wards.splits["test"],
        own,
        probabilities,
        probabilities,
        mapping.decisions(own, np.full(3, 1 / 3)),
    )
    bundle = bundle_of(wards, "small_resnet")
    with mlflow.start_run() as run:
        shown(bundle, clinic, said, mapping, seed=1)
    table = pd.read_csv(artifact(run.info.run_id, "explanation.csv"))
    assert set(table["shown_class"]) == {"ill"}
    assert artifact(run.info.run_id, "explanation.png").exists()


def test_the_images_of_a_case_lie_side_by_side(tmp_path: Path):
    folder = tmp_path / "heads"
    folder.mkdir()
    write_head_phantoms(folder, patients=30, image_size=SIDE)
    heads = load(str(folder / "labels.csv"), SIDE, seed=0, reading=Reading(missing="mask"))
    bundle = bundle_of(heads, "late_fusion", cutoff="head")
    with mlflow.start_run() as run:
        words = shown(
            bundle,
            heads,
            answers(heads, len(heads.classes)),
            ClassMapping.same(heads.classes),
            seed=1,
        )
    assert words.startswith("maps ")
    name = f"explanation_1_{heads.classes[0]}.png"
    assert Image.open(artifact(run.info.run_id, name)).width > 2000


def test_several_methods_are_shown_side_by_side_checked_and_compared(wards: Dataset):
    positive = two_classes(wards)
    bundle = bundle_of(positive, "small_resnet")
    methods = ("grad_cam", "occlusion", "integrated_gradients")
    same = ClassMapping.same(positive.classes)
    with mlflow.start_run() as run:
        words = shown(bundle, positive, answers(positive, 2), same, 1, methods)
    lines = words.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "Grad-CAM",
        "occlusion",
        "integrated gradients",
    ]
    assert all("maps change" in line or "do not trust" in line for line in lines)
    assert all("covering their hottest tenth lowers the score" in line for line in lines)
    run_id = run.info.run_id
    by_method = pd.read_csv(artifact(run_id, "explanation.csv")).groupby("method", sort=False)
    assert tuple(by_method.groups) == methods
    assert by_method.size().nunique() == 1
    check = pd.read_csv(artifact(run_id, "explanation_check.csv"))
    assert set(zip(check["method"], check["randomised"], strict=True)) == {
        (method, stage) for method in methods for stage in ("head", "trained")
    }
    table = pd.read_csv(artifact(run_id, "explanation_methods.csv")).set_index("method")
    for method in methods:
        assert table.loc[method, f"agreement_{method}"] == pytest.approx(1)
        row = table.loc[method]
        assert row["fall_more"] == pytest.approx(row["fall"] - row["fall_elsewhere"])
    assert table.loc["occlusion", "fall_more_low"] > 0
    metrics = MlflowClient().get_run(run_id).data.metrics
    assert "explanation_similarity_occlusion_trained" in metrics
    assert Image.open(artifact(run_id, "explanation.png")).width > 2000


def test_a_hybrid_is_shown_by_occlusion(wards: Dataset):
    positive = two_classes(wards)
    hybrid = hybrid_of(positive)
    said, same = answers(positive, 2), ClassMapping.same(positive.classes)
    with mlflow.start_run() as run:
        words = shown(hybrid, positive, said, same, 0)
    assert "when features are exchanged" in words
    check = pd.read_csv(artifact(run.info.run_id, "explanation_check.csv"))
    assert check[["method", "randomised"]].to_numpy().tolist() == [["occlusion", "classifier"]]
    assert artifact(run.info.run_id, "explanation.png").exists()
    with pytest.raises(ParameterError, match=r"maps=grad_cam.*a hybrid"):
        explain_split(hybrid, positive, said, same, 0, ("grad_cam",))


def test_a_method_that_there_is_not_is_a_wrong_parameter():
    with pytest.raises(ParameterError, match=r"maps=lime.*grad_cam, occlusion, integrated"):
        EvaluateSettings(maps="occlusion,lime")


def test_a_model_without_heat_maps_says_why(wards: Dataset):
    blind = dataclasses.replace(bundle_of(wards, "small_resnet"), network=Blind())
    said, same = answers(wards, 3), ClassMapping.same(wards.classes)
    assert "use larger images" in explain_split(blind, wards, said, same, 0).words
