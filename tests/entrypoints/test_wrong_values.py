"""One invalid value of every parameter of every entry point: an error before any work."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
import yaml

from entrypoints.cli import enter

ROOT = Path(__file__).parents[2]

OF_DATA = {
    "data": "no/such/folder",
    "duplicates": "keep",
    "unreadable": "keep",
    "missing": "keep",
    "positive": ",",
    "frames": "zeroth",
    "outside": "keep",
    "patient_pattern": "person[0-9]+",
    "layout": "mine",
    "columns": "path=a",
    "path_pattern": "images/x.jpg",
    "splits": "1:dev",
    "uncertain": "keep",
    "readers": "keep",
    "ordinal": "mild",
}
OF_LEARNING = OF_DATA | {
    "architecture": "resnet19",
    "weights": "no/such.pth",
    "transfer": "prompting",
    "classifier": "tree",
    "hidden": "-1",
    "pca": "-1",
    "epochs": "-1",
    "patience": "-1",
    "batch_size": "1",
    "weight_decay": "inf",
    "image_size": "-1",
    "augment": "heavy",
    "views": "0",
    "keep": "sometimes",
    "balance": "always",
    "seed": "-1",
    "precision": "int8",
    "device": "cuda:63",
    "compile": "jit",
    "window": "40/0",
    "fit": "stretch",
    "normalise": "somehow",
    "folds": "-1",
    "holdout": "1.2",
    "layer_decay": "0",
    "lora_rank": "0",
}
OF_TRAINING = OF_LEARNING | {
    "model_name": "wards/chest",
    "sensitivity": "1.2",
    "coverage": "1.2",
    "seeds": "one",
    "cutoff": "layer9",
    "schedule": "three_stage",
    "optimizer": "adaam",
    "lr": "nan",
}
OF_CLUSTER = {
    "executor": "slurm",
    "workers": "0",
    "cores_per_worker": "0",
    "gpus_per_worker": "-1",
    "ray_address": "node:6379",
    "ship": "mail",
}
OF_MODEL = OF_DATA | {
    "model": "models:/medtl-nothing/1",
    "model_name": "wards/chest",
    "seed": "-1",
    "device": "tpu",
}
WRONG = {
    "train": OF_TRAINING,
    "pretrain": OF_TRAINING | {"backbone_name": "a:b", "train_images": "-1"},
    "tune": OF_LEARNING
    | OF_CLUSTER
    | {
        "model_name": "",
        "sensitivity": "-1",
        "coverage": "-1",
        "trials": "0",
        "timeout": "inf",
        "cutoffs": "layer9",
        "optimizers": "adam,adaam",
        "lr_low": "0",
        "lr_high": "1e-9",
        "pruner": "axe",
        "storage": "a database",
        "confidence": "0.2",
    },
    "compare": OF_LEARNING
    | OF_CLUSTER
    | {
        "study": "grids",
        "cutoffs": "head,layer9",
        "optimizers": "adaam",
        "lr": "-1",
        "rates": "0.1,fast",
        "fractions": "2",
        "seeds": "one",
        "different": "no/such/folder",
        "same": "no/such/folder",
    },
    "evaluate": OF_MODEL
    | {
        "split": "tests",
        "mapping": "pneumonia",
        "subgroups": ",",
        "against": "no/such/folder",
        "maps": "crayon",
        "doubtful": "no/such/list.csv",
    },
    "perturb": OF_MODEL
    | {
        "images": "no/such/folder",
        "norm": "l3",
        "zeta": "2",
        "order": "random",
        "passes": "0",
        "step_size": "0",
        "most_images": "0",
        "models": ",",
    },
    "promote": {
        "data": "no/such/folder",
        "model_name": "wards:chest",
        "version": "-1",
        "rollback": "maybe",
        "confidence": "2",
        "seed": "-1",
    },
    "dictionary": {"architecture": "resnet19", "output": "no/such/folder/dictionary.csv"},
    "predict": {
        "data": "no/such/folder",
        "model": "models:/medtl-nothing/1",
        "output": "no/such/folder/predictions.csv",
        "heatmaps": "maybe",
        "columns": "path=a",
        "path_pattern": "images/x.jpg",
        "outside": "keep",
        "device": "tpu",
    },
}
BESIDE = {("compare", "different"): ["--study", "alzubaidi2020"],
          ("compare", "same"): ["--study", "alzubaidi2020"]}  # fmt: skip
"""Other options that are needed for the parameter to take effect."""

KNOWN_LATER = {
    ("tune", "study"): "any text is a name; that its study asks something else follows from data",
    ("perturb", "target"): "a class of the model",
}
"""Parameters whose validation needs the data or a model."""


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path) -> Callable[..., str]:
    """Runs an entry point in this process; returns status and error line, if no image was read."""

    def entered(entry_point: str, *arguments: str) -> tuple[int, str]:
        module = importlib.import_module(f"entrypoints.{entry_point}")
        monkeypatch.setattr("sys.argv", [entry_point, *arguments])
        with pytest.raises(SystemExit) as exited:
            enter(module.main)
        assert not (tmp_path / "cache").exists(), "an image was drawn or decoded"
        return exited.value.code, capsys.readouterr().err.strip().splitlines()[-1]

    return entered


def declared() -> dict[str, list[str]]:
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    return {name: list(entry["parameters"]) for name, entry in entry_points.items()}


def test_no_parameter_is_left_out():
    for name, parameters in declared().items():
        known = {parameter for entry, parameter in KNOWN_LATER if entry == name}
        if name != "main":  # an alias of tune
            assert set(parameters) == set(WRONG[name]) | known, name
            assert not set(WRONG[name]) & known


@pytest.mark.parametrize(
    ("entry_point", "parameter", "value"),
    [(entry, parameter, value) for entry in WRONG for parameter, value in WRONG[entry].items()],
)
def test_a_wrong_value_is_told_before_any_work(refused, entry_point, parameter, value):
    beside = BESIDE.get((entry_point, parameter), [])
    status, line = refused(entry_point, f"--{parameter.replace('_', '-')}", value, *beside)
    assert line.startswith("medtl: ")
    if parameter == "model":
        assert status == 1
        assert value in line
        return
    assert status == 2, line
    assert parameter in line.replace("-", "_")
    for run in mlflow.search_runs(output_format="list"):
        assert run.info.status == "FAILED"
        assert line == f"medtl: {run.data.tags['medtl.error']}"
        assert not run.inputs.dataset_inputs, "data was read"
