"""The main road from data to a served champion, on small phantoms, as the entry points run it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.dictionary import dictionary
from medtl.commands.evaluate import evaluate
from medtl.commands.promote import promote
from medtl.commands.train import train
from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.decode import decode
from medtl.settings.evaluation import DictionarySettings, EvaluateSettings, PromoteSettings
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.tuning import study as studies

ROOT = Path(__file__).parents[2]
SMALL = {
    "architecture": "shufflenet_v2_x0_5",
    "weights": "random",
    "image_size": 64,
    "epochs": 2,
    "views": 2,
}


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def artifacts(run_id: str, folder: str) -> set[str]:
    return {item.path for item in MlflowClient().list_artifacts(run_id, folder)}


@pytest.fixture(scope="module")
def searched(small_phantoms, empty_store, tmp_path_factory) -> tuple[Path, str]:
    """A folder with the stores of a finished search, and what it printed."""
    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(empty_store, folder / "mlflow.db")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MEDTL_CACHE", str(folder / "cache"))
        tune(TuneSettings(data=str(small_phantoms), **SMALL, trials=3, cutoffs="stage4.0,head"))
    return folder, printed.getvalue()


@pytest.fixture
def tuned(searched, own_folders, tmp_path) -> str:
    """What a finished search printed; the test has copies of its stores."""
    folder, printed = searched
    for store in folder.glob("*.db*"):
        shutil.copy(store, tmp_path)
    return printed


def test_a_search_leaves_trials_scores_pictures_and_a_champion(tuned, capsys):
    parent = runs("tune").iloc[0]
    trials = runs("trial")
    assert parent["status"] == "FINISHED"
    assert set(trials["tags.mlflow.parentRunId"]) == {parent["run_id"]}
    assert set(trials["tags.medtl.state"]) <= {"complete", "pruned"}
    assert len(trials) == 3
    best = parent["metrics.best_valid_auroc"]
    assert best == trials["metrics.best_valid_auroc"].max()
    for name in ("auroc", "sensitivity", "mcc", "ece", "brier"):
        low, value, high = (parent[f"metrics.test_{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high
        assert low < high
    assert "search/score_against_cutoff.png" in artifacts(parent["run_id"], "search")
    assert "search/layer_probe.png" in artifacts(parent["run_id"], "search")
    assert "evaluation/test/worst_mistakes.png" in artifacts(parent["run_id"], "evaluation/test")
    champion = MlflowClient().get_model_version_by_alias("medtl-wards", "champion")
    assert int(champion.version) == 1
    assert "Not a medical device" in champion.description
    assert "models:/medtl-wards@champion" in tuned

    evaluate(EvaluateSettings(model_name="medtl-wards"))
    again = runs("evaluate").iloc[0]
    assert again["metrics.test_auroc"] == pytest.approx(parent["metrics.test_auroc"], abs=1e-9)

    promote(PromoteSettings(model_name="medtl-wards"))
    assert "version 1 is the champion already" in capsys.readouterr().out

    dictionary(DictionarySettings(output=""))
    out = capsys.readouterr().out
    assert "wards" in out
    assert parent["tags.medtl.cutoff"] in out


def test_a_model_shows_a_drawing_and_no_image_of_its_data(tuned, small_phantoms, tmp_path):
    uri = "models:/medtl-wards@champion"
    files = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model")))
    shown = json.loads((files / "input_example.json").read_text())["inputs"]
    drawn = decode(base64.b64decode(shown["data"][0][0])).astype(int)
    images = [decode(path.read_bytes()) for path in small_phantoms.parent.rglob("*.png")]
    assert drawn.shape == images[0].shape == (64, 64)
    assert min(np.abs(image - drawn).mean() for image in images) > 5


def test_a_killed_search_goes_on_and_ends_as_an_undisturbed_one(
    small_phantoms, tuned, tmp_path, capsys
):
    undisturbed = runs("tune").iloc[0]
    asked = {"data": small_phantoms, **SMALL, "trials": 3, "cutoffs": "stage4.0,head"}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.tune", *arguments, "--study=again"], cwd=ROOT
    )
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"  # made by the undisturbed search
    while process.poll() is None and not finished_trials(storage, "again"):
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert "RUNNING" in set(runs("tune")["status"])

    tune(TuneSettings(**{**asked, "data": str(small_phantoms)}, study="again"))
    assert "going on after" in capsys.readouterr().out
    resumed, cut_off = runs("tune").iloc[0], runs("tune").iloc[1]
    assert resumed["metrics.test_auroc"] == undisturbed["metrics.test_auroc"]
    assert resumed["tags.medtl.cutoff"] == undisturbed["tags.medtl.cutoff"]
    assert cut_off["status"] == "KILLED"
    assert cut_off["tags.medtl.successor"] == resumed["run_id"]
    assert "RUNNING" not in {*runs("trial")["status"], *runs("tune")["status"]}

    trials, promotions = len(runs("trial")), len(runs("promote"))
    tune(TuneSettings(**{**asked, "data": str(small_phantoms)}, study="again"))
    assert f"result        run {resumed['run_id']}" in capsys.readouterr().out
    assert (len(runs("trial")), len(runs("promote"))) == (trials, promotions)


def finished_trials(storage: str, name: str) -> int:
    known = {each.study_name for each in optuna.get_all_study_summaries(storage)}
    if name not in known:
        return 0
    return len(studies.finished(optuna.load_study(study_name=name, storage=storage)))


def test_a_hybrid_is_trained_logged_and_evaluated(small_phantoms):
    train(
        TrainSettings(
            data=str(small_phantoms),
            positive="focal,diffuse",
            **SMALL,
            transfer="hybrid",
            classifier="svm",
            cutoff="stage4.0",
            pca=8,
        )
    )
    trained = runs("train").iloc[0]
    model = mlflow.search_logged_models(output_format="list")[0]
    evaluate(EvaluateSettings(model=f"models:/{model.model_id}", positive="focal,diffuse"))
    again = runs("evaluate").iloc[0]
    assert "metrics.explanation_similarity_occlusion_classifier" in again
    assert again["metrics.test_auroc"] == pytest.approx(trained["metrics.test_auroc"], abs=1e-6)


@pytest.mark.slow
def test_a_hybrid_search_tries_each_cutoff_once_in_the_order_of_the_probe(small_phantoms):
    tune(
        TuneSettings(
            data=str(small_phantoms),
            **SMALL,
            transfer="hybrid",
            cutoffs="stage2.0,stage4.0,head",
            trials=9,
        )
    )
    trials = runs("trial")
    assert sorted(trials["params.cutoff"]) == ["fc", "stage2.0", "stage4.0"]
    assert set(trials["params.classifier"]) == {"logistic"}
    assert runs("tune").iloc[0]["status"] == "FINISHED"


def test_a_search_on_new_data_starts_from_what_like_data_taught(tuned, tmp_path, capsys):
    best = runs("tune").iloc[0]["tags.medtl.cutoff"]
    other = tmp_path / "clinic"
    other.mkdir()
    write_chest_phantoms(other, seed=5, patients=45, image_size=64)
    tune(TuneSettings(data=str(other / "labels.csv"), **SMALL, trials=1, cutoffs="stage4.0,head"))
    assert f"tried early   {best}: best on wards (distance" in capsys.readouterr().out
    assert runs("trial").iloc[0]["params.cutoff"] == best


def test_two_stages_differ_from_one(small_phantoms):
    asked = {**SMALL, "architecture": "small_resnet", "epochs": 1, "cutoff": "layer3"}
    for schedule in ("single", "two_stage"):
        train(TrainSettings(data=str(small_phantoms), **asked, schedule=schedule))
    losses = runs("train")["metrics.train_loss"]
    assert losses.nunique() == 2


def test_the_same_seed_gives_the_same_numbers_with_a_cold_and_a_warm_cache(
    small_phantoms, monkeypatch, tmp_path
):
    asked = {**SMALL, "architecture": "small_resnet", "cutoff": "layer3"}
    for cache in ("one", "one", "two"):
        monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / cache))
        train(TrainSettings(data=str(small_phantoms), **asked))
    for metric in ("train_loss", "valid_loss", "test_auroc", "test_brier"):
        assert runs("train")[f"metrics.{metric}"].nunique() == 1, metric


def test_data_that_changed_is_not_evaluated_in_silence(tuned, small_phantoms):
    text = small_phantoms.read_text()
    changed = text.splitlines()
    changed[1] = changed[1].replace(changed[1].split(",")[1], "clear")
    changed[2] = changed[2].replace(changed[2].split(",")[1], "focal")
    try:
        small_phantoms.write_text("\n".join(changed) + "\n")
        with pytest.raises(MedtlError, match="have changed"):
            evaluate(EvaluateSettings(model_name="medtl-wards"))
    finally:
        small_phantoms.write_text(text)


def test_a_wrong_cutoff_is_answered_with_the_nearest(small_phantoms):
    with pytest.raises(ParameterError, match="stage4"):
        train(TrainSettings(data=str(small_phantoms), **SMALL, cutoff="stage4.00"))
    failed = runs("train").iloc[0]
    assert failed["status"] == "FAILED"
    assert "stage4" in failed["tags.medtl.error"]


def test_every_run_keeps_its_settings_and_its_split(tuned):
    run_id = runs("tune").iloc[0]["run_id"]
    settings = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/settings.json"))
    assert settings["trials"] == 3
    split = mlflow.artifacts.load_text(f"runs:/{run_id}/data/splits.csv").splitlines()
    assert split[0] == "path,label,patient,split"
    inputs = MlflowClient().get_run(run_id).inputs.dataset_inputs
    assert inputs[0].dataset.digest == runs("tune").iloc[0]["tags.medtl.data"]
