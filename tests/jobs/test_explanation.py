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

from medtl.data.dataset import Dataset, load
from medtl.data.phantoms import write_head_phantoms
from medtl.data.reading import Reading
from medtl.evaluation.mapping import ClassMapping
from medtl.jobs.explanation import Said, explain
from medtl.networks.architectures import build
from medtl.networks.weights import Preprocessing
from medtl.tracking.bundle import Bundle
from medtl.training.tails import fit_tail

SIDE = 64


class Blind(nn.Module):
    """Scores the colour of the whole image, whatever lies where."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.mean(dim=(2, 3)))


def bundle_of(dataset: Dataset, architecture: str, cutoff: str = "fc") -> Bundle:
    """An untrained model for the data."""
    images, classes = max(1, len(dataset.modalities)), len(dataset.classes)
    return Bundle(
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


def answers(dataset: Dataset, classes: int, seed: int = 0) -> Said:
    """Made-up answers about the test split, some right and some wrong."""
    indices = dataset.splits["test"]
    drawn = np.random.default_rng(seed).dirichlet(np.ones(classes), len(indices))
    return Said(indices, drawn, drawn, drawn.argmax(axis=1))


@pytest.fixture
def wards(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), SIDE, seed=0)


def artifact(run_id: str, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/evaluation/test/{name}"))


def test_each_class_has_a_gallery_and_the_maps_are_checked(wards: Dataset):
    bundle = bundle_of(wards, "small_resnet", cutoff="layer3")
    before = {name: value.clone() for name, value in bundle.network.state_dict().items()}
    said = answers(wards, 3)
    with mlflow.start_run() as run:
        words = explain(bundle, wards, "test", said, ClassMapping.same(wards.classes), seed=1)
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
    clear = wards.classes.index("clear")
    labels = (wards.labels != clear).astype(np.int64)
    frame = wards.frame.assign(label=np.where(labels, "ill", "well"))
    clinic = dataclasses.replace(wards, classes=("well", "ill"), labels=labels, frame=frame)
    asked = {"well": ["clear"], "ill": ["diffuse", "focal"]}
    mapping = ClassMapping.of(asked, clinic.classes, wards.classes)
    own = answers(wards, 3).own
    said = Said(
        wards.splits["test"],
        own,
        mapping.probabilities(own),
        mapping.decisions(own, np.full(3, 1 / 3)),
    )
    bundle = bundle_of(wards, "small_resnet")
    with mlflow.start_run() as run:
        explain(bundle, clinic, "test", said, mapping, seed=1)
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
        words = explain(
            bundle,
            heads,
            "test",
            answers(heads, len(heads.classes)),
            ClassMapping.same(heads.classes),
            seed=1,
        )
    assert words.startswith("maps ")
    name = f"explanation_1_{heads.classes[0]}.png"
    assert Image.open(artifact(run.info.run_id, name)).width > 2000


def test_a_model_without_heat_maps_says_why(wards: Dataset):
    bundle = bundle_of(wards, "small_resnet")
    features = bundle.features(wards.images(np.arange(40)))
    tail = fit_tail("logistic", 0, features, wards.labels[:40], "none", seed=0)
    said, same = answers(wards, 3), ClassMapping.same(wards.classes)
    hybrid = dataclasses.replace(bundle, tail=tail)
    assert explain(hybrid, wards, "test", said, same, 0).startswith("no heat maps: a hybrid")
    blind = dataclasses.replace(bundle, network=Blind())
    assert "use larger images" in explain(blind, wards, "test", said, same, 0)
