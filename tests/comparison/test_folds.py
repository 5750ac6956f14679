"""Cells of a study on folds are scored out of fold, on equal cases."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medtl.commands.compare import compare
from medtl.comparison.learning_rates import mean_of_folds
from medtl.errors import ParameterError
from medtl.evaluation.model_comparison import TriedRate
from medtl.settings.comparison import CompareSettings

TINY = {"architecture": "small_resnet", "weights": "random", "image_size": 32}


@pytest.mark.slow
def test_cells_are_cross_validated_and_compared_on_all_cases_in_folds(small_phantoms, capsys):
    settings = {"data": str(small_phantoms), **TINY, "epochs": 1, "views": 1, "holdout": 0.0,
                "rates": "0.01,0.001"}  # fmt: skip
    compare(CompareSettings(**settings, folds=2, cutoffs="head,layer4"))
    found = mlflow.search_runs(search_all_experiments=True)
    cells = found[found["tags.medtl.kind"] == "cell"]
    assert len(cells) == 2
    assert set(cells["tags.medtl.test"]) == {"out-of-fold"}
    images = len(pd.read_csv(small_phantoms))
    for _, cell in cells.iterrows():
        place = f"runs:/{cell['run_id']}/cell/probabilities.csv"
        table = pd.read_csv(mlflow.artifacts.download_artifacts(place))
        assert len(table) == images
        labels = sorted(table["label"].unique())
        scores = table[[f"probability_{name}" for name in labels]].to_numpy()
        expected = roc_auc_score(table["label"], scores, multi_class="ovr", labels=labels)
        assert cell["metrics.test_auroc"] == pytest.approx(expected)
    capsys.readouterr()
    compare(CompareSettings(**settings, folds=2, cutoffs="head"))
    assert "1 of them were known from before" in capsys.readouterr().out


def test_a_cluster_runs_no_folds():
    with pytest.raises(ParameterError, match="executor=ray is not allowed: local with folds"):
        CompareSettings(folds=2, executor="ray")


def test_candidates_of_folds_are_averaged():
    tried = [(TriedRate(0.1, 0.8, 0.5, 3, 1.0),), (TriedRate(0.1, 0.6, 0.7, 5, 2.0),)]
    (mean,) = mean_of_folds(tried)
    assert mean == TriedRate(0.1, pytest.approx(0.7), pytest.approx(0.6), 3, 3.0)
    assert mean_of_folds([(), ()]) == ()
    assert mean_of_folds([]) == ()
