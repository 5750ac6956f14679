"""Models, studies and caches of earlier versions: read, served, evaluated, compared by the gate.

`tests/stored/version_0_1.tar.xz` was written by version 0.1, before its modules moved to other
folders: a tracking store with a registered `small_resnet` (its weights rounded, so that they
compress), a finished study of two trials, and activations kept by it. It was trained on phantoms,
and the paths in it are those of a folder `/project`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from medtl.commands.evaluate import evaluate
from medtl.commands.promote import promote
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import ParameterError
from medtl.inference.predictor import Predictor
from medtl.networks.registry import build
from medtl.settings.evaluation import EvaluateSettings, PromoteSettings
from medtl.tracking.logged_model import example_images, load_bundle, log_model
from medtl.tracking.relocate import renamed
from medtl.tracking.runs import SETTINGS_FILE
from medtl.training import activation_store
from medtl.tuning.storage import open_store
from medtl.tuning.study import ASKS, FINISHED, Schedule, finished, open_study

STORED = Path(__file__).parents[1] / "stored" / "version_0_1.tar.xz"
SCHEDULE = Schedule(trials=3, timeout=0, pruner="none", seed=0)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder as version 0.1 left it, with the images that it was trained on."""
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    assert renamed(folder / "mlflow.db", "/project", str(folder)) > 5
    (folder / "wards").mkdir()
    write_chest_phantoms(folder / "wards", seed=1, patients=30, image_size=32)
    return folder


@pytest.fixture
def project(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked project as the folder and the tracking store of this process."""
    monkeypatch.chdir(unpacked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{unpacked / 'mlflow.db'}")
    monkeypatch.setenv("MEDTL_CACHE", str(unpacked / "cache"))
    return unpacked


@pytest.fixture
def old(project: Path) -> Predictor:
    return load_bundle("models:/wards@champion")


PREDICT = """
import json, pathlib, sys
import mlflow, pandas as pd

answers = []
for place in sys.argv[1:3]:
    model = mlflow.pyfunc.load_model(place)
    import medtl
    files = [pathlib.Path(path).read_bytes() for path in sys.argv[3:]]
    table = model.predict(pd.DataFrame({"image": files}))
    answers.append([medtl.__file__, table.to_dict(orient="records")])
print(json.dumps(answers))
"""


def test_a_model_is_served_by_its_own_code_and_by_this_one_alike(
    filled_store: tuple[Path, str], project: Path
):
    """In a process without this project, which then also serves a model of this version."""
    (old,) = (project / "mlruns" / "0" / "models").glob("*/artifacts")
    database, uri = filled_store
    new = database.parent / "artifacts" / "models" / uri.removeprefix("models:/") / "artifacts"
    images = sorted((project / "wards").glob("*.png"))[:3]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    served = subprocess.run(
        [sys.executable, "-c", PREDICT, str(old), str(new), *map(str, images)],
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert served.returncode == 0, served.stderr
    (code, by_own_code), (new_code, of_new) = json.loads(served.stdout.splitlines()[-1])
    assert Path(code).is_relative_to(old), "the code that is stored with the model"
    assert Path(new_code).is_relative_to(new)
    assert [row["error"] for row in of_new] == [None] * 3

    model = mlflow.pyfunc.load_model("models:/wards@champion")
    rows = model.predict(pd.DataFrame({"image": [image.read_bytes() for image in images]}))
    for row, expected in zip(rows.to_dict(orient="records"), by_own_code, strict=True):
        assert (row["model"], row["version"]) == ("wards", "1")
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
        same = ("label", "decision", "in_domain", "error")
        assert [row[name] for name in same] == [expected[name] for name in same]


def test_a_model_is_evaluated_on_the_data_it_names(project: Path, capsys):
    evaluate(EvaluateSettings(model="models:/wards/1"))
    assert "auroc" in capsys.readouterr().out
    (run,) = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="tags.`medtl.kind` = 'evaluate'",
        output_format="list",
    )
    assert run.info.status == "FINISHED"
    assert run.data.tags["medtl.data"] == load_bundle("models:/wards/1").fingerprint


def test_a_model_is_the_champion_that_a_new_one_is_compared_with(
    project: Path, old: Predictor, capsys
):
    dataset = load("wards/labels.csv", old.image_size, seed=0)
    network = build("small_resnet", len(old.classes), old.image_size, seed=5).eval()
    new = dataclasses.replace(old, network=network, fingerprint=dataset.fingerprint, domain=None)
    (trained,) = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="tags.`medtl.kind` = 'train'",
        output_format="list",
    )
    with mlflow.start_run(experiment_id=trained.info.experiment_id):
        mlflow.log_params(trained.data.params)
        settings = f"runs:/{trained.info.run_id}/{SETTINGS_FILE}"
        mlflow.log_text(mlflow.artifacts.load_text(settings), SETTINGS_FILE)
        mlflow.set_tags({"medtl.kind": "train"})
        model = log_model(new, example_images(old.image_size, 1, 1))
    version = mlflow.register_model(model.model_uri, "wards").version
    promote(PromoteSettings(model_name="wards"))
    said = capsys.readouterr().out
    assert f"version {version} " in said
    assert "version 1: AUROC" in said
    assert "on the same 16 cases" in said


def test_a_study_goes_on(project: Path):
    store = open_store(f"sqlite:///{project / 'optuna.db'}")
    asks = optuna.load_study(study_name="wards", storage=store.storage).user_attrs[ASKS]
    study = open_study(store, "wards", True, asks, SCHEDULE)
    assert len(finished(study)) == 2
    assert study.user_attrs[FINISHED]
    assert all(0 <= trial.value <= 1 for trial in finished(study))
    with pytest.raises(ParameterError, match="begun with other data or settings") as refused:
        open_study(store, "wards", True, "another question", SCHEDULE)
    assert "\n" not in str(refused.value)
    new = open_study(store, "wards", False, "another question", SCHEDULE)
    assert (new.study_name, len(finished(new))) == ("wards-2", 0)


def test_activations_that_were_kept_are_read(project: Path):
    keys = [entry.name for entry in (project / "cache" / "activations").iterdir()]
    assert keys
    for key in keys:
        kept = activation_store.find(key)
        (features,) = kept.batch(np.arange(len(kept)))
        assert features.ndim == 2
        assert torch.isfinite(features).all()
