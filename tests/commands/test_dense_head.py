"""Models with a dense ReLU layer before the output layer, as the entry points make them."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest

from medtl.commands.compare import compare
from medtl.commands.train import train
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle

TINY = {"architecture": "small_resnet", "weights": "random", "image_size": 32, "epochs": 1}


def cells_of(run: pd.Series) -> pd.DataFrame:
    path = mlflow.artifacts.download_artifacts(f"runs:/{run['run_id']}/report/cells.csv")
    return pd.read_csv(path).set_index("hidden")


def studies() -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`medtl.kind` = 'compare'"
    )


def test_a_cell_with_a_dense_layer_is_another_and_is_found_again(small_phantoms, capsys):
    settings = {"data": str(small_phantoms), **TINY, "cutoffs": "head", "views": 1}
    compare(CompareSettings(**settings, hidden="0,8"))
    table = cells_of(studies().iloc[0])
    assert list(table["state"]) == ["complete", "complete"]
    parameters = table["trained_parameters"]
    features, classes = 96, 3
    assert parameters[0] == (features + 1) * classes
    assert parameters[8] == (features + 1) * 8 + (8 + 1) * classes
    capsys.readouterr()
    compare(CompareSettings(**settings, hidden="8"))
    assert "1 of them were known" in capsys.readouterr().out
    again = cells_of(studies().iloc[0])
    assert again["test_auroc"][8] == table["test_auroc"][8]


@pytest.mark.slow
def test_a_logged_model_has_its_dense_layer(small_phantoms, capsys):
    train(TrainSettings(data=str(small_phantoms), **TINY, hidden=8, views=1))
    lines = capsys.readouterr().out.splitlines()
    (uri,) = (line.split()[-1] for line in lines if line.startswith("model "))
    bundle = load_bundle(uri)
    assert bundle.hidden == bundle.network.fc.hidden.out_features == 8
