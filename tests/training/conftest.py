"""A transfer on small phantoms: real data, a real network, seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner

SIZE = 48


@pytest.fixture(scope="session")
def phantom_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_chest_phantoms(folder, seed=2, patients=45, image_size=SIZE)
    return folder / "labels.csv"


@pytest.fixture
def dataset(phantom_csv: Path) -> Dataset:
    return load(str(phantom_csv), SIZE, seed=0)


@pytest.fixture
def transfer(dataset: Dataset) -> Callable[..., TransferLearner]:
    """`transfer(**settings)`: small_resnet from random weights on the small phantoms."""

    def made(**settings: object) -> TransferLearner:
        network = build("small_resnet", len(dataset.classes), SIZE, seed=0)
        preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE)
        backbone = Backbone("small_resnet", "random", network, preprocessing)
        return TransferLearner(
            backbone, dataset, TrainSettings(**{"epochs": 2, "views": 2, **settings})
        )

    return made
