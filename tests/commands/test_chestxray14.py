"""ChestX-ray14 as published: the study of Boit & Zeng 2019, and a model that keeps its classes."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest

from medtl.commands.compare import compare
from medtl.commands.evaluate import evaluate
from medtl.commands.promote import promote
from medtl.commands.train import train
from medtl.pipeline.setup import registered_name
from medtl.settings.comparison import CompareSettings
from medtl.settings.evaluation import EvaluateSettings, PromoteSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def test_the_study_of_boit_and_zeng_runs_on_the_published_files(chestxray14):
    compare(
        CompareSettings(
            study="boit2019",
            data=str(chestxray14),
            positive="any",
            architecture="small_resnet",
            weights="random",
            image_size=48,
            epochs=1,
            lr=1e-3,
            views=1,
        )
    )
    study = runs("compare").iloc[0]
    assert study["metrics.cells"] == 6
    assert study["metrics.failed_cells"] == 0
    path = mlflow.artifacts.download_artifacts(f"runs:/{study['run_id']}/report/cells.csv")
    cells = pd.read_csv(path)
    assert len(cells) == 6
    assert set(cells["series"]) == {"strategy 1", "strategy 2"}
    assert set(cells["optimizer"]) == {"adam", "sgd", "rmsprop"}
    splits = pd.read_csv(
        mlflow.artifacts.download_artifacts(f"runs:/{study['run_id']}/data/splits.csv")
    )
    assert set(splits["label"]) == {"negative", "positive"}
    assert set(splits.loc[splits["split"] == "test", "patient"]) == set(range(19, 25))


@pytest.mark.slow
def test_a_densenet_is_trained_from_its_keras_layer_and_judged_again_by_the_same_classes(
    chestxray14, capsys
):
    train(
        TrainSettings(
            data=str(chestxray14),
            positive="Nodule,infiltration",
            architecture="densenet121",
            cutoff="conv5_block16_2_conv",
            weights="random",
            image_size=64,
            epochs=1,
            views=1,
            model_name="nodules",
        )
    )
    trained = runs("train").iloc[0]
    assert trained["tags.medtl.cutoff"] == "features.denseblock4.denselayer16.conv2"
    uri = "models:/nodules@champion"
    assert load_bundle(uri).classes == ("negative", "infiltration or Nodule")

    evaluate(EvaluateSettings(model=uri))
    again = runs("evaluate").iloc[0]
    assert again["tags.medtl.data"] == trained["tags.medtl.data"]
    assert again["metrics.test_auroc"] == pytest.approx(trained["metrics.test_auroc"], abs=1e-6)

    capsys.readouterr()
    promote(PromoteSettings(model_name="nodules"))
    assert "version 1 is the champion already" in capsys.readouterr().out


def test_the_name_of_the_data_needs_no_labels(chestxray14):
    assert registered_name("auto", str(chestxray14)) == "medtl-ChestX-ray14"
