"""Cross-validation and repeated seeds, as the entry point runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from medtl.commands.train import train
from medtl.data.loading import load
from medtl.errors import ParameterError
from medtl.evaluation.external_validation import ClassMapping
from medtl.pipeline.external_validation import internal_measures
from medtl.settings.training import PretrainSettings, TrainSettings
from medtl.tracking.logged_model import load_bundle

ROOT = Path(__file__).parents[2]
TINY = {"architecture": "small_resnet", "weights": "random", "image_size": 32, "cutoff": "layer4"}


def runs(kind: str) -> list[Run]:
    query = f"tags.`medtl.kind` = '{kind}'"
    return mlflow.search_runs(filter_string=query, output_format="list")


def table(run: Run, place: str) -> pd.DataFrame:
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{place}"))


def model_of(run: Run) -> str:
    (model,) = run.outputs.model_outputs
    return f"models:/{model.model_id}"


@pytest.mark.slow
def test_folds_are_runs_of_their_own_and_the_ensemble_is_tested_once(small_phantoms, capsys):
    train(TrainSettings(data=str(small_phantoms), **TINY, folds=3, epochs=2, views=1))
    (run,) = runs("train")
    folds = sorted(runs("fold"), key=lambda each: each.data.tags["medtl.fold"])
    assert [each.data.tags["mlflow.parentRunId"] for each in folds] == [run.info.run_id] * 3
    assert all("valid_auroc" in each.data.metrics for each in folds)
    metrics = run.data.metrics
    per_fold = table(run, "cross_validation/per_fold.csv")
    assert metrics["cv_auroc_low"] < metrics["cv_auroc"] < metrics["cv_auroc_high"]
    assert metrics["cv_auroc_fold_mean"] == pytest.approx(per_fold["auroc"].mean())
    assert metrics["cv_auroc_fold_std"] == pytest.approx(per_fold["auroc"].std())
    assignment = table(run, "cross_validation/folds.csv")
    out = table(run, "cross_validation/out_of_fold.csv").set_index("path")
    held_out = assignment[assignment["fold"] == "test"]
    assert set(out.index) == set(assignment["path"]) - set(held_out["path"])
    assert len(table(run, "evaluation/test/predictions.csv")) == len(held_out)
    assert "test_auroc" in metrics
    assert "medtl.test" not in run.data.tags
    assert load_bundle(model_of(run)).members == 3
    printed = capsys.readouterr().out
    assert "out-of-fold scores" in printed
    assert "over folds      (mean and standard deviation of 3 folds, not pooled)" in printed


@pytest.mark.slow
def test_without_a_test_split_each_case_is_tested_once(small_phantoms, capsys):
    settings = {"data": str(small_phantoms), **TINY, "epochs": 1, "views": 1}
    train(TrainSettings(**settings, folds=2, holdout=0.0, sensitivity=0.9, model_name="wards"))
    (run,) = runs("train")
    assert run.data.tags["medtl.test"] == "out-of-fold"
    assert run.data.metrics["test_auroc"] == run.data.metrics["cv_auroc"]
    cases = table(run, "cross_validation/folds.csv")
    assert len(table(run, "evaluation/test/predictions.csv")) == len(cases)
    assert "test" not in set(cases["fold"])
    assert "there is no test split (holdout=0)" in capsys.readouterr().out
    champion = mlflow.MlflowClient().get_model_version_by_alias("wards", "champion")
    assert int(champion.version) == 1
    bundle = load_bundle(model_of(run))
    data = load(settings["data"], bundle.preprocessing.rendering, 0)
    same = ClassMapping.same(bundle.classes)
    internal = internal_measures(model_of(run), bundle, same, data).summary
    for name in ("auroc", "sensitivity", "balanced_accuracy", "f1"):
        assert internal[name].value == pytest.approx(run.data.metrics[f"test_{name}"]), name


def stop_in_fold(command: list[str], fold: str) -> None:
    """Starts the command, and kills it in an epoch after the first of a fold."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        for _ in range(3000):
            begun = [each for each in runs("fold") if each.data.tags["medtl.fold"] == fold]
            if begun and "train_loss" in begun[0].data.metrics:
                break
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_command_killed_in_its_third_fold_goes_on_there(small_phantoms, tmp_path, capfd):
    settings = {
        "data": str(small_phantoms), **TINY, "folds": 4, "epochs": 25, "patience": 25, "views": 1,
    }  # fmt: skip
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    stop_in_fold([sys.executable, "-m", "entrypoints.train", *asked], "3")
    capfd.readouterr()
    train(TrainSettings(**settings))
    said = capfd.readouterr().err
    assert said.count("a finished training of 25 epochs is reused") == 2
    first, again = sorted(runs("train"), key=lambda each: each.info.start_time)
    assert first.info.status == "KILLED"
    assert first.data.tags["medtl.successor"] == again.info.run_id
    os.environ["MEDTL_CACHE"] = str(tmp_path / "other")
    train(TrainSettings(**settings))
    undisturbed = max(runs("train"), key=lambda each: each.info.start_time)
    for metric in ("cv_auroc", "test_auroc", "cv_ece_fold_std"):
        assert again.data.metrics[metric] == undisturbed.data.metrics[metric]
    one, other = (
        table(each, "cross_validation/out_of_fold.csv").filter(like="logit_").to_numpy()
        for each in (again, undisturbed)
    )
    assert np.array_equal(one, other)


@pytest.mark.slow
def test_seeds_are_runs_of_their_own_and_the_first_is_the_model(small_phantoms, capsys):
    train(TrainSettings(data=str(small_phantoms), **TINY, seeds="3,1", epochs=1, views=1))
    (run,) = runs("train")
    metrics, scores = run.data.metrics, table(run, "seeds/scores.csv")
    assert list(scores["seed"]) == [3, 1]
    assert metrics["seeds_auroc"] == pytest.approx(scores["auroc"].mean())
    assert metrics["seeds_auroc_low"] < metrics["seeds_auroc"] < metrics["seeds_auroc_high"]
    assert metrics["seeds_auroc_std"] == pytest.approx(scores["auroc"].std())
    assert metrics["test_auroc"] == pytest.approx(scores["auroc"][0], abs=0.01)
    assert {each.data.params["seed"] for each in runs("seed")} == {"1", "3"}
    assert run.data.tags["medtl.seeds"].startswith("3, 1; test AUROC, mean with its interval")
    assert "over 2 seeds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"folds": 1}, "folds=1 is not allowed: 0, or at least 2"),
        ({"holdout": 0.0}, "holdout=0.0 is not allowed: above 0 without folds"),
        ({"folds": 5, "seeds": "1,2"}, "seeds=1,2 is not allowed: empty with folds"),
        ({"seeds": "1"}, "seeds=1 is not allowed: two or more"),
        ({"seeds": "1,x"}, "seeds=x is not allowed: a comma list of whole numbers"),
    ],
)
def test_wrong_combinations_are_refused(settings, said):
    with pytest.raises(ParameterError, match=said):
        TrainSettings(**settings)
    if said.startswith("holdout"):
        return
    with pytest.raises(ParameterError):
        PretrainSettings(**settings)
