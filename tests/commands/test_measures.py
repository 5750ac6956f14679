"""A model at a demanded sensitivity, and how it does on parts of its cases."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from medtl.commands.evaluate import evaluate
from medtl.commands.train import train
from medtl.errors import ParameterError
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle


def last_run(kind: str) -> pd.Series:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    ).iloc[0]


def table(run_id: str, name: str) -> pd.DataFrame:
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/evaluation/{name}"))


@pytest.fixture(scope="session")
def with_ages(small_phantoms: Path) -> Path:
    """The phantoms' CSV with the `age` and the `sex` of each patient."""
    with open(small_phantoms, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        number = int(row["patient"][1:])
        row |= {"age": 20 + number, "sex": "FM"[number % 2]}
    path = small_phantoms.with_name("ages.csv")
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_demanded_sensitivity_is_reached_on_validation_and_subgroups_are_scored(
    with_ages, capsys
):
    train(
        TrainSettings(
            data=str(with_ages),
            positive="focal,diffuse",
            architecture="shufflenet_v2_x0_5",
            weights="random",
            image_size=64,
            epochs=1,
            views=1,
            sensitivity=0.9,
            lr=1e-8,
            model_name="untrained",
        )
    )
    trained = last_run("train")
    # what has not learned is below a baseline, and that is said wherever the model is met
    warning = trained["tags.medtl.below_baseline"]
    assert "the baseline on " in warning
    version = MlflowClient().get_model_version("untrained", "1")
    assert version.tags["medtl.below_baseline"] == warning
    assert last_run("promote")["tags.medtl.below_baseline"] == warning
    limits = version.description.partition("## Limits")[2]
    assert re.search(r"- The model is (below|worse than) the baseline on .* AUROC -0", limits)
    printed = capsys.readouterr().out
    assert f"warning       {warning.partition('; ')[0]}; " in printed
    assert f"version 1 is the first champion; {warning}" in printed
    gains = table(trained["run_id"], "test/baselines.csv").set_index("baseline")["gain"]
    assert gains["frozen features"] == trained["metrics.baseline_gain"]
    assert gains["file properties"] == trained["metrics.baseline_files_gain"]
    card = mlflow.artifacts.load_text(f"runs:/{trained['run_id']}/model_card.md")
    assert "at least 90 % of the images of" in card
    averages = table(trained["run_id"], "test/averages.csv").set_index("metric")
    assert averages.loc["auroc", "macro"] == pytest.approx(trained["metrics.test_auroc"])
    curve = table(trained["run_id"], "test/decision_curve.csv")
    assert len(curve) == 99
    assert "delong_low" in table(trained["run_id"], "test/per_class.csv")

    uri = f"models:/{mlflow.search_logged_models(output_format='list')[0].model_id}"
    assert load_bundle(uri).sensitivity == 0.9
    evaluate(EvaluateSettings(model=uri, split="valid"))
    assert last_run("evaluate")["metrics.valid_sensitivity"] >= 0.9
    printed = capsys.readouterr().out
    assert "baseline      none on these images: they are fitted on the model's" in printed
    assert "baseline      on the model's own test split, frozen features: auroc " in printed

    capsys.readouterr()
    evaluate(EvaluateSettings(model=uri, split="all", subgroups="sex,age"))
    groups = table(last_run("evaluate")["run_id"], "all/subgroups.csv")
    assert list(groups["column"]) == ["sex"] * 2 + ["age"] * 4
    assert groups.groupby("column")["cases"].sum().nunique() == 1
    assert groups["auroc"].notna().all()
    told = capsys.readouterr()
    assert int(last_run("evaluate")["tags.medtl.seen"]) > 0
    assert "the scores are biased upwards" in told.err
    printed = told.out
    assert "subgroups     6 by sex, age: " in printed
    assert " of 15 differences to the rest have an interval without zero" in printed

    with pytest.raises(ParameterError, match=r"subgroups=height_cm .* path, .*age, sex"):
        evaluate(EvaluateSettings(model=uri, subgroups="height_cm"))


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(ParameterError, match=r"device=cuda:99 is not allowed: this machine has"):
        evaluate(EvaluateSettings(device="cuda:99"))
