"""Lineage of a model: its run, settings, and pretrained backbone."""

from __future__ import annotations

import json

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.reporting.csv_export import as_written
from medtl.tracking.store import check_login, make_tables

SETTINGS_FILE = "settings.json"
PREDICTIONS = "evaluation/test/predictions.csv"
BASELINES = "evaluation/test/baselines.csv"  # artifact of a training


def architecture_of(uri: str) -> str:
    """Reads the architecture of the model at an MLflow URI from its description.

    Raises:
        MedtlError: the model does not exist, or is not one of medtl.
    """
    check_login()
    make_tables()
    try:
        return mlflow.models.get_model_info(uri).metadata["architecture"]
    except (MlflowException, OSError, TypeError, KeyError) as error:
        raise MedtlError(
            f"the model {uri} cannot be loaded: it is not there, or holds no model of medtl "
            f"({' '.join(str(error).split())[:300]})"
        ) from error


def training_settings(uri: str) -> dict[str, object]:
    """The settings with which the model at this MLflow URI was made, by their names.

    Raises:
        MedtlError: the model's run is gone, or was not made by this project.
    """
    try:
        run_id = mlflow.models.get_model_info(uri).run_id
        text = mlflow.artifacts.load_text(f"runs:/{run_id}/{SETTINGS_FILE}")
        return json.loads(text)
    except (MlflowException, OSError, ValueError) as error:
        raise MedtlError(
            f"the settings that {uri} was trained with cannot be read "
            f"({' '.join(str(error).split())[:200]}); say which data with data="
        ) from error


def test_predictions(uri: str) -> pd.DataFrame:
    """What the model at this MLflow URI said of its own test split: a row a case, all as text.

    Columns `label`, `patient` ('' where unknown), `decision` and a `probability_CLASS` each.

    Raises:
        MedtlError: the model's run is gone, or was not made by this project.
    """
    try:
        return _logged_table(uri, PREDICTIONS)
    except (MlflowException, OSError, ValueError) as error:
        raise MedtlError(
            f"the predictions of {uri} on its own test split cannot be read "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def test_baselines(uri: str) -> pd.DataFrame | None:
    """The baselines beside the model at this MLflow URI: a row each, all as text.

    None where its run is gone, or has none.
    """
    try:
        return _logged_table(uri, BASELINES)
    except (MlflowException, OSError, ValueError):
        return None


def _logged_table(uri: str, place: str) -> pd.DataFrame:
    run_id = mlflow.models.get_model_info(uri).run_id
    file = mlflow.artifacts.download_artifacts(artifact_uri=f"runs:/{run_id}/{place}")
    return as_written(pd.read_csv(file, dtype=str, keep_default_na=False))


RECIPE_TAG = "medtl.recipe"  # on a backbone's version: key of the settings that made it


def find_backbone(name: str, recipe: str) -> int | None:
    """The newest version of `name` that this recipe made; None where there is none."""
    found = MlflowClient().search_model_versions(f"name='{name}'")
    made = [int(each.version) for each in found if each.tags.get(RECIPE_TAG) == recipe]
    return max(made, default=None)


def mark_backbone(name: str, version: int, recipe: str) -> None:
    """Notes on a version which recipe made it."""
    MlflowClient().set_model_version_tag(name, str(version), RECIPE_TAG, recipe)
